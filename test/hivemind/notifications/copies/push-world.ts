import type { Duty } from '../../../../src/hivemind/notifications/copies/duty.ts';
import type { Doubt } from '../../../../src/hivemind/notifications/doubt.ts';
import { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import type { Part, Remote } from '../../../../src/oxenmq/remote.ts';
import { decodeProgress, encodeProgress, type News } from '../../../../src/session/cluster-protocol.ts';
import { decodeSealedPushes } from '../../../../src/session/notifier-protocol.ts';
import { decodePush } from '../../../../src/session/push.ts';
import { holdersOf } from '../../../../src/session/slots.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { silentLog } from '../../../support/log.ts';
import type { Random } from '../../../support/random.ts';
import { SimulatedProcess } from '../../../support/simulated-process.ts';

const SECRET = Buffer.alloc(32, 9);
const KEY = Buffer.alloc(32, 7);
export const OURS = 'apns';
export const ORIGINALS = 'firebase';
/** How long (ms) pushes may wait. */
export const MAX_AGE = 60_000;

/** A few promises that hang on each other settle. */
export async function microtasks(): Promise<void> {
  for (let settling = 0; settling < 3; settling++) await undefined;
}

/** A push as a provider got it. */
export interface Sent {
  readonly notifier: string;
  readonly doubt: number;
  readonly at: number;
}

/** One run of a member. */
export class Member extends SimulatedProcess {
  readonly name: string;
  readonly run: bigint;
  readonly outbox: Outbox;
  /** Whom it takes to live, and in which run; whom of them to be leaving. */
  readonly living: Map<string, bigint>;
  readonly leaving = new Set<string>();
  /** What it was told of by storage servers. */
  readonly received = new Set<string>();
  isLeaving = false;
  readonly #listeners: (() => void)[] = [];

  constructor(world: PushWorld, name: string, run: bigint, living: ReadonlyMap<string, bigint>) {
    super(world.clock);
    this.name = name;
    this.run = run;
    this.living = new Map([...living, [name, run]]);
    const duty: Duty = {
      own: name,
      firstOf: (slot) =>
        holdersOf(
          slot,
          [...this.living.keys()].filter((other) => !this.leaving.has(other)),
          1,
        )[0],
      othersOf: () => [...this.living.keys()].filter((other) => other !== name),
      isLiving: (other, its) =>
        this.living.has(other) && (its === undefined || other === name || this.living.get(other) === its),
      onChange: (listener) => this.#listeners.push(listener),
    };
    this.outbox = new Outbox({
      clock: this.clock,
      limits: { maxBytes: 1e9, maxAge: MAX_AGE },
      breaker: { share: 1, minimum: 1e9 },
      random: (size) => world.random.bytes(size),
      log: silentLog,
      defer: (callback) => void this.clock.setTimeout(callback, 0),
      cluster: { duty, secret: SECRET, tell: (member, news) => world.tell(this, member, news) },
    });
  }

  /** Learns of the others, some time after it has become so. */
  learn(how: (member: this) => void): void {
    this.does(() => {
      how(this);
      for (const listener of this.#listeners) listener();
    });
  }

  /** A storage server tells it of a message to one device. */
  receive(device: string, service: string, doubt: Doubt): void {
    this.does(() => {
      if (this.isLeaving) return;
      this.received.add(device);
      const account = Buffer.alloc(33);
      account.write(device, 1);
      const times = { timestamp: this.clock.now(), expiry: this.clock.now() + 1e9 };
      this.outbox.add(
        { account, hash: Buffer.from(`hash of ${device}`), namespace: 0, ...times, data: null },
        [{ service, serviceId: device, serviceData: null, encKey: KEY, wantData: false }],
        doubt,
      );
    });
  }
}

/** A notifier of ours: it sends the first copy of a push, and answers others with what became of that. */
export class Notifier extends SimulatedProcess {
  readonly name: string;
  readonly #world: PushWorld;
  readonly #pushes = new Map<string, { doubt: number; outcome?: 'accepted' | 'refused'; waiting: (() => void)[] }>();

  constructor(world: PushWorld, name: string) {
    super(world.clock);
    this.#world = world;
    this.name = name;
  }

  /** As that member sees it. */
  remote(member: Member): Remote {
    return {
      id: this.name,
      send: (_command, ...parts: Part[]) => {
        if (this.isDead) return false;
        for (const { id, serviceId, fingerprint, doubt, proven } of decodeSealedPushes(parts[0] as Buffer)) {
          const keys = [fingerprint, proven].map((one) => one?.toString('latin1') ?? '');
          this.#world.later(1, 20, () => this.does(() => this.#take(member, id, serviceId, keys, doubt)));
        }
        return true;
      },
      request: () => Promise.reject(new Error('not asked for here')),
    };
  }

  #take(member: Member, id: number, serviceId: string, [key = '', proven = '']: string[], doubt: number): void {
    const known = [this.#pushes.get(key), proven ? this.#pushes.get(proven) : undefined].find(
      (one) => one !== undefined && one.doubt <= doubt,
    );
    const answer = (push: { outcome?: 'accepted' | 'refused' }) =>
      this.#world.later(1, 50, () => {
        if (this.isDead || this.#world.cut.has(member.name)) return;
        const report = { service: OURS, accepted: [], refused: [], handedBack: [], answers: [] };
        member.does(() => member.outbox.report(this.remote(member), { ...report, [push.outcome ?? '']: [id] }));
      });
    if (known) {
      if (known.outcome) answer(known);
      else known.waiting.push(() => answer(known));
      return;
    }
    const push: { doubt: number; outcome?: 'accepted' | 'refused'; waiting: (() => void)[] } = { doubt, waiting: [] };
    push.waiting.push(() => answer(push));
    this.#pushes.set(key, push);
    const silence = Math.max(0, this.#world.silentUntil - this.clock.monotonic());
    this.#world.later(silence + 5, silence + 300, () =>
      this.does(() => {
        this.#world.sent(serviceId, { notifier: this.name, doubt, at: this.clock.monotonic() });
        push.outcome = this.#world.random.int(10) === 0 ? 'refused' : 'accepted';
        for (const one of push.waiting) one();
      }),
    );
  }
}

