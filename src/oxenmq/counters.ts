/** What a socket counts, for the metrics. Plain numbers, since they are incremented on the hot path. */
export interface Counters {
  /** Messages received, whatever they were. */
  received: number;
  /** Messages that libzmq took. */
  sent: number;
  /** Commands and requests not taken: the peer is gone or unconnected, or its queues are full. Their senders know. */
  refused: number;
  /** Answers dropped: the peer is gone, or too many answers already wait for it. */
  unanswered: number;
  /** Requests dropped unread, since the peer does not read the answers that wait for it. */
  overrun: number;
  /** Messages taken and then lost: the peer turned out to be gone, or went while its queue was full. */
  lost: number;
  /** Messages dropped as malformed: no name, no category, a name too long, a reply without a tag. */
  garbage: number;
  /** Messages dropped because they had too many parts, or too many bytes in all. */
  excessive: number;
  /** Calls refused: no such command, not allowed, a request without a tag. */
  refusals: number;
  /** Replies and refusals for which no request waits on that connection. */
  strayReplies: number;
  /** Handlers, and callbacks of the owner, that threw or rejected. */
  handlerErrors: number;
  /** Connections that came up: something was heard over them. */
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
