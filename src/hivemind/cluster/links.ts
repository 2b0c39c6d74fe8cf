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
  /** OxenMQ address; empty while it has not published one. */
  readonly address: string;
}

export interface LinksOptions {
  readonly clock: Clock;
  /** The hivemind's X25519 private key, 32 bytes, which all members share. */
  readonly secret: Uint8Array;
  /** What the others' sockets know us by, 1 to 255 bytes. Must never have been used by another process. */
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
  /** It has answered, and is the member and the run that we meant to reach. */
  greeted: boolean;
  retry: Timer | undefined;
  /** Why it cannot be reached, as last logged; undefined once it has greeted us. */
  trouble: string | undefined;
}

/**
 * Our connections to the other members. What goes over them only speeds things up and saves work, so it is simply lost
 * when a member cannot be reached.
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

  /** The members that a message would reach now. */
  get reached(): string[] {
    return [...this.#targets.values()].filter(({ greeted }) => greeted).map(({ name }) => name);
  }

  /** The members that cannot be reached, and why. */
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
   * Sends a member a command without a reply.
   * @returns false if it cannot be reached now
   */
  send(name: string, command: string, part: Buffer): boolean {
    const target = this.#targets.get(name);
    return target?.greeted === true && target.connection?.send(command, part) === true;
  }

  /**
   * Sends a member a request.
   * @param timeout in ms
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

  /** The address may belong to another hivemind by now, so we ask who is there. */
  async #greet(target: Target, connection: Connection): Promise<void> {
    const { own, log } = this.#options;
    let answer: Hello;
    try {
      const [part] = await connection.request('cluster.hello', [encodeHello(own)], GREETED_WITHIN);
      answer = decodeHello(part ?? Buffer.alloc(0));
    } catch (error) {
      if ((error as OxenmqError).code === 'TIMEOUT') {
        // It may have been busy, and a connection that does not break brings no other handshake.
        this.#complain(target, `it has not answered our greeting (${target.address})`);
        this.#later(target, () => target.connection === connection && void this.#greet(target, connection));
        return;
      }
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
        `at ${target.address} there is the hivemind ${answer.name}: do both advertise the same address?`,
      );
      return;
    }
    // A newer run of it: update() follows as soon as the database has its row.
    if (answer.run !== target.run) return;
    target.greeted = true;
    target.trouble = undefined;
    log.info(`connected to the hivemind ${target.name} at ${target.address}`);
  }

  #lost(target: Target, connection: Connection, reason: string): void {
    if (target.connection !== connection) return;
    // Restored, it is greeted in any case.
    target.retry?.cancel();
    target.greeted = false;
    this.#complain(target, `${reason} (${target.address})`);
  }

  #failed(target: Target, connection: Connection, reason: string): void {
    if (target.connection !== connection) return;
    target.connection = undefined;
    target.greeted = false;
    this.#complain(target, `${reason} (${target.address})`);
    this.#later(target, () => this.#connect(target));
  }

  /** Tries something again, unless the member is no longer wanted by then. */
  #later(target: Target, again: () => void): void {
    target.retry?.cancel();
    target.retry = this.#options.clock.setTimeout(() => {
      if (this.#targets.get(target.name) === target) again();
    }, RETRY);
  }

  #complain(target: Target, trouble: string): void {
    if (this.#targets.get(target.name) !== target || target.trouble === trouble) return;
    target.trouble = trouble;
    this.#options.log.warn(`the hivemind ${target.name} cannot be reached: ${trouble}`);
  }
}
