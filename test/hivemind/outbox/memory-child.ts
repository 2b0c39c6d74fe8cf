/** A process of its own that holds many pushes and tells what it took for them; run with --expose-gc. Prints one line of JSON. */
import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { systemClock } from '../../../src/clock.ts';
import { Outbox } from '../../../src/hivemind/outbox/outbox.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';

const { accounts, devices, messages, body, token, data } = JSON.parse(process.argv[2] ?? '{}') as {
  accounts: number;
  devices: number;
  messages: number;
  /** Bytes; 0 for devices that want none. */
  body: number;
  token: number;
  /** Bytes of service data. */
  data: number;
};

const collect = async () => {
  for (let round = 0; round < 4; round++) {
    await turn();
    globalThis.gc?.();
  }
};
const resident = async () => {
  await collect();
  return process.memoryUsage.rss();
};

const outbox = new Outbox({
  clock: systemClock,
  limits: { maxBytes: 4e9, maxAge: 1e9 },
  breaker: { share: 1, minimum: 1e9 },
  random: randomBytes,
  log: () => {},
});
const fill = (owners: number) => {
  for (let account = 0; account < owners; account++) {
    const id = randomBytes(33);
    const phones = Array.from({ length: devices }, () => ({
      service: 'apns',
      serviceId: randomBytes(token / 2).toString('hex'),
      serviceData: data > 0 ? randomBytes(data) : null,
      // From a slab that others share, as the index of devices gives it.
      encKey: Buffer.from(randomBytes(32)),
      wantData: body > 0,
    }));
    for (let message = 0; message < messages; message++) {
      const frame = randomBytes(200 + body);
      outbox.add(
        {
          account: id,
          hash: frame.subarray(0, 43),
          namespace: 0,
          timestamp: Date.now(),
          expiry: Date.now() + 1e9,
          data: frame.subarray(100, 100 + body),
        },
        phones,
      );
    }
  }
};

const service = outbox.service('apns');
// Once before, so that code and first slabs are not counted with it.
fill(100);
const empty = await resident();
const counted = service.bytes;
fill(accounts);
const pushes = service.queue.length;
const full = await resident();
const held = service.bytes - counted;

/** Takes what it is sent as libzmq does while nobody reads: it keeps it. */
const pipe: unknown[] = [];
const remote: Remote = {
  id: 'notifier',
  send: (_command, ...parts) => pipe.push(parts) > 0,
  request: () => Promise.reject(new Error('not asked for here')),
};
outbox.register('apns', remote, 1e9);
while (service.queue.length > 0 && service.instances.wireBytes < 1e9 - 1e6) await turn();
const given = await resident();
const wire = service.instances.wireBytes;
const perPush = service.instances.inFlight;
pipe.length = 0;
outbox.gone(remote);
const back = await resident();
await outbox.stop(0);
const totals = outbox.close();
const after = await resident();
process.stdout.write(
  JSON.stringify({
    pushes,
    held,
    used: full - empty,
    wire,
    wireUsed: given - full,
    inFlight: perPush,
    back: back - empty,
    after: after - empty,
    bytes: service.bytes,
    ...totals,
  }),
);
process.exit(0);
