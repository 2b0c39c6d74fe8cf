/** What a socket counts, for the metrics. Plain numbers: they are raised on the hot path. */
export interface Counters {
  /** Messages received, whatever they were. */
  received: number;
  /** Messages that libzmq took. */
  sent: number;
  /** Commands and requests not taken: the peer gone or unconnected, or its queues full. Their senders were told. */
  refused: number;
  /** Answers dropped: the peer gone, or too many wait for it to read them. */
  unanswered: number;
  /** Requests dropped unread, as the peer does not read the answers that wait for it. */
  overrun: number;
  /** Messages taken and then lost, because the peer turned out to be gone or went with its queue full. */
  lost: number;
  /** Messages dropped because they were none: no name, no category, a name too long, a reply without tag. */
  garbage: number;
  /** Messages dropped because they had too many parts, or too many bytes in all. */
  excessive: number;
  /** Calls turned down: no such command, not allowed, a request without tag. */
  refusals: number;
  /** Replies and refusals for which no request waits on that connection. */
  strayReplies: number;
  /** Handlers, and callbacks of the owner, that threw or rejected. */
  handlerErrors: number;
  /** Connections that came up, by the first word heard over each. */
  handshakes: number;
  /** Connections that broke. */
  disconnects: number;
  /** Connections that we gave up. */
  failures: number;
  /** ZAP: clients turned away by their key. */
  denied: number;
}

export function newCounters(): Counters {
  return {
    received: 0,
    sent: 0,
    refused: 0,
    unanswered: 0,
    overrun: 0,
    lost: 0,
    garbage: 0,
    excessive: 0,
    refusals: 0,
    strayReplies: 0,
    handlerErrors: 0,
    handshakes: 0,
    disconnects: 0,
    failures: 0,
    denied: 0,
  };
}
