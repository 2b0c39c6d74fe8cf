import type { Log } from '../../log.ts';
import { ServerLimits } from './message-limits.ts';

/** How many of a storage server's messages since our start exceeded its limits, were contradicted or unconfirmed. */
export interface ServerRecord {
  limited: number;
  unheld: number;
  contradicted: number;
  /** Passed on although no other server confirmed them, and some could have. */
  alone: number;
}

/** What the log says about a storage server. Being alone with a message is no offence: it may be genuine. */
const OFFENCES = {
  limited: 'sends more messages of one account than it may',
  unheld: 'sends more messages that no other confirms than can wait',
  contradicted: 'contradicts the others of its swarm',
} as const;

interface Server extends ServerRecord {
  readonly limits: ServerLimits;
}

export interface ServerRecordsOptions<Node> {
  /** A storage server's name in the log. */
  readonly nameOf: (node: Node) => string;
  readonly log: Pick<Log, 'warn'>;
}

/** Each storage server's limits and record so far; forgotten with the server. */
export class ServerRecords<Node extends object> {
  readonly #options: ServerRecordsOptions<Node>;
  readonly #servers = new WeakMap<Node, Server>();

  constructor(options: ServerRecordsOptions<Node>) {
    this.#options = options;
  }

  of(node: Node): ServerRecord {
    const { limited = 0, unheld = 0, contradicted = 0, alone = 0 } = this.#servers.get(node) ?? {};
    return { limited, unheld, contradicted, alone };
  }

  limits(node: Node): ServerLimits {
    return this.#server(node).limits;
  }

  /** Adds to a server's record. The first, tenth, hundredth offence and so on is logged. */
  count(node: Node, what: keyof ServerRecord): void {
    const count = ++this.#server(node)[what];
    if (what === 'alone' || !Number.isInteger(Math.log10(count))) return;
    this.#options.log.warn(`storage server ${this.#options.nameOf(node)} ${OFFENCES[what]}: ${count} so far`);
  }

  #server(node: Node): Server {
    let server = this.#servers.get(node);
    if (!server) {
      server = { limits: new ServerLimits(), limited: 0, unheld: 0, contradicted: 0, alone: 0 };
      this.#servers.set(node, server);
    }
    return server;
  }
}
