import type { Clock, Timer } from '../../clock.ts';
import type { Logger, Repeated } from '../../daemon/log.ts';
import { formatAddress, parseAddress } from '../../oxenmq/address.ts';
import type { Connection } from '../../oxenmq/peers.ts';
import { OxenmqError } from '../../oxenmq/remote.ts';
import { decodeMembers, inOneSpelling, type Member, type MemberLink } from '../../session/members.ts';
import {
  type DeviceGone,
  encodeDeviceGone,
  encodeDropRegistrations,
  encodePushReport,
  encodeRegistration,
} from '../../session/notifier-protocol.ts';
import { Acknowledgements, type Report } from './acknowledgements.ts';
import { jitter } from './retry.ts';

/** What a {@link HivemindLink} is made with. */
export interface HivemindLinkOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly service: string;
  /** Tells this process from other notifiers of the service, 16 bytes: the same for every hivemind. */
  readonly instance: Buffer;
  /** How many unacknowledged pushes we take. */
  readonly window: () => number;
  readonly log: Logger;
  readonly say: Repeated;
  /** In the spelling of formatAddress. */
  readonly address: string;
  /** Whether it is in the settings. */
  readonly isGiven: boolean;
  /** Tells it from others in the log while it has not told its name: "at" and its address; empty for a single one. */
  readonly label: string;
  /** The routing id that an original hivemind expects of the notifier. */
  readonly originalId: Buffer;
  /** Connects to it, and from then on tells the link of that connection's events. */
  readonly connect: (link: HivemindLink, routingId: Buffer) => Connection;
  /** Called when a property of {@link MemberLink} may have changed. May close the link. */
  readonly changed: () => void;
  /** Called whenever the hivemind has taken our registration. */
  readonly registered: () => void;
}

const ROUTING_BYTES = 16;
const REQUEST_TIMEOUT = 10_000;
/** Notifiers register again within this many milliseconds after a restart of the hivemind, at random times. */
const COME_BACK = 200;
/** How long to wait before replacing a connection that was given up, ms, and as much again at random. */
const RECONNECT = 1_000;

/**
 * The link to one hivemind. It first registers as a notifier of ours, with its own routing id, so that several
 * instances of a service can run. An original hivemind does not know that command and says so at once; then the link
 * connects again as the original's notifiers do, with `L` and the public key as routing id (docs/spec/oxenmq.md,
 * section 8). After every handshake it starts from the beginning, so either side may be replaced at any time.
 */
export class HivemindLink implements MemberLink {
  /** The pushes of this hivemind alone: their numbers mean nothing to another one. */
  readonly acknowledgements: Acknowledgements;
  readonly #options: HivemindLinkOptions;
  /** Different for each link: two may lead to the same socket, which could not tell them apart by one id. */
  readonly #routingId: Buffer;
  #dialect: 'ours' | 'original' = 'ours';
  #connection: Connection;
  #handshakes = 0;
  #state: MemberLink['state'] = 'new';
  #name: string | undefined;
  #members: readonly Member[] = [];
  #problem: string | undefined;
  /** The registration that waits for its answer; not one whose connection has ended, which has been told by then. */
  #asking: object | undefined;
  #timer: Timer | undefined;
  #draining = false;
  #closed = false;

