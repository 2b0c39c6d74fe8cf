/** zeromq.js's ROUTER, as both sides of OxenMQ use it. */

import { context, Router } from 'zeromq';

/** Bytes of the largest message taken, if not said otherwise; a larger one costs its sender the connection. */
export const MAX_MESSAGE_SIZE = 10 * 1024 * 1024;

/** Parts of the longest message taken. Nobody speaks in more than six. */
const MAX_PARTS = 100;

/** What libzmq needs for a part beside its bytes. */
const PART_OVERHEAD = 100;

/** The bytes of all parts of a message; with the routing id as the first frame, which does not count. */
export function sizeOf(frames: readonly Buffer[]): number {
  let size = -(frames[0]?.length ?? 0);
  for (const { length } of frames) size += length;
  return size;
}

/** About what a message of so many bytes in so many frames takes while it lies unread. */
export function unreadSize(size: number, frames: number): number {
  return size + frames * PART_OVERHEAD;
}

/**
 * What is wrong with the size of a message, undefined if nothing is. libzmq limits the bytes of each part, not how many
 * parts there are, and zeromq.js gathers them all before we see the first: a message of millions of parts has cost its
 * memory and its time by then. That cannot be prevented from here, only that it happens again: who sent one is cut off
 * where that can be done. A limit of the process's memory (MemoryMax in the unit) is what stands behind it.
 *
 * @param frames with the routing id as the first
 * @param size {@link sizeOf} them
 * @param maxSize bytes of all parts together
 */
export function excess(frames: readonly Buffer[], size: number, maxSize: number): string | undefined {
  const parts = frames.length - 1;
  if (parts > MAX_PARTS) return `a message of ${parts} parts`;
  return size > maxSize ? `a message of ${size} bytes` : undefined;
}

/** How long what lies in libzmq's queues when we close is given to leave, in milliseconds. */
export const LINGER = 1000;

/**
 * The same for a connection that has failed, at least and at most. libzmq 4.3.5 aborts the whole process
 * (session_base.cpp:233) if a peer resets just when its linger is over and a message of several parts has half left:
 * none at all would let a server that says BYE and resets choose that moment. More than the reconnect interval would
 * let libzmq connect once more.
 */
export const FAILED_LINGER = [50, 200] as const;

/** libzmq's ROUTER_NOTIFY, which zeromq.js has no name for: a ROUTER is told of peers by `[routing id, ""]`. */
const ROUTER_NOTIFY = 97;
export const NOTIFY_DISCONNECT = 2;
export const NOTIFY_CONNECT_AND_DISCONNECT = 3;

/** libzmq's ZMQ_ZERO_COPY_RECV, which zeromq.js has no name for. */
const ZERO_COPY_RECV = 10;
/**
 * Else libzmq hands out views into slabs of some 20 kB which it received into, and whoever keeps one small message
 * keeps the slab: ten times the memory that anybody can count. Read when a socket is made, hence set before any.
 */
(context as unknown as OptionSetter).setInt32Option(ZERO_COPY_RECV, 0);

/** zeromq.js keeps the setters for options without a name protected. */
interface OptionSetter {
  setInt32Option(option: number, value: number): void;
}

/**
 * A ROUTER with the original's options (docs/spec/oxenmq.md, section 1). 1,000 messages for a peer may lie in libzmq,
 * which is its own default; those from a peer have no such limit: when one is reached libzmq 4.3.5 stops reading, and a
 * peer that then hangs up has made it abort the whole process (`!_io_error`) by the next heartbeat, ours or its own.
 * `sendTimeout: 0` is the original's way of sending: at once or not at all. An unknown peer is an error (`mandatory`).
 *
 * @param notify of what libzmq is to tell
 */
export function openRouter(maxMessageSize: number, notify: number): Router {
  const socket = new Router({
    mandatory: true,
    sendTimeout: 0,
    linger: LINGER,
    maxMessageSize,
    receiveHighWaterMark: 0,
    handshakeInterval: 10_000,
    heartbeatInterval: 15_000,
    heartbeatTimeout: 30_000,
    reconnectInterval: 250,
    reconnectMaxInterval: 5000,
    // Else a black hole holds a connect for as long as the kernel repeats its SYN: two minutes.
    connectTimeout: 10_000,
  });
  (socket as unknown as OptionSetter).setInt32Option(ROUTER_NOTIFY, notify);
  return socket;
}

/** Messages between two glances at the clock, and how long (ms) they may hold the event loop. */
const BATCH = 16;
const SLICE = 8;

/**
 * Receives until the socket is closed. The plain loop was the fastest of the patterns tried. zeromq.js lets the event
 * loop turn every 512 messages, which may be many milliseconds' work: after a few it turns in any case.
 *
 * @param take must not throw
 * @param failed called with an error that is not the closing; the loop then ends
 */
export async function receiveAll(
  socket: Router,
  take: (frames: Buffer[]) => void,
  failed: (error: Error) => void,
): Promise<void> {
  let [taken, since] = [0, performance.now()];
  for (;;) {
    try {
      take(await socket.receive());
    } catch (error) {
      if (socket.closed) return;
      // A wake-up without a message.
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') continue;
      failed(error as Error);
      return;
    }
    if (++taken % BATCH !== 0 || performance.now() - since < SLICE) continue;
    await new Promise((resolve) => setImmediate(resolve));
    since = performance.now();
  }
}

/**
 * Changes options of a socket that is in use. zeromq.js warns that such a change will not take effect before the next
 * connect, which is what is wanted here: each connection has its own.
 */
export function quietly(change: () => void): void {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    change();
  } finally {
    process.emitWarning = emitWarning;
  }
}
