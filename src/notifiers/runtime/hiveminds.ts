import type { Clock } from '../../clock.ts';
import type { Logger, Repeated } from '../../daemon/log.ts';
import { type Address, formatAddress, parseAddress } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import type { KeyPair } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import type { Handler, Incoming, Remote } from '../../oxenmq/remote.ts';
import { planLinks } from '../../session/members.ts';
import type { DeviceGone } from '../../session/notifier-protocol.ts';
import { HivemindLink } from './hivemind-link.ts';

/** What {@link Hiveminds} are made with. */
export interface HivemindsOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly service: string;
  /** Where hiveminds listen: one, or some members of a cluster. The others are learned from whoever answers. */
  readonly addresses: readonly Address[];
  /** The notifier's own pair: its public half is part of the routing id that an original hivemind expects. */
  readonly keys: KeyPair;
  /** The pair by which the CURVE sockets of a cluster admit its processes, see deriveClusterKey. */
  readonly clusterKeys: KeyPair;
  /** How many unacknowledged pushes we take from each. */
  readonly window: () => number;
  /** `notifier.validate` and `notifier.validate_many`. */
  readonly validate: Handler;
  readonly validateMany: Handler;
  /** `notifier.sealed` and `notifier.push`. */
  readonly sealed: (link: HivemindLink, message: Incoming) => void;
  readonly push: (link: HivemindLink, message: Incoming) => void;
  /** Called when one of them has taken our registration, for the first time or again. */
  readonly registered: () => void;
  /** Called when the number of hiveminds to register with changes. */
  readonly counted: (count: number) => void;
  readonly log: Logger;
  readonly say: Repeated;
}

const INSTANCE_BYTES = 16;

/**
 * All hiveminds with which this notifier is registered: the one in the settings, or every member of its cluster. Every
 * reply to a registration says which these are (session/members.ts).
 */
export class Hiveminds {
  readonly #options: HivemindsOptions;
  readonly #given: readonly string[];
  readonly #instance: Buffer;
  readonly #peers: Peers;
  /** By address. */
  readonly #links = new Map<string, HivemindLink>();
  readonly #ofRemote = new WeakMap<Remote, HivemindLink>();
  /** The one that gets our statistics. */
  #counting: HivemindLink | undefined;
  #stopping = false;