  constructor(options: HivemindLinkOptions) {
    this.#options = options;
    this.acknowledgements = new Acknowledgements(options.clock, (report) => this.#report(report));
    this.#routingId = Buffer.concat([Buffer.from('N'), options.random(ROUTING_BYTES)]);
    this.#connection = this.#open();
  }

  get address(): string {
    return this.#options.address;
  }

  get isGiven(): boolean {
    return this.#options.isGiven;
  }

  get state(): MemberLink['state'] {
    return this.#state;
  }

  get name(): string | undefined {
    return this.#name;
  }

  get members(): readonly Member[] {
    return this.#members;
  }

  /** Whether the hivemind is connected and has our registration. */
  get registered(): boolean {
    return this.#state === 'up';
  }

  /** Why there is no connection to it, as far as is known. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Whether the hivemind is one of ours or an original one. */
  get dialect(): 'ours' | 'original' {
    return this.#dialect;
  }

  /** What it is called in the log. */
  get who(): string {
    return ['the hivemind', this.#name ?? this.#options.label].filter(Boolean).join(' ');
  }

  /** Registers again, as both dialects do every few seconds. */
  ping(): void {
    if (this.#draining || this.#connection.state !== 'up') return;
    if (this.#dialect === 'ours') void this.#register();
    // After a break the link first finds out which kind it is.
    else if (this.registered) this.#connection.send('admin.register_service', this.#options.service);
  }

  /** Returns false if it cannot be sent now. @param dict bencoded (docs/spec/hivemind.md, section 1.4) */
  sendStatistics(dict: Uint8Array): boolean {
    return this.#connection.send('admin.service_stats', this.#options.service, dict);
  }

  /** Reports a dead device; returns false if that cannot be sent now. */
  deviceGone(gone: Omit<DeviceGone, 'service'>): boolean {
    if (!this.registered) return false;
    const { service } = this.#options;
    // An original hivemind from before 2025 does not know this command; its refusal does no harm.
    if (this.#dialect === 'original') {
      return this.#connection.send('admin.drop_registrations', service, encodeDropRegistrations([gone.serviceId]));
    }
    return this.#connection.send('admin.device_gone', encodeDeviceGone({ service, ...gone }));
  }

  /** Asks for no more pushes; returns whether none will come any more. @param timeout milliseconds */
  async unregister(timeout: number): Promise<boolean> {
    this.#draining = true;
    if (this.#dialect === 'original' || !this.registered) return false;
    try {
      await this.#connection.request('admin.unregister_notifier', [this.#registration()], timeout);
      return true;
    } catch {
      return false;
    }
  }

  /** Closes the link at once: the hivemind gives pushes without a report to another notifier. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.acknowledgements.close();
    this.#connection.close();
  }

  /** The hivemind was heard over a fresh connection. */
  onHandshake(connection: Connection): void {
    if (connection !== this.#connection || this.#closed) return;
    this.#problem = undefined;
    this.#handshakes++;
    const { clock, random } = this.#options;
    this.#timer?.cancel();
    const act = () => {
      if (this.#dialect === 'ours') void this.#register();
      // It has restarted, and may be one of ours now.
      else if (this.#handshakes > 1) this.#connect('ours');
      else this.#registerAsOriginal();
    };
    if (this.#handshakes === 1) act();
    else this.#timer = clock.setTimeout(act, jitter(COME_BACK, random));
  }

  /** The connection broke; libzmq tries to restore it. */
  onDisconnect(connection: Connection): void {
    if (connection !== this.#connection || this.#closed) return;
    if (this.registered) this.#options.log.warn(`lost ${this.who}; waiting for it to come back`);
    this.#asking = undefined;
    this.#timer?.cancel();
    this.#lost('the connection broke');
  }

  /** The connection was given up. */
  onFailure(connection: Connection, reason: string): void {
    if (connection !== this.#connection || this.#closed) return;
    const { clock, random, say } = this.#options;
    say.warn(`no connection to ${this.who}; trying again`, { reason });
    this.#problem = reason;
    this.#asking = undefined;
    this.#timer?.cancel();
    this.#timer = clock.setTimeout(() => this.#connect('ours'), RECONNECT + jitter(RECONNECT, random));
    this.#become('failed');
  }

  /** False if it cannot be sent now. An original hivemind wants no reports, so they are dropped. */
  #report(report: Report): boolean {
    if (this.#dialect === 'original') return true;
    if (!this.registered) return false;
    return this.#connection.send('admin.push_report', encodePushReport({ service: this.#options.service, ...report }));
  }

  #connect(dialect: 'ours' | 'original'): void {
    this.#connection.close();
    this.#timer?.cancel();
    this.#asking = undefined;
    this.#handshakes = 0;
    this.#dialect = dialect;
    this.#connection = this.#open();
    this.#lost();
  }

  #open(): Connection {
    const { connect, originalId } = this.#options;
    return connect(this, this.#dialect === 'ours' ? this.#routingId : originalId);
  }

  #registerAsOriginal(): void {
    if (this.#draining) return;
    this.#connection.send('admin.register_service', this.#options.service);
    this.#options.log.info('registered with a hivemind of the original kind: pushes are not acknowledged');
    this.#name = undefined;
    this.#members = [];
    this.#become('up');
  }

  async #register(): Promise<void> {
    if (this.#asking || this.#draining) return;
    const asking = {};
    this.#asking = asking;
    try {
      const reply = await this.#connection.request('admin.register_notifier', [this.#registration()], REQUEST_TIMEOUT);
      if (asking !== this.#asking || this.#closed || this.#draining) return;
      this.#asking = undefined;
      this.#learn(reply[1]);
      if (!this.registered) this.#options.log.info(`registered with ${this.who}`);
      this.#become('up');
    } catch (error) {
      if (asking !== this.#asking || this.#closed) return;
      this.#asking = undefined;
      if (error instanceof OxenmqError && error.code === 'UNKNOWNCOMMAND') this.#connect('original');
      else {
        this.#options.say.warn(`${this.who} did not accept the registration; trying again`, { err: error });
        this.#problem = 'it does not accept the registration';
        this.#become('failed');
      }
    }
  }

  /** Takes in what it reports about itself and other members. A malformed report does not undo the registration. */
  #learn(part: Buffer | undefined): void {
    const { say } = this.#options;
    if (part === undefined) {
      this.#name = undefined;
      this.#members = [];
      return;
    }
    try {
      const { own, members } = decodeMembers(part);
      this.#name = own;
      this.#members = inOneSpelling(members, (address) => formatAddress(parseAddress(address)));
    } catch (error) {
      say.warn(`the list of other hiveminds from ${this.who} cannot be read`, { err: error });
    }
  }

  /** The registration, if there was one, is gone. */
  #lost(problem = this.#problem): void {
    this.#problem = problem;
    this.#become(this.registered ? 'down' : this.#state);
  }

  #become(state: MemberLink['state']): void {
    this.#state = state;
    if (state === 'up') this.#problem = undefined;
    this.#options.changed();
    if (state === 'up') this.#options.registered();
  }

  #registration(): Buffer {
    const { service, instance, window } = this.#options;
    return encodeRegistration({ service, instance, window: window(), validatesMany: true });
  }
}
