import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { decode } from '../../src/codec/bencode.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { Listener, type ListenerOptions } from '../../src/oxenmq/listener.ts';
import type { Commands, Incoming, Remote } from '../../src/oxenmq/remote.ts';
import { encodeMembers } from '../../src/session/members.ts';
import {
  type DeviceGone,
  decodeDeviceGone,
  decodeDropRegistrations,
  decodePushReport,
  decodeRegistration,
  decodeVerdicts,
  encodeSealedPushes,
  encodeServiceInfos,
  type SealedPush,
} from '../../src/session/notifier-protocol.ts';
import { encodePush, type Push } from '../../src/session/push.ts';
import { ownAddress } from '../support/loopback.ts';
import { inTime } from '../support/until.ts';

/** In ms; much longer than a notifier takes, also on a machine that stalls. */
const PATIENCE = 60_000;

interface Instance {
  readonly remote: Remote;
  /** By which the process is known to all hiveminds, in hex; empty for one of the original's kind. */
  readonly process: string;
  readonly window: number;
  readonly validatesMany: boolean;
  readonly inFlight: Set<number>;
}

/** The pair of a socket that admits certain keys alone. */
type Curve = Required<Pick<ListenerOptions, 'keys' | 'allow'>>;

/** The hivemind of 2024-10 knows no `admin.drop_registrations`. */
type Original = '2024-10' | 'newest';

/**
 * The side of the hivemind that notifiers see: it keeps each push until it is acknowledged, gives out no more than a
 * notifier's window, and gives what a notifier left to the next one. As an `original` it knows only what the original
 * knows.
 */
export class FakeHivemind {
  readonly service: string;
  /** Which of the original's it is like. */
  readonly original: Original | undefined;
  readonly instances = new Map<string, Instance>();
  readonly statistics: Map<string, unknown>[] = [];
  readonly gone: DeviceGone[] = [];
  /** Service ids of `admin.drop_registrations`, which the newest original knows. */
  readonly dropped: string[] = [];
  readonly answers: (readonly [number, string])[] = [];
  readonly accepted = new Set<number>();
  readonly refused = new Set<number>();
  readonly handedBack: number[] = [];
  /** Messages with which a notifier announced itself, of either kind. */
  registrations = 0;
  /** So many further registrations get no answer. */
  unanswered = 0;
  reports = 0;
  /** The second part of the answer to a registration: who else there is. */
  list: Buffer | undefined;
  /** Called at the end of the test, before it closes. */
  readonly beforeEnd: (() => Promise<void>)[] = [];
  drained = 0;
  readonly #pushes = new Map<number, SealedPush>();
  #waiting: number[] = [];
  #nextId: number;
  #listener: Listener | undefined;
  #watchers: (() => void)[] = [];

  private constructor(service: string, original: Original | undefined, firstId: number) {
    this.service = service;
    this.original = original;
    this.#nextId = firstId;
  }

