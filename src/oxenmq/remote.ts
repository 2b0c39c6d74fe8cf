/**
 * What the rest of the program sees of OxenMQ: a remote to talk to, what comes in from it, and the commands we offer.
 */

/** One part (frame) of a message; a string is sent as UTF-8. */
export type Part = string | Uint8Array;

/**
 * How much a peer may do, in rising order. It is a property of the socket; peers cannot claim it (docs/spec/oxenmq.md,
 * section 3).
 */
export type Access = 'none' | 'basic' | 'admin';

/** The words with which a peer refuses a request or a command (docs/spec/oxenmq.md, section 6). */
export type ErrorWord = 'UNKNOWNCOMMAND' | 'FORBIDDEN' | 'NOT_A_SERVICE_NODE' | 'FORBIDDEN_SN' | 'NO_REPLY_TAG';

/**
 * Why a request failed: `TIMEOUT` no reply in time; `UNREACHABLE` it could not be sent, or the peer was lost before it
 * answered; `CLOSED` we closed the connection; else the peer's own word.
 */
export class OxenmqError extends Error {
  override readonly name = 'OxenmqError';
  readonly code: 'TIMEOUT' | 'UNREACHABLE' | 'CLOSED' | ErrorWord;

  constructor(code: OxenmqError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** The other end of a connection, whichever side made it. */
export interface Remote {
  /** Unique within its Peers or Listener: the routing id as latin1. */
  readonly id: string;

  /**
   * Sends a command. The parts must not be changed afterwards: longer ones are not copied.
   *
   * True means that it was taken: it is in ZeroMQ's queue of 1,000 messages for this peer or, if that was full, in a
   * bounded queue of ours, which is emptied in order. It is no receipt: what a broken connection had not delivered is
   * lost, and counted under `lost` as far as that is known.
   *
   * @returns false if it was dropped: the peer is gone or unconnected, or its queues are full
   */
  send(command: string, ...parts: Part[]): boolean;

  /**
   * Sends a request and waits for its reply.
   *
   * @param timeout in milliseconds; 15,000 if not given
   * @returns the parts of the reply, which may be none
   * @throws OxenmqError always as a rejection
   */
  request(command: string, parts: readonly Part[], timeout?: number): Promise<Buffer[]>;
}

/** A command or a request that came in. */
export interface Incoming {
  readonly remote: Remote;
  /** The parts after the name, and after the tag of a request. */
  readonly parts: Buffer[];
  /**
   * Answers a request, now or later. Only the first call counts; for a command, none does. The answer waits while the
   * peer's queue is full, up to 10,000 messages and 16 MiB a peer; beyond that it is dropped and counted as
   * `unanswered`.
   */
  reply(...parts: Part[]): void;
}

/** If a handler throws or rejects, that is counted and passed to the owner's `stray`; the peer gets no reply then. */
export type Handler = (message: Incoming) => void | Promise<void>;

/** The commands we offer, by category and name: `push.subscribe` is `{ push: { commands: { subscribe: … } } }`. */
export interface Commands {
  readonly [category: string]: {
    /** What the socket must grant for these commands to be allowed. */
    readonly access: Access;
    readonly commands: { readonly [name: string]: { readonly kind: 'command' | 'request'; readonly handler: Handler } };
  };
}
