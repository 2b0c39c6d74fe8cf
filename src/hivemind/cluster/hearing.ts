import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { type Heard, type HeardServer, MAX_SERVERS } from '../../session/cluster-protocol.ts';
import { parseNotification } from '../../session/notification.ts';
import { slotOf } from '../../session/slots.ts';

/** A storage server. */
export interface Speaker {
  /** Its X25519 public key in hex. */
  readonly key: string;
  /** Since when (unix ms) it is connected; undefined if it is not. */
  readonly upSince: number | undefined;
}

export interface HearingOptions<Server extends Speaker> {
  readonly clock: Clock;
  /** The other members that cover a slot. */
  readonly othersOf: (slot: number) => readonly string[];
  readonly serverOf: (key: string) => Server | undefined;
  /** Since when (monotonic ms) that server is asked for the accounts of that slot; undefined if it is not. */
  readonly askedSince: (server: Server, slot: number) => number | undefined;
  /** Has a server connected anew, under another name of ours. */
  readonly listenAnew: (server: Server) => void;
  /** Tells a member from which servers we had what it should have had as well, if it asked them. */
  readonly tell: (member: string, servers: readonly HeardServer[]) => void;
  readonly log: Pick<Log, 'warn'>;
}

/** So often the members tell each other, in ms. */
const PERIOD = 10_000;
/** A server that was heard within so long, or is connected or asked no longer than that, is not deaf to us; ms. */
const RECENT = 2 * PERIOD;
/** So many reports in a row that we heard nothing of are believed; so many would come of two messages at least. */
const STRIKES = 2;
/** A server is connected anew at most once in so long, ms: one that speaks to some of us alone may mean to. */
const AT_MOST_EVERY = 5 * 60_000;

interface Record {
  /** Monotonic ms. */
  heardAt: number;
  strikes: number;
  struckAt: number;
  renewedAt: number;
}

/**
 * Notices a storage server that speaks to other members and no longer to us, although we are connected: it may keep an
 * old connection of ours, or have lost us. What we asked it for is confirmed all the same, so nothing else shows it.
 */
export class Hearing<Server extends Speaker> {
  readonly #options: HearingOptions<Server>;
  readonly #records = new WeakMap<Server, Record>();
  /** What was heard since the last report: servers by the slot that the first message from each was about. */
  #heard = new Map<Server, number>();
  readonly #timer: Timer;
  readonly counters = { renewed: 0 };

  constructor(options: HearingOptions<Server>) {
    this.#options = options;
    this.#timer = options.clock.setInterval(() => this.#report(), PERIOD);
  }

  /**
   * A notification came in; called for each copy.
   * @param frame its part
   */
  heard(server: Server, frame: Buffer): void {
    if (this.#heard.has(server)) return;
    const message = parseNotification(frame);
    if (typeof message === 'string') return;
    this.#heard.set(server, slotOf(message.account));
    const record = this.#recordOf(server);
    record.heardAt = this.#options.clock.monotonic();
    record.strikes = 0;
  }

  /** Another member tells which servers it heard, that we should have heard as well. */
  take({ name, servers }: Heard): void {
    const { clock, serverOf, askedSince, listenAnew, log } = this.#options;
    const now = clock.monotonic();
    for (const { key, slot } of servers) {
      const server = serverOf(key.toString('hex'));
      if (server?.upSince === undefined || clock.now() - server.upSince < RECENT) continue;
      const asked = askedSince(server, slot);
      if (asked === undefined || now - asked < RECENT) continue;
      const record = this.#recordOf(server);
      if (now - record.heardAt < RECENT) continue;
      // Of several members that report the same message one counts.
      if (now - record.struckAt < PERIOD / 2) continue;
      record.struckAt = now;
      if (++record.strikes < STRIKES || now - record.renewedAt < AT_MOST_EVERY) continue;
      record.strikes = 0;
      record.renewedAt = now;
      this.counters.renewed++;
      log.warn(
        `storage server ${server.key.slice(0, 12)} speaks to the hivemind ${name} and not to us: reconnecting to it`,
      );
      listenAnew(server);
    }
  }

  stop(): void {
    this.#timer.cancel();
  }

  #report(): void {
    const { othersOf, tell } = this.#options;
    const heard = this.#heard;
    this.#heard = new Map();
    const reports = new Map<string, HeardServer[]>();
    for (const [{ key }, slot] of heard) {
      for (const member of othersOf(slot)) {
        const servers = reports.get(member) ?? [];
        if (servers.length < MAX_SERVERS) servers.push({ key: Buffer.from(key, 'hex'), slot });
        reports.set(member, servers);
      }
    }
    for (const [member, servers] of reports) tell(member, servers);
  }

  #recordOf(server: Server): Record {
    let record = this.#records.get(server);
    if (!record) {
      const never = Number.NEGATIVE_INFINITY;
      record = { heardAt: never, strikes: 0, struckAt: never, renewedAt: never };
      this.#records.set(server, record);
    }
    return record;
  }
}
