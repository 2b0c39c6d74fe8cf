import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { type Address, parseAddress } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import { keyPairFromSecret } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import { OxenmqError, type Part } from '../../oxenmq/remote.ts';
import { decodeHello, encodeHello, type Hello } from '../../session/cluster-protocol.ts';
import { deriveClusterKey } from '../../session/notifier-key.ts';

/** Another member, as a link needs it. */
export interface LinkedMember {
  readonly name: string;
  readonly run: bigint;
  /** OxenMQ address; empty if it has not told it yet. */
  readonly address: string;
}

export interface LinksOptions {
  readonly clock: Clock;
  /** The hivemind's X25519 private key, 32 bytes, which all members have. */
  readonly secret: Uint8Array;
  /** By what the others' sockets know us, 1 to 255 bytes: no other process may ever have had it. */
  readonly routingId: Buffer;
  readonly own: Hello;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/** How long a member may take to greet us, and how long to wait after a failed attempt, in ms. */
const GREETED_WITHIN = 2_000;
const RETRY = 1_000;
/** How long a member may take to answer, in ms. */
const ANSWERED_WITHIN = 2_000;

/** One other member, and the connection to it. */
interface Target extends LinkedMember {
  connection: Connection | undefined;
  /** Its own word says that it is the one that we mean. */
  greeted: boolean;
  retry: Timer | undefined;
  /** What was last said of it in the log. */
  trouble: string | undefined;
}

/**
 * Our connections to the other members. What goes over them speeds things up and saves work, and is lost if the other
 * one cannot be reached: nothing waits for it.
 */
export class Links {
  readonly #options: LinksOptions;
  readonly #peers: Peers;
  readonly #targets = new Map<string, Target>();

  constructor(options: LinksOptions) {
    this.#options = options;
    this.#peers = new Peers({
      clock: options.clock,
      keys: keyPairFromSecret(deriveClusterKey(options.secret)),
      routingId: options.routingId,
      helloTimeout: GREETED_WITHIN,
      commands: {},
      on: {
        handshake: (connection) => void this.#greet(connection.data as Target, connection),
        disconnect: (connection) => this.#lost(connection.data as Target, connection, 'the connection broke'),
        failure: (connection, reason) => this.#failed(connection.data as Target, connection, reason),
      },
    });
  }

  get counters(): Counters {
    return this.#peers.counters;
  }

  /** Whom a message would reach now. */
  get reached(): string[] {
    return [...this.#targets.values()].filter(({ greeted }) => greeted).map(({ name }) => name);
  }

  /** Who cannot be reached, and why. */
  get troubles(): { readonly name: string; readonly trouble: string }[] {
    return [...this.#targets.values()].flatMap(({ name, trouble }) =>
      trouble === undefined ? [] : [{ name, trouble }],
    );
  }

  /** Connects to these members, and to no others. */
  update(members: readonly LinkedMember[]): void {
    const wanted = new Map(members.filter(({ address }) => address !== '').map((member) => [member.name, member]));
    for (const target of [...this.#targets.values()]) {
      const member = wanted.get(target.name);
      if (member?.run === target.run && member.address === target.address) continue;
      this.#targets.delete(target.name);
      target.retry?.cancel();
      target.connection?.close();
    }
    for (const { name, run, address } of wanted.values()) {
      if (this.#targets.has(name)) continue;
      const target = {
        name,
        run,
        address,
        connection: undefined,
        greeted: false,
        retry: undefined,
        trouble: undefined,
      };
      this.#targets.set(name, target);
      this.#connect(target);
    }
  }

  /**
   * Tells one member something.
   * @returns false if it cannot be reached now
   */
  send(name: string, command: string, part: Buffer): boolean {
    const target = this.#targets.get(name);
    return target?.greeted === true && target.connection?.send(command, part) === true;
  }

  /**
   * Asks one member something.
   * @param timeout in ms; two seconds if not given
   * @throws OxenmqError by rejection, also if it cannot be reached now
   */
  async request(name: string, command: string, parts: readonly Part[], timeout = ANSWERED_WITHIN): Promise<Buffer[]> {
    const target = this.#targets.get(name);
    if (!target?.greeted || !target.connection)
      throw new OxenmqError('UNREACHABLE', target?.trouble ?? 'it is not connected');
    return await target.connection.request(command, parts, timeout);
  }

  async close(): Promise<void> {
    for (const { retry } of this.#targets.values()) retry?.cancel();
    this.#targets.clear();
    await this.#peers.close();
  }

  #connect(target: Target): void {
    let address: Address;
    try {
      address = parseAddress(target.address);
    } catch (error) {
      this.#complain(target, `${target.address} is not an address (${(error as Error).message})`);
      return;
    }
    target.connection = this.#peers.connect(address, { label: `hivemind ${target.name}`, data: target });
  }

  /** The address may be another one's by now, so it is asked who it is. */
  async #greet(target: Target, connection: Connection): Promise<void> {
    const { own, log } = this.#options;
    let answer: Hello;
    try {
      const [part] = await connection.request('cluster.hello', [encodeHello(own)], GREETED_WITHIN);
      answer = decodeHello(part ?? Buffer.alloc(0));
    } catch (error) {
      this.#complain(
        target,
        `what answers at ${target.address} is not a hivemind of a cluster (${(error as Error).message})`,
      );
      return;
    }
    if (target.connection !== connection) return;
    if (answer.name !== target.name) {
      this.#complain(
        target,
        `at ${target.address} there is the hivemind ${answer.name}: is advertise the same in both?`,
      );
      return;
    }
    // Another run of it will tell us its new address by the database.
    if (answer.run !== target.run) return;
    target.greeted = true;
    target.trouble = undefined;
    log.info(`connected to the hivemind ${target.name} at ${target.address}`);
  }

  #lost(target: Target, connection: Connection, reason: string): void {
    if (target.connection !== connection) return;
    target.greeted = false;
    this.#complain(target, `${reason} (${target.address})`);
  }

  #failed(target: Target, connection: Connection, reason: string): void {
    if (target.connection !== connection) return;
    target.connection = undefined;
    target.greeted = false;
    this.#complain(target, `${reason} (${target.address})`);
    target.retry = this.#options.clock.setTimeout(() => {
      if (this.#targets.get(target.name) === target) this.#connect(target);
    }, RETRY);
  }

  #complain(target: Target, trouble: string): void {
    if (this.#targets.get(target.name) !== target || target.trouble === trouble) return;
    target.trouble = trouble;
    this.#options.log.warn(`the hivemind ${target.name} cannot be reached: ${trouble}`);
  }
}
