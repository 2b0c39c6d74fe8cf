import type { Clock, Timer } from '../clock.ts';
import { type Address, formatAddress, parseAddress } from '../oxenmq/address.ts';
import { type Connection, Peers } from '../oxenmq/peers.ts';
import { OxenmqError } from '../oxenmq/remote.ts';
import {
  decodeMembers,
  inOneSpelling,
  type Member,
  type MemberLink,
  type Members,
  planLinks,
} from '../session/members.ts';

/** A link to a hivemind. libzmq restores its connection when it breaks; one that was given up is replaced. */
export interface HivemindLink extends MemberLink {
  /** The current connection. */
  readonly connection: Connection;
  /** How many requests wait for an answer. */
  inFlight: number;
  /** Why it is not connected, as far as is known. */
  readonly problem: string | undefined;
}

interface Entry extends HivemindLink {
  state: MemberLink['state'];
  name: string | undefined;
  members: readonly Member[];
  connection: Connection;
  problem: string | undefined;
  retry: Timer | undefined;
  asking: boolean;
}

export interface HivemindLinksOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Where hiveminds listen for front-ends: one, or several of a cluster. */
  readonly addresses: readonly Address[];
  /** Called when one of them is connected or lost, and when it has reported its cluster. */
  readonly changed: () => void;
  /** Called when a member of a cluster is connected and has told its name, and when it is lost and why. */
  readonly onMember?: ((name: string, problem: string | undefined) => void) | undefined;
}

const ROUTING_BYTES = 16;
/** How long to wait after a failed connection, ms; libzmq has tried several times before that. */
const RETRY = 500;
/** How often members are asked which others there are, ms. */
const ASK = 5_000;
const ASK_TIMEOUT = 4_000;

/**
 * The front-end's links: to the hivemind in the settings, or to every member of its cluster (session/members.ts).
 */
export class HivemindLinks {
  readonly #options: HivemindLinksOptions;
  readonly #given: readonly string[];
  readonly #peers: Peers;
  /** By address. */
  readonly #entries = new Map<string, Entry>();
  readonly #asking: Timer;
  #closed = false;

