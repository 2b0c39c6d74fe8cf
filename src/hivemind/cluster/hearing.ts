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
  /** The other members that cover this slot, or should. */
  readonly othersOf: (slot: number) => readonly string[];
  readonly serverOf: (key: string) => Server | undefined;
  /** Since when (monotonic ms) we have asked that server for all accounts of this slot; undefined if we do not. */
  readonly askedSince: (server: Server, slot: number) => number | undefined;
  /** Reconnects to a server under a new routing id. */
  readonly reconnect: (server: Server) => void;
  /** Tells a member which servers sent us something that they should have sent it too, if it asked them. */
  readonly tell: (member: string, servers: readonly HeardServer[]) => void;
  readonly log: Pick<Log, 'warn'>;
}

/** How often the members tell each other, in ms. */
const PERIOD = 10_000;
/** A server that we heard, connected to or first asked within this long (ms) is not suspected. */
const RECENT = 2 * PERIOD;
/** Reports in a row, with nothing heard here in between, before we believe them: that takes at least two messages. */
const STRIKES = 2;
/** The least time (ms) between two reconnections to one server: one that speaks to only some of us may mean to. */
const RECONNECT_EVERY = 5 * 60_000;

/** What we know of one server; times are monotonic, in ms. */
interface Record {
  /** When it last sent us a notification. */
  heardAt: number;
  /** Reports of others since then that count, and the last of them. */
  strikes: number;
  struckAt: number;
  /** When we last reconnected to it for this. */
  reconnectedAt: number;
}

/**
 * Notices a storage server that speaks to other members but no longer to us, although we are connected: it may be
 * writing to an old connection of ours, or have lost us. It goes on confirming our requests, so nothing else shows it.
 */
export class Hearing<Server extends Speaker> {
  readonly #options: HearingOptions<Server>;
  readonly #records = new WeakMap<Server, Record>();
  /** The servers heard since the last report, each with the slot of its first message. */
  #heard = new Map<Server, number>();
  readonly #timer: Timer;
  readonly counters = { reconnects: 0 };

  constructor(options: HearingOptions<Server>) {
    this.#options = options;
    this.#timer = options.clock.setInterval(() => this.#report(), PERIOD);
  }

  /**
   * Called for each notification that comes in.
   * @param frame the message part that holds it
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

  /** Called with another member's report of the servers that it heard and we should have heard too. */
  take({ name, servers }: Heard): void {
    const { clock, serverOf, askedSince, reconnect, log } = this.#options;
    const now = clock.monotonic();
    for (const { key, slot } of servers) {
      const server = serverOf(key.toString('hex'));
      if (server?.upSince === undefined || clock.now() - server.upSince < RECENT) continue;
      const asked = askedSince(server, slot);
      if (asked === undefined || now - asked < RECENT) continue;
      const record = this.#recordOf(server);
      if (now - record.heardAt < RECENT) continue;
      // Several members may report the same message: one of them counts.
      if (now - record.struckAt < PERIOD / 2) continue;
      record.struckAt = now;
      if (++record.strikes < STRIKES || now - record.reconnectedAt < RECONNECT_EVERY) continue;
      record.strikes = 0;
      record.reconnectedAt = now;
      this.counters.reconnects++;
      log.warn(
        `storage server ${server.key.slice(0, 12)} reports to the hivemind ${name} but not to us: reconnecting to it`,
      );
      reconnect(server);
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
      record = { heardAt: never, strikes: 0, struckAt: never, reconnectedAt: never };
      this.#records.set(server, record);
    }
    return record;
  }
}
