import { randomBytes } from 'node:crypto';
import { systemClock } from '../src/clock.ts';
import { Devices } from '../src/hivemind/devices/devices.ts';
import { DuplicateFilter } from '../src/hivemind/notifications/duplicate-filter.ts';
import { Intake } from '../src/hivemind/notifications/intake.ts';
import { fitsMessageHash, messageHash } from '../src/session/message-hash.ts';
import { encodeNotification } from '../src/session/notification.ts';
import { round } from './world.ts';

const ACCOUNTS = 1_000;
const MESSAGES = 4_000;
const ROUNDS = 20;
const DAY = 86_400_000;

/**
 * What the hivemind's main thread spends on a copy of a message before the outbox: CPU time, the least of many rounds,
 * for this machine is shared.
 */
export function intake(): object {
  return {
    row: 'intake',
    ...each(500, true),
    ...each(1_000, true),
    ...each(500, false),
    hash_of_1000_bytes_us: hash(1_000),
  };
}

/** Microseconds a copy: the first, the second, and the later three. */
function each(size: number, withBody: boolean): object {
  const accounts = Array.from({ length: ACCOUNTS }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
  const servers = Array.from({ length: 5 }, (_, index) => ({ index }));
  const devices = new Devices({ random: randomBytes });
  for (const account of accounts) {
    const keys = {
      sessionEd25519: randomBytes(32),
      subaccount: null,
      signature: randomBytes(64),
      encKey: randomBytes(32),
    };
    const device = { service: 'bench', serviceId: randomBytes(32).toString('hex'), serviceData: null };
    devices.upsert({ account, ...keys, ...device, signedAt: 1, wantData: withBody, namespaces: [0] }, 1);
  }
  const under = new Intake({
    clock: systemClock,
    possibleTimes: () => [Date.now()],
    devices,
    seen: new DuplicateFilter({ clock: systemClock, random: randomBytes, lifetime: 600_000 }),
    outbox: { add: () => {} },
    accepts: () => true,
    hasOthers: () => true,
    nameOf: ({ index }: { index: number }) => `${index}`,
    log: { warn() {} },
  });
  const least = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let n = 0; n < ROUNDS; n++) {
    const frames = Array.from({ length: MESSAGES }, (_, index) => {
      const account = accounts[index % ACCOUNTS]!;
      const data = randomBytes(size);
      const times = { timestamp: Date.now(), expiry: Date.now() + 14 * DAY };
      const hash = messageHash(account, 0, data);
      return encodeNotification({ account, hash, namespace: 0, ...times, data: withBody ? data : null });
    });
    const spent = [0, 0, 0];
    for (const [index, server] of servers.entries()) {
      const before = process.cpuUsage().user;
      for (const frame of frames) under.handle(server, frame);
      spent[Math.min(index, 2)]! += (process.cpuUsage().user - before) / MESSAGES / (index < 2 ? 1 : 3);
    }
    for (const [index, us] of spent.entries()) least[index] = Math.min(least[index]!, us);
  }
  const [first, second, later] = least.map(round);
  return { [withBody ? `with_${size}_bytes_us` : 'without_body_us']: { first, second, later } };
}

function hash(size: number): number {
  const account = randomBytes(33);
  const body = randomBytes(size);
  const right = messageHash(account, 0, body);
  let least = Number.POSITIVE_INFINITY;
  for (let n = 0; n < ROUNDS; n++) {
    const before = process.cpuUsage().user;
    for (let times = 0; times < 10_000; times++) fitsMessageHash(account, 0, body, right);
    least = Math.min(least, (process.cpuUsage().user - before) / 10_000);
  }
  return round(least);
}
