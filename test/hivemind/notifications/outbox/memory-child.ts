/**
 * A process of its own that holds many pushes, and tells in one line of JSON what it counted and what it took. Run with
 * --expose-gc.
 */
import { randomBytes, randomFillSync } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { systemClock } from '../../../../src/clock.ts';
import type { Duty } from '../../../../src/hivemind/notifications/copies/duty.ts';
import { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import type { Remote } from '../../../../src/oxenmq/remote.ts';
import { silentLog } from '../../../support/log.ts';

/** What is held: so many accounts with so many devices each, and so many messages to each account. */
export interface Load {
  accounts: number;
  devices: number;
  messages: number;
  /** Whether they are held back, as another hivemind of a cluster sends them first. */
  heldBack?: boolean;
  /** Bytes. */
  body: number;
  wantData: boolean;
  /** Bytes of service data. */
  data: number;
}

/** What it counted and what it took, in bytes. */
export interface Taken {
  pushes: number;
  counted: number;
  used: number;
  /** When all of it was given up. */
  left: number;
  leftUsed: number;
  /** For 20,000 pushes on the way to a notifier that reads nothing. */
  wire: number;
  wireUsed: number;
}

const resident = async () => {
  for (let round = 0; round < 3; round++) {
    await turn();
    // Empties V8's store of free pages, too.
    globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  }
  return process.memoryUsage.rss();
};

const duty: Duty = {
  own: 'second',
  firstOf: () => 'first',
  othersOf: () => ['first'],
  isLiving: () => true,
  onChange: () => {},
};

const openOutbox = (heldBack = false) =>
  new Outbox({
    clock: systemClock,
    limits: { maxBytes: 4e9, maxAge: 1e9 },
    breaker: { share: 1, minimum: 1e9 },
    random: randomBytes,
    log: silentLog,
    cluster: heldBack ? { duty, secret: randomBytes(32), tell: async () => true } : undefined,
  });

async function run({ accounts, devices, messages, heldBack, body, wantData, data }: Load): Promise<Taken> {
  // Views of a larger frame and of each other's memory, as the intake has them.
  const frame = Buffer.alloc(100_000);
  randomFillSync(frame);
  let number = 0;
  const fill = (outbox: Outbox, owners: number, devices: number, messages: number) => {
    for (let owner = 0; owner < owners; owner++) {
      frame.writeUInt32LE(++number, 0);
      const phones = Array.from({ length: devices }, (_, index) => ({
        service: 'apns',
        serviceId: frame.toString('hex', index, index + 32),
        serviceData: data > 0 ? frame.subarray(500, 500 + data) : null,
        encKey: frame.subarray(50, 82),
        wantData,
      }));
      for (let message = 0; message < messages; message++) {
        outbox.add(
          {
            account: frame.subarray(0, 33),
            hash: frame.subarray(100, 143),
            namespace: 0,
            timestamp: Date.now() + message,
            expiry: Date.now() + 1e9,
            data: frame.subarray(2_000, 2_000 + body),
          },
          phones,
        );
      }
    }
  };

  let outbox = openOutbox(heldBack);
  let service = outbox.service('apns');
  // Some before, so that what is loaded and grown for the first is not counted with the many.
  fill(outbox, 50, 10, 10);
  const held = () => service.bytes + (outbox.standby?.bytes ?? 0);
  const [empty, before] = [await resident(), held()];
  fill(outbox, accounts, devices, messages);
  const [full, counted] = [await resident(), held() - before];
  const pushes = service.queue.size + (outbox.standby?.size ?? 0);
  await outbox.stop(0);
  const left = held();
  const leftUsed = (await resident()) - empty;

  const pipe: unknown[] = [];
  const remote: Remote = {
    id: 'notifier',
    send: (_command, ...parts) => pipe.push(parts) > 0,
    request: () => Promise.reject(new Error('not asked for here')),
  };
  outbox = openOutbox();
  service = outbox.service('apns');
  fill(outbox, accounts, devices, messages);
  const again = await resident();
  outbox.register('apns', remote, 20_000);
  while (service.queue.length > 0 && service.instances.inFlight < 20_000) await turn();
  const [given, wire] = [await resident(), service.instances.wireBytes];
  await outbox.stop(0);
  outbox.close();
  return { pushes, counted, used: full - empty, left, leftUsed, wire, wireUsed: given - again };
}

process.stdout.write(JSON.stringify(await run(JSON.parse(process.argv[2] ?? '') as Load)));