/** Hiveminds, their notifiers and the ways between them. */
export class PushWorld {
  readonly clock = new FakeClock();
  readonly random: Random;
  readonly names: readonly string[];
  /** By name, the run that is there. */
  readonly members = new Map<string, Member>();
  notifiers: Notifier[] = [];
  /** By device. */
  readonly provider = new Map<string, Sent[]>();
  /** Members that cannot reach each other, as `a>b`: what they say is turned away, or lost on the way. */
  readonly broken = new Map<string, 'turned away' | 'lost'>();
  /** Members that notifiers of ours do not reach. */
  readonly cut = new Set<string>();
  /** When the provider answers again; monotonic ms. */
  silentUntil = 0;
  /** The longest that news are on their way, in ms. */
  slowest = 50;
  readonly window: number;
  #run = 0n;
  #notifier = 0;

  constructor(random: Random, options: { names: readonly string[]; window: number }) {
    this.random = random;
    this.names = options.names;
    this.window = options.window;
    for (let n = 0; n < 2; n++) this.notifiers.push(new Notifier(this, `notifier ${++this.#notifier}`));
    for (const name of options.names) this.start(name);
  }

  /** Does something in `from` to `to` ms. */
  later(from: number, to: number, what: () => void): void {
    this.clock.setTimeout(what, from + this.random.int(to - from + 1));
  }

  sent(device: string, sent: Sent): void {
    const those = this.provider.get(device);
    if (those) those.push(sent);
    else this.provider.set(device, [sent]);
  }

  /** Resolves when the other one has answered, or has not for two seconds. */
  tell(from: Member, to: string, news: News): Promise<boolean> {
    const broken = this.broken.get(`${from.name}>${to}`);
    if (broken === 'turned away') return Promise.resolve(false);
    const answer = Promise.withResolvers<boolean>();
    from.clock.setTimeout(() => answer.resolve(false), 2_000);
    if (broken === 'lost') return answer.promise;
    const part = encodeProgress({ name: from.name, run: from.run, ...news });
    const receiver = this.members.get(to);
    this.later(1, this.slowest, () =>
      receiver?.does(() => {
        receiver.outbox.standby?.onProgress(decodeProgress(part));
        this.later(1, this.slowest, () => from.does(() => answer.resolve(true)));
      }),
    );
    return answer.promise;
  }

