import { randomBytes } from 'node:crypto';
import type { Clock } from '../src/clock.ts';
import { Devices } from '../src/hivemind/devices/devices.ts';
import type { Duty } from '../src/hivemind/notifications/copies/duty.ts';
import { DuplicateFilter } from '../src/hivemind/notifications/duplicate-filter.ts';
import { Intake } from '../src/hivemind/notifications/intake.ts';
import { Outbox } from '../src/hivemind/notifications/outbox/outbox.ts';
import type { Remote } from '../src/oxenmq/remote.ts';
import { decodeProgress, encodeProgress, type News } from '../src/session/cluster-protocol.ts';
import { messageHash } from '../src/session/message-hash.ts';
import { encodeNotification } from '../src/session/notification.ts';
import { decodePushReport, decodeSealedPushes, encodePushReport } from '../src/session/notifier-protocol.ts';
import { FakeClock } from '../test/support/fake-clock.ts';
import { round } from './world.ts';

const ACCOUNTS = 1_000;
const MESSAGES = 2_000;
const ROUNDS = 30;
const COPIES = 5;
const BYTES = 500;
const DAY = 86_400_000;
const SECRET = randomBytes(32);

/**
 * What a message costs the main threads of two hiveminds of a cluster, without the sockets: that which sends its push,
 * and that which holds it back until the first has told what became of it; and one that is alone. Microseconds of CPU
 * time for five copies and one push, the least of many rounds, for this machine is shared.
 */
export async function secondCopy(): Promise<object> {
  const accounts = Array.from({ length: ACCOUNTS }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
  const devices = new Devices({ random: randomBytes });
  for (const account of accounts) {
    const keys = { sessionEd25519: randomBytes(32), subaccount: null, signature: randomBytes(64) };
    const device = { service: 'bench', serviceId: randomBytes(32).toString('hex'), serviceData: null };
    const asks = { signedAt: 1, wantData: true, namespaces: [0] };
    devices.upsert({ account, encKey: randomBytes(32), ...keys, ...device, ...asks }, 1);
  }
  const least = { alone: Number.POSITIVE_INFINITY, first: Number.POSITIVE_INFINITY, second: Number.POSITIVE_INFINITY };
  const alone = new Side(devices, undefined);
  const first = new Side(devices, 'first');
  const second = new Side(devices, 'second');
  for (let n = 0; n < ROUNDS; n++) {
    const frames = Array.from({ length: MESSAGES }, (_, index) => {
      const account = accounts[index % ACCOUNTS] ?? Buffer.alloc(33);
      const data = randomBytes(BYTES);
      const times = { timestamp: alone.clock.now(), expiry: alone.clock.now() + 14 * DAY };
      return encodeNotification({ account, hash: messageHash(account, 0, data), namespace: 0, ...times, data });
    });
    least.alone = Math.min(least.alone, await alone.work(frames, []));
    least.first = Math.min(least.first, await first.work(frames, []));
    least.second = Math.min(least.second, await second.work(frames, first.told.splice(0)));
    const { accepted } = first.outbox.service('bench').counters;
    const { standby } = second.outbox;
    if (accepted !== (n + 1) * MESSAGES || standby?.counters.ended !== accepted || standby.size > 0) {
      throw new Error('not every push was sent by the first, and ended at the second');
    }
  }
  return {
    row: 'second-copy',
    alone_us: round(least.alone),
    first_us: round(least.first),
    second_us: round(least.second),
    second_of_first: round(least.second / least.first),
  };
}

/** One hivemind from its intake to its notifier and back. */
class Side {
  readonly clock = new FakeClock(Date.now());
  readonly outbox: Outbox;
  /** What it told the other one, as it was sent. */
  readonly told: Buffer[] = [];
  readonly #intake: Intake<object>;
  readonly #sent: Buffer[] = [];
  readonly #deferred: (() => void)[] = [];
  readonly #notifier: Remote;

  constructor(devices: Devices, name: 'first' | 'second' | undefined) {
    const clock: Clock = this.clock;
    const other = name === 'first' ? 'second' : 'first';
    const duty: Duty = {
      own: name ?? '',
      firstOf: () => 'first',
      othersOf: () => [other],
      isLiving: () => true,
      onChange: () => {},
    };
    const tell = async (_: string, news: News) =>
      this.told.push(encodeProgress({ name: 'first', run: 1n, ...news })) > 0;
    this.outbox = new Outbox({
      clock,
      random: randomBytes,
      limits: { maxBytes: 1e9, maxAge: 1e9 },
      breaker: { share: 1, minimum: 1e9 },
      log: { info() {}, warn() {} },
      defer: (callback) => this.#deferred.push(callback),
      cluster: name && { duty, secret: SECRET, tell },
    });
    this.#intake = new Intake({
      clock,
      possibleTimes: () => [clock.now()],
      devices,
      seen: new DuplicateFilter({ clock, random: randomBytes, lifetime: 600_000 }),
      outbox: this.outbox,
      accepts: () => true,
      hasOthers: () => true,
      nameOf: () => '',
      log: { warn() {} },
    });
    this.#notifier = {
      id: 'notifier',
      send: (_command, ...parts) => this.#sent.push(parts[0] as Buffer) > 0,
      request: () => Promise.reject(new Error('not asked for here')),
    };
    this.outbox.register('bench', this.#notifier, MESSAGES, Buffer.alloc(16, 1));
  }

  /** Microseconds a message. */
  async work(frames: readonly Buffer[], progress: readonly Buffer[]): Promise<number> {
    const servers = Array.from({ length: COPIES }, () => ({}));
    this.outbox.register('bench', this.#notifier, MESSAGES, Buffer.alloc(16, 1));
    let before = process.cpuUsage();
    // In the order in which they would come: the copies of a message after each other.
    for (const frame of frames) for (const server of servers) this.#intake.handle(server, frame);
    for (let next = this.#deferred.shift(); next; next = this.#deferred.shift()) next();
    let spent = process.cpuUsage(before).user;
    const reports = this.#sent.splice(0).map((part) => {
      const accepted = decodeSealedPushes(part).map(({ id }) => id);
      return encodePushReport({ service: 'bench', accepted, refused: [], handedBack: [], answers: [] });
    });
    before = process.cpuUsage();
    for (const report of reports) this.outbox.report(this.#notifier, decodePushReport(report));
    for (const part of progress) this.outbox.standby?.onProgress(decodeProgress(part));
    await this.clock.advance(0);
    await this.clock.advance(100);
    spent += process.cpuUsage(before).user;
    return spent / frames.length;
  }
}