  constructor(options: HivemindLinksOptions) {
    this.#options = options;
    this.#given = [...new Set(options.addresses.map((address) => formatAddress(address)))];
    this.#peers = new Peers({
      clock: options.clock,
      commands: {},
      on: {
        hello: (connection) => this.#onUp(connection),
        handshake: (connection) => this.#onUp(connection),
        disconnect: (connection) => this.#onLoss(connection, 'the connection broke'),
        failure: (connection, reason) => this.#onFailure(connection, reason),
      },
    });
    this.#asking = options.clock.setInterval(() => {
      // A hivemind that is alone stays alone for as long as the connection lasts.
      for (const entry of this.#entries.values()) if (entry.state !== 'up' || entry.name) void this.#ask(entry);
    }, ASK);
    for (const address of this.#given) this.#add(address, true);
  }

  /** Those that can be asked something now, those in the settings first. */
  get up(): readonly HivemindLink[] {
    return [...this.#entries.values()].filter(({ connection }) => connection.state === 'up');
  }

  /** Why none of those in the settings is connected, as far as is known. */
  get problem(): string | undefined {
    const problems = this.#given.flatMap((address) => this.#entries.get(address)?.problem ?? []);
    return problems.length > 0 ? [...new Set(problems)].join('; ') : undefined;
  }

  /** Members of the cluster that others report alive but that are not connected. */
  get missing(): readonly { readonly name: string; readonly problem: string | undefined }[] {
    const entries = [...this.#entries.values()];
    return planLinks(entries, this.#given).missing.map(({ name, address }) => {
      const entry = entries.find((one) => one.name === name) ?? this.#entries.get(address);
      return { name, problem: address === '' && !entry ? 'the address that it announces is invalid' : entry?.problem };
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#asking.cancel();
    for (const { retry } of this.#entries.values()) retry?.cancel();
    await this.#peers.close();
  }

  #add(address: string, isGiven: boolean): void {
    this.#entries.set(address, {
      address,
      isGiven,
      state: 'new',
      name: undefined,
      members: [],
      connection: this.#connect(address),
      inFlight: 0,
      problem: undefined,
      retry: undefined,
      asking: false,
    });
  }

  #connect(address: string): Connection {
    // A fresh id for each: two connections may lead to the same socket, which could not tell them apart by one id.
    const routingId = Buffer.concat([Buffer.from('W'), this.#options.random(ROUTING_BYTES)]);
    return this.#peers.connect(parseAddress(address), { label: 'hivemind', data: address, routingId });
  }

  /** The entry whose current connection this is. */
  #entryOf(connection: Connection): Entry | undefined {
    const entry = this.#entries.get(String(connection.data));
    return entry?.connection === connection && !this.#closed ? entry : undefined;
  }

  #onUp(connection: Connection): void {
    const entry = this.#entryOf(connection);
    // The first handshake comes before the hello, with which the connection is up.
    if (!entry || connection.state !== 'up') return;
    entry.problem = undefined;
    entry.asking = false;
    void this.#ask(entry);
    this.#options.changed();
  }

  #onLoss(connection: Connection, problem: string): void {
    const entry = this.#entryOf(connection);
    if (!entry) return;
    if (entry.state === 'up' && entry.name) this.#options.onMember?.(entry.name, problem);
    entry.problem = problem;
    if (entry.state === 'up') entry.state = 'down';
    this.#review();
  }

  #onFailure(connection: Connection, reason: string): void {
    const entry = this.#entryOf(connection);
    if (!entry) return;
    if (entry.name && entry.problem !== reason) this.#options.onMember?.(entry.name, reason);
    entry.problem = reason;
    entry.state = 'failed';
    entry.retry = this.#options.clock.setTimeout(() => {
      entry.connection = this.#connect(entry.address);
    }, RETRY);
    this.#review();
  }

  /** Asks a hivemind which others there are. */
  async #ask(entry: Entry): Promise<void> {
    const { connection } = entry;
    if (entry.asking || connection.state !== 'up') return;
    entry.asking = true;
    const told = await answerOf(connection);
    entry.asking = false;
    if (this.#entryOf(connection) !== entry) return;
    if (told === 'nothing') {
      // The plan need not wait for it. It is asked again, and may take requests meanwhile.
      if (entry.state === 'new') entry.state = 'failed';
      this.#review();
      return;
    }
    const isNew = entry.state !== 'up';
    entry.state = 'up';
    if (told !== 'nonsense') {
      entry.name = told?.own;
      entry.members = told ? inOneSpelling(told.members, (address) => formatAddress(parseAddress(address))) : [];
    }
    if (isNew && entry.name) this.#options.onMember?.(entry.name, undefined);
    this.#review();
  }

  /** Opens and closes links by what was learned. */
  #review(): void {
    const { open, close } = planLinks([...this.#entries.values()], this.#given);
    for (const entry of close) {
      this.#entries.delete(entry.address);
      entry.retry?.cancel();
      entry.connection.close();
    }
    for (const address of open) this.#add(address, this.#given.includes(address));
    this.#options.changed();
  }
}

/**
 * What a hivemind reports about its cluster; undefined from one that is alone; `nothing` if it does not answer, and
 * `nonsense` if it cannot be understood.
 */
async function answerOf(connection: Connection): Promise<Members | undefined | 'nothing' | 'nonsense'> {
  try {
    const [part] = await connection.request('push.hiveminds', [], ASK_TIMEOUT);
    return part && decodeMembers(part);
  } catch (error) {
    if (!(error instanceof OxenmqError)) return 'nonsense';
    // The original does not know the command, so it is alone.
    return error.code === 'TIMEOUT' || error.code === 'UNREACHABLE' || error.code === 'CLOSED' ? 'nothing' : undefined;
  }
}