  static async start(
    t: TestContext | undefined,
    service: string,
    options: { original?: Original; address?: string; firstId?: number; curve?: Curve } = {},
  ): Promise<FakeHivemind> {
    const hivemind = new FakeHivemind(service, options.original, options.firstId ?? 1);
    hivemind.#listener = new Listener({
      clock: systemClock,
      address: options.address ?? 'tcp://127.0.0.1:*',
      access: 'admin',
      commands: hivemind.#commands(),
      ...options.curve,
      on: { disconnect: (remote) => hivemind.#lost(remote) },
    });
    await hivemind.#listener.bind();
    t?.after(async () => {
      await Promise.all(hivemind.beforeEnd.map((act) => act()));
      await hivemind.close();
    });
    return hivemind;
  }

  get endpoint(): string {
    return this.#listener!.endpoint;
  }

  get address() {
    return parseAddress(this.endpoint);
  }

  /** Pushes that are neither accepted nor refused. */
  get outstanding(): number {
    return this.#pushes.size;
  }

  /** How many accepted pushes the statistics tell of, all reports together. */
  get notifies(): number {
    return this.statistics.reduce((total, dict) => total + Number(dict.get('+notifies')), 0);
  }

  get remote(): Remote | undefined {
    return [...this.instances.values()].at(-1)?.remote;
  }

  async close(): Promise<void> {
    await this.#listener?.close();
  }

  /** @returns the ids */
  push(pushes: readonly Partial<SealedPush>[]): number[] {
    const ids = pushes.map((push) => {
      const id = this.#nextId++;
      this.#pushes.set(id, {
        id,
        serviceId: `device-${id}`,
        serviceData: null,
        expiry: Date.now() + 3_600_000,
        payload: Buffer.from(`payload ${id}`),
        wantsAnswer: false,
        urgent: true,
        fingerprint: null,
        proven: null,
        doubt: 0,
        ...push,
      });
      this.#waiting.push(id);
      return id;
    });
    this.#deliver();
    return ids;
  }

  pushPlain(push: Push): boolean {
    return this.remote!.send('notifier.push', encodePush(push));
  }

  /** Gives a push out once more, as after a lost report. */
  repeat(id: number, push: Partial<SealedPush> = {}): void {
    const given = {
      id,
      serviceId: `device-${id}`,
      serviceData: null,
      expiry: 0,
      payload: Buffer.alloc(9),
      wantsAnswer: false,
      urgent: true,
      fingerprint: null,
      proven: null,
      doubt: 0,
    };
    this.remote!.send('notifier.sealed', encodeSealedPushes([{ ...given, ...push }]));
  }

  async validate(...parts: (string | Buffer)[]): Promise<string[]> {
    const reply = await this.remote!.request('notifier.validate', parts, PATIENCE);
    return reply.map((part) => part.toString());
  }

  /** Has a client's `service_info` checked; the parts as they came, for data that is no text. */
  validateDevice(info: string): Promise<readonly Buffer[]> {
    return this.remote!.request('notifier.validate', [this.service, info], PATIENCE);
  }

  async validateMany(service: string, infos: readonly string[]): Promise<string[][]> {
    const parts = [service, encodeServiceInfos(infos)];
    const [verdicts] = await this.remote!.request('notifier.validate_many', parts, PATIENCE);
    return decodeVerdicts(verdicts!).map((verdict) => verdict.map((part) => part.toString()));
  }

  /** Resolves when `condition` holds; looked at after each message that comes in. */
  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return inTime(
      new Promise((resolve) => {
        const look = () => {
          if (!condition()) return;
          this.#watchers = this.#watchers.filter((other) => other !== look);
          resolve();
        };
        this.#watchers.push(look);
      }),
      () => `${condition}`,
    );
  }

  #deliver(): void {
    for (const instance of this.instances.values()) {
      const room = Math.min(instance.window - instance.inFlight.size, this.#waiting.length);
      if (room <= 0) continue;
      const ids = this.#waiting.splice(0, room);
      for (let start = 0; start < ids.length; start += 64) {
        const batch = ids.slice(start, start + 64);
        for (const id of batch) instance.inFlight.add(id);
        instance.remote.send('notifier.sealed', encodeSealedPushes(batch.map((id) => this.#pushes.get(id)!)));
      }
    }
  }

  #lost(remote: Remote): void {
    const instance = this.instances.get(remote.id);
    this.instances.delete(remote.id);
    if (instance) this.#waiting.unshift(...instance.inFlight);
    this.#deliver();
    this.#changed();
  }

  #changed(): void {
    for (const look of [...this.#watchers]) look();
  }

  #commands(): Commands {
    const then = (handler: (message: Incoming) => void) => (message: Incoming) => {
      handler(message);
      this.#deliver();
      this.#changed();
    };
    const enter = (remote: Remote, window: number, process = '', validatesMany = false) => {
      this.registrations++;
      const { inFlight = new Set<number>() } = this.instances.get(remote.id) ?? {};
      this.instances.set(remote.id, { remote, process, window, validatesMany, inFlight });
    };
    const old = {
      register_service: { kind: 'command' as const, handler: then(({ remote }) => enter(remote, 0)) },
      service_stats: {
        kind: 'command' as const,
        handler: then(({ parts }) => this.statistics.push(decode(parts[1]!) as Map<string, unknown>)),
      },
    };
    const newest = {
      drop_registrations: {
        kind: 'command' as const,
        handler: then(({ parts }) => this.dropped.push(...decodeDropRegistrations(parts[1]!))),
      },
    };
    const ours = {
      register_notifier: {
        kind: 'request' as const,
        handler: then((message) => {
          if (this.unanswered-- > 0) return;
          const { window, instance, validatesMany } = decodeRegistration(message.parts[0]!);
          enter(message.remote, window, instance.toString('hex'), validatesMany);
          message.reply('OK', ...(this.list ? [this.list] : []));
        }),
      },
      unregister_notifier: {
        kind: 'request' as const,
        handler: then((message) => {
          const { remote } = message;
          const instance = this.instances.get(remote.id);
          if (instance) this.instances.set(remote.id, { ...instance, window: 0 });
          this.drained++;
          message.reply('OK');
        }),
      },
      push_report: {
        kind: 'command' as const,
        handler: then(({ remote, parts }) => {
          const report = decodePushReport(parts[0]!);
          this.reports++;
          const inFlight = this.instances.get(remote.id)?.inFlight;
          for (const id of report.accepted) {
            this.accepted.add(id);
            this.#pushes.delete(id);
            inFlight?.delete(id);
          }
          for (const id of report.refused) {
            this.refused.add(id);
            this.#pushes.delete(id);
            inFlight?.delete(id);
          }
          for (const id of report.handedBack) {
            this.handedBack.push(id);
            inFlight?.delete(id);
            this.#waiting.push(id);
          }
          this.answers.push(...report.answers);
        }),
      },
      device_gone: {
        kind: 'command' as const,
        handler: then(({ parts }) => this.gone.push(decodeDeviceGone(parts[0]!))),
      },
    };
    return {
      admin: {
        access: 'admin',
        commands:
          this.original === undefined ? { ...old, ...ours } : this.original === 'newest' ? { ...old, ...newest } : old,
      },
    };
  }
}

/** Hiveminds of one cluster, by name, each of which tells of all. Each has an address of its own for good. */
export async function startCluster<Name extends string>(
  t: TestContext,
  service: string,
  names: readonly Name[],
): Promise<Record<Name, FakeHivemind>> {
  const started = await Promise.all(
    names.map(async (name, n) => {
      const options = { address: ownAddress(), firstId: 1 + n * 1_000_000 };
      return [name, await FakeHivemind.start(t, service, options)] as const;
    }),
  );
  const cluster = Object.fromEntries(started) as Record<Name, FakeHivemind>;
  tellOfEachOther(cluster);
  return cluster;
}

/**
 * Has each tell of all of them from now on.
 *
 * @param others further members, with their addresses
 */
export function tellOfEachOther(cluster: Record<string, FakeHivemind>, others: Record<string, string> = {}): void {
  const members = Object.entries(cluster).map(([name, { endpoint }]) => ({ name, address: endpoint }));
  for (const [name, address] of Object.entries(others)) members.push({ name, address });
  for (const [own, hivemind] of Object.entries(cluster)) hivemind.list = encodeMembers({ own, members });
}
