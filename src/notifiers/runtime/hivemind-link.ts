import type { Clock, Timer } from '../../clock.ts';
import type { Logger, Repeated } from '../../daemon/log.ts';
import type { Address } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import type { KeyPair } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import { type Commands, type Handler, OxenmqError } from '../../oxenmq/remote.ts';
import {
  type DeviceGone,
  encodeDeviceGone,
  encodeDropRegistrations,
  encodePushReport,
  encodeRegistration,
} from '../../session/notifier-protocol.ts';
import type { Report } from './acknowledgements.ts';
import { jitter } from './retry.ts';

/** What a {@link HivemindLink} is made with. */
export interface HivemindLinkOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly service: string;
  /** Where the hivemind listens. */
  readonly address: Address;
  /**
   * The notifier's own pair, derived from the hivemind's key: its public half is the routing id towards an original
   * hivemind.
   */
  readonly keys: KeyPair;
  /** How many unacknowledged pushes we take. */
  readonly window: () => number;
  /** `notifier.validate`, `notifier.sealed` and `notifier.push`. */
  readonly validate: Handler;
  readonly sealed: Handler;
  readonly push: Handler;
  /** The hivemind has our registration; called again after each time it was lost. */
  readonly registered?: () => void;
  readonly log: Logger;
  readonly say: Repeated;
}

const REQUEST_TIMEOUT = 10_000;
/** After a restart of the hivemind its notifiers come back within so many milliseconds, but not all in the same one. */
const COME_BACK = 200;
const RECONNECT = 1_000;

/**
 * The connection to the hivemind. It first asks to be registered as a notifier of ours, with a routing id of its own,
 * so that several instances of a service can run. An original hivemind does not know that command and says so at once;
 * then the link connects again as the original's notifiers do, with the routing id `L` and public key
 * (docs/spec/oxenmq.md, section 8). Every handshake starts anew with the question, so either side may be replaced at
 * any time.
 */
export class HivemindLink {
  readonly #options: HivemindLinkOptions;
  readonly #instance: Buffer;
  #dialect: 'ours' | 'original' = 'ours';
  readonly #peers: Peers;
  #connection: Connection | undefined;
  #handshakes = 0;
  #registered = false;
  #problem: string | undefined;
  #asking = false;
  #timer: Timer | undefined;
  #draining = false;
  #closed = false;

