import type { Log } from '../../log.ts';
import { ServerLimits } from './message-limits.ts';

/** Counts, since the start of the process, of what a storage server sent that others did not, or beyond its limits. */
export interface ServerRecord {
  limited: number;
  unheld: number;
  contradicted: number;
  /** Passed on, although no other server that was there confirmed them. */
  alone: number;
}

/** What the log says of a storage server. Being alone with a message is no offence: the message may be genuine. */
const OFFENCES = {
  limited: 'tells more messages of one account than it may',
  unheld: 'tells more messages that no other confirms than can wait',
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

/** What each storage server may still send, and its offences so far. Forgotten with the server. */
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

  /** Puts it on the server's record; the first, tenth, hundredth offence, and so on, is logged. */
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