  /** Starts a member; the others hear of it in a second, and the notifiers are there. */
  start(name: string): Member {
    const run = ++this.#run;
    const living = new Map([...this.members].map(([other, { run: its }]) => [other, its]));
    const member = new Member(this, name, run, living);
    this.members.set(name, member);
    for (const notifier of this.notifiers) this.#register(notifier, member);
    this.#passesAlong(member);
    this.#tellAll(name, (other) => {
      other.living.set(name, run);
      other.leaving.delete(name);
    });
    return member;
  }

  /** It is gone from one moment to the next; the others find out after some seconds, unless it is back by then. */
  kill(name: string): void {
    const member = this.members.get(name);
    if (!member) return;
    member.die();
    this.members.delete(name);
    this.later(3_000, 4_000, () => {
      if (!this.members.has(name)) this.#tellAll(name, (other) => other.living.delete(name));
    });
  }

  /** It stops as it should. */
  async leave(name: string): Promise<void> {
    const member = this.members.get(name);
    if (!member) return;
    // It says so itself, beside the database.
    member.learn(({ leaving }) => leaving.add(name));
    for (const other of this.members.values()) {
      if (other !== member) this.later(1, this.slowest, () => other.learn(({ leaving }) => leaving.add(name)));
    }
    await new Promise<void>((resolve) => void this.clock.setTimeout(resolve, 1_500));
    if (member.isDead) return;
    member.isLeaving = true;
    await member.outbox.stop(5_000, 7_000);
    if (member.isDead) return;
    member.outbox.close();
    member.die();
    this.members.delete(name);
    this.#tellAll(name, (other) => other.living.delete(name));
  }

  /** A notifier of ours dies, and another one comes. */
  replaceNotifier(): void {
    const [gone, ...rest] = this.notifiers;
    if (!gone) return;
    gone.die();
    this.notifiers = rest;
    for (const member of this.members.values()) {
      this.later(0, 50, () => member.does(() => member.outbox.gone(gone.remote(member))));
    }
    this.later(500, 3_000, () => {
      const next = new Notifier(this, `notifier ${++this.#notifier}`);
      this.notifiers.push(next);
      for (const member of this.members.values()) this.later(0, 50, () => this.#register(next, member));
    });
  }

  /** Notifiers of ours lose a member, for so many ms. */
  cutOff(name: string, ms: number): void {
    const member = this.members.get(name);
    if (!member || this.cut.has(name)) return;
    this.cut.add(name);
    for (const notifier of this.notifiers) member.does(() => member.outbox.gone(notifier.remote(member)));
    this.clock.setTimeout(() => this.cut.delete(name), ms);
  }

  #register(notifier: Notifier, member: Member): void {
    const register = () => {
      if (notifier.isDead || this.cut.has(member.name)) return;
      member.outbox.register(OURS, notifier.remote(member), this.window, Buffer.from(notifier.name));
    };
    member.does(register);
    // Signs of life, as a notifier gives them.
    member.clock.setInterval(register, 5_000);
  }

  /** A notifier of the original's kind, of that member alone. */
  #passesAlong(member: Member): void {
    const id = `of ${member.name}`;
    const remote: Remote = {
      id,
      send: (_command, ...parts) => {
        this.sent(decodePush(parts[0] as Buffer).serviceId, { notifier: id, doubt: 0, at: this.clock.monotonic() });
        return true;
      },
      request: () => Promise.reject(new Error('not asked for here')),
    };
    const register = () => member.outbox.register(ORIGINALS, remote, undefined);
    register();
    member.clock.setInterval(register, 5_000);
  }

  #tellAll(about: string, how: (member: Member) => void): void {
    for (const member of this.members.values()) {
      if (member.name === about) continue;
      this.later(0, 1_000, () => member.learn(how));
    }
  }
}