  constructor(options: HivemindLinkOptions) {
    this.#options = options;
    this.#instance = options.random(16);
    const { clock, keys, validate, sealed, push } = options;
    const commands: Commands = {
      notifier: {
        access: 'basic',
        commands: {
          validate: { kind: 'request', handler: validate },
          sealed: { kind: 'command', handler: sealed },
          push: { kind: 'command', handler: push },
        },
      },
    };
    this.#peers = new Peers({
      clock,
      keys,
      commands,
      on: {
        handshake: (connection) => {
          if (connection === this.#connection) this.#onHandshake();
        },
        disconnect: (connection) => {
          if (connection === this.#connection) this.#onLoss();
        },
        failure: (connection, reason) => {
          if (connection === this.#connection) this.#reconnect(reason);
        },
      },
    });
    this.#connect('ours');
  }

  /** Whether the hivemind is there and has our registration. */
  get registered(): boolean {
    return this.#registered;
  }

  /** Why there is no connection to it, as far as is known. */
  get problem(): string | undefined {
    return this.#problem;
  }

  get counters(): Counters {
    return this.#peers.counters;
  }

  /** How the hivemind is spoken to. */
  get dialect(): 'ours' | 'original' {
    return this.#dialect;
  }

  /** Registers again, as both dialects do every few seconds. */
  ping(): void {
    if (this.#draining || this.#connection?.state !== 'up') return;
    if (this.#dialect === 'ours') void this.#register();
    // After a break it is asked first which kind it is.
    else if (this.#registered) this.#connection.send('admin.register_service', this.#options.service);
  }

  /** @param dict bencoded (docs/spec/hivemind.md, section 1.4) */
  sendStatistics(dict: Uint8Array): boolean {
    return this.#connection?.send('admin.service_stats', this.#options.service, dict) ?? false;
  }

  /** False if it cannot go now. An original hivemind wants none, so there is nothing to keep. */
  report(report: Report): boolean {
    if (this.#dialect === 'original') return true;
    if (!this.#registered) return false;
    return (
      this.#connection?.send('admin.push_report', encodePushReport({ service: this.#options.service, ...report })) ??
      false
    );
  }

  /** False if it cannot go now. */
  deviceGone(gone: Omit<DeviceGone, 'service'>): boolean {
    if (!this.#registered) return false;
    const { service } = this.#options;
    // An original hivemind from before 2025 does not know the command, and says so to nobody's harm.
    const parts =
      this.#dialect === 'original'
        ? ['admin.drop_registrations', service, encodeDropRegistrations([gone.serviceId])]
        : ['admin.device_gone', encodeDeviceGone({ service, ...gone })];
    const [command, ...rest] = parts as [string, ...(string | Buffer)[]];
    return this.#connection?.send(command, ...rest) ?? false;
  }

  /** Asks for no more pushes. After `true` none will come. */
  async unregister(timeout: number): Promise<boolean> {
    this.#draining = true;
    if (this.#dialect === 'original' || !this.#registered || !this.#connection) return false;
    try {
      await this.#connection.request('admin.unregister_notifier', [this.#registration()], timeout);
      return true;
    } catch {
      return false;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#registered = false;
    this.#timer?.cancel();
    await this.#peers.close();
  }

  #connect(dialect: 'ours' | 'original'): void {
    this.#connection?.close();
    this.#timer?.cancel();
    this.#registered = false;
    this.#asking = false;
    this.#handshakes = 0;
    this.#dialect = dialect;
    this.#connection = this.#peers.connect(this.#options.address, {
      label: 'hivemind',
      ...(dialect === 'ours' ? { routingId: Buffer.concat([Buffer.from('N'), this.#instance]) } : {}),
    });
  }

  #onHandshake(): void {
    this.#problem = undefined;
    this.#handshakes++;
    const { clock, random } = this.#options;
    this.#timer?.cancel();
    const act = () => {
      if (this.#dialect === 'ours') void this.#register();
      // Another hivemind than before: it may be one of ours.
      else if (this.#handshakes > 1) this.#connect('ours');
      else this.#registerAsOriginal();
    };
    if (this.#handshakes === 1) act();
    else this.#timer = clock.setTimeout(act, jitter(COME_BACK, random));
  }

  #registerAsOriginal(): void {
    if (this.#draining) return;
    this.#connection?.send('admin.register_service', this.#options.service);
    this.#options.log.info('registered with a hivemind of the original kind: pushes are not acknowledged');
    this.#registered = true;
    this.#options.registered?.();
  }

  async #register(): Promise<void> {
    const connection = this.#connection;
    if (this.#asking || this.#draining || !connection) return;
    this.#asking = true;
    try {
      await connection.request('admin.register_notifier', [this.#registration()], REQUEST_TIMEOUT);
      if (connection !== this.#connection || this.#closed || this.#draining) return;
      this.#asking = false;
      if (this.#registered) return;
      this.#registered = true;
      this.#options.log.info('registered with the hivemind');
      this.#options.registered?.();
    } catch (error) {
      if (connection !== this.#connection || this.#closed) return;
      this.#asking = false;
      if (error instanceof OxenmqError && error.code === 'UNKNOWNCOMMAND') this.#connect('original');
      else {
        this.#registered = false;
        this.#options.say.warn('the hivemind did not take the registration; trying again', { err: error });
      }
    }
  }

  #onLoss(): void {
    if (this.#registered) this.#options.log.warn('lost the hivemind; waiting for it to come back');
    this.#registered = false;
    this.#asking = false;
    this.#timer?.cancel();
  }

  #reconnect(reason: string): void {
    if (this.#closed) return;
    const { clock, random, say } = this.#options;
    say.warn('no connection to the hivemind; trying again', { reason });
    this.#problem = reason;
    this.#registered = false;
    this.#timer?.cancel();
    this.#timer = clock.setTimeout(() => this.#connect('ours'), RECONNECT + jitter(RECONNECT, random));
  }

  #registration(): Buffer {
    const { service, window } = this.#options;
    return encodeRegistration({ service, instance: this.#instance, window: window() });
  }
}