  constructor(options: HivemindsOptions) {
    this.#options = options;
    this.#given = [...new Set(options.addresses.map((address) => formatAddress(address)))];
    this.#instance = options.random(INSTANCE_BYTES);
    const { clock, clusterKeys, validate, validateMany, sealed, push } = options;
    const ofLink = (handler: (link: HivemindLink, message: Incoming) => void) => (message: Incoming) => {
      const link = this.#ofRemote.get(message.remote);
      if (link) handler(link, message);
    };
    this.#peers = new Peers({
      clock,
      keys: clusterKeys,
      commands: {
        notifier: {
          access: 'basic',
          commands: {
            validate: { kind: 'request', handler: validate },
            validate_many: { kind: 'request', handler: validateMany },
            sealed: { kind: 'command', handler: ofLink(sealed) },
            push: { kind: 'command', handler: ofLink(push) },
          },
        },
      },
      on: {
        handshake: (connection) => this.#ofRemote.get(connection)?.onHandshake(connection),
        disconnect: (connection) => this.#ofRemote.get(connection)?.onDisconnect(connection),
        failure: (connection, reason) => this.#ofRemote.get(connection)?.onFailure(connection, reason),
      },
    });
    for (const address of this.#given) this.#add(address, true);
  }

  /** The hiveminds with which we are, or try to be, registered. */
  get links(): readonly HivemindLink[] {
    return [...this.#links.values()];
  }

  /** Whether one of them has our registration. */
  get registered(): boolean {
    return this.links.some(({ registered }) => registered);
  }

  /** Members that others report alive but that do not have our registration. */
  get missing(): readonly { readonly name: string; readonly problem: string | undefined }[] {
    return planLinks(this.links, this.#given).missing.map(({ name, address }) => {
      const link = this.links.find((one) => one.name === name) ?? this.#links.get(address);
      if (address === '' && !link) return { name, problem: 'the address that it announces is invalid' };
      if (link?.registered) return { name, problem: `the hivemind ${link.name} answers at its address` };
      return { name, problem: link?.problem };
    });
  }

  /** What is wrong with the registrations, in words. */
  get troubles(): string[] {
    const troubles = this.registered
      ? this.missing.map(({ name, problem }) => ({ who: `the hivemind ${name}`, problem }))
      : this.links.filter(({ isGiven }) => isGiven);
    return troubles.map(({ who, problem }) => [`not registered with ${who}`, problem].filter(Boolean).join(': '));
  }

  get counters(): Counters {
    return this.#peers.counters;
  }

  /** Registers again with all of them. */
  ping(): void {
    for (const link of this.links) link.ping();
  }

  /**
   * Sends statistics to one of them, the same for as long as it is there, since the cluster adds up what its members
   * get.
   *
   * @param dict bencoded (docs/spec/hivemind.md, section 1.4)
   */
  sendStatistics(dict: Uint8Array): void {
    if (!this.#counting?.registered) this.#counting = this.links.find(({ registered }) => registered);
    this.#counting?.sendStatistics(dict);
  }

  /**
   * Reports a dead device to the hivemind that gave its push or, if that cannot be reached now, to another member. Not
   * to all: they learn of the removal by the database, and one that does not hear of accepted pushes would find the
   * share of dead devices unlikely.
   *
   * @returns whether it could be reported
   */
  deviceGone(gone: Omit<DeviceGone, 'service'>, giver: HivemindLink): boolean {
    return giver.deviceGone(gone) || this.links.some((link) => link.name !== undefined && link.deviceGone(gone));
  }

  /** Asks all of them for no more pushes. */
  async unregister(timeout: number): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.links.map((link) => link.unregister(timeout)));
  }

  /** Sends all reports on pushes that can be sent now. */
  flush(): void {
    for (const { acknowledgements } of this.links) acknowledgements.flush();
  }

  /** How many ends of pushes have not been reported yet. */
  get unreported(): number {
    return this.links.reduce((sum, { acknowledgements }) => sum + acknowledgements.unreported, 0);
  }

  async close(): Promise<void> {
    this.#stopping = true;
    for (const link of this.links) link.close();
    await this.#peers.close();
  }

  #add(address: string, isGiven: boolean): void {
    const { clock, random, service, keys, window, log, say, registered } = this.#options;
    const link = new HivemindLink({
      clock,
      random,
      service,
      instance: this.#instance,
      window,
      log,
      say,
      address,
      isGiven,
      label: isGiven && this.#given.length === 1 ? '' : `at ${address}`,
      originalId: Buffer.concat([Buffer.from('L'), keys.publicKey]),
      connect: (owner, routingId) => this.#connect(owner, parseAddress(address), routingId),
      changed: () => this.#review(),
      registered,
    });
    this.#links.set(address, link);
    this.#options.counted(this.#links.size);
  }

  #connect(link: HivemindLink, address: Address, routingId: Buffer): Connection {
    const connection = this.#peers.connect(address, { label: 'hivemind', routingId });
    this.#ofRemote.set(connection, link);
    return connection;
  }

  /** Opens and closes links by what was learned. */
  #review(): void {
    if (this.#stopping) return;
    const { open, close } = planLinks(this.links, this.#given);
    for (const link of close) {
      this.#options.log.info(`${link.who} is no longer connected at ${link.address}`);
      this.#links.delete(link.address);
      link.close();
    }
    for (const address of open) {
      this.#options.log.info(`found another hivemind at ${address}`);
      this.#add(address, this.#given.includes(address));
    }
    if (close.length > 0) this.#options.counted(this.#links.size);
  }
}
