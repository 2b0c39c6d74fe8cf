/** zeromq.js's ROUTER, as both sides of OxenMQ use it. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { context, Router } from 'zeromq';

/** The largest message accepted by default, in bytes; a sender of larger ones is cut off where that can be done. */
export const MAX_MESSAGE_SIZE = 10 * 1024 * 1024;

/** The most parts of a message accepted; no peer of ours sends more than six. */
const MAX_PARTS = 100;

/** Memory that libzmq needs for a part besides its bytes. */
const PART_OVERHEAD = 100;

/** The bytes of all parts of a message. @param frames with the routing id as the first, which does not count */
export function sizeOf(frames: readonly Buffer[]): number {
  let size = -(frames[0]?.length ?? 0);
  for (const { length } of frames) size += length;
  return size;
}

/** About how many bytes of memory an unread message takes. @param size of its parts, in bytes @param frames how many */
export function unreadSize(size: number, frames: number): number {
  return size + frames * PART_OVERHEAD;
}

/**
 * What is wrong with the size of a message, undefined if nothing is. libzmq limits the bytes of each part but not how
 * many parts there are, and zeromq.js gathers them all before we see the first: by then a message of millions of parts
 * has cost its memory and time. We cannot prevent that here, only its repetition, by cutting off the sender where that
 * can be done. The last resort is the limit of the process's memory (MemoryMax in the unit).
 *
 * @param frames with the routing id as the first
 * @param size their {@link sizeOf}
 * @param maxSize bytes of all parts together
 */
export function excess(frames: readonly Buffer[], size: number, maxSize: number): string | undefined {
  const parts = frames.length - 1;
  if (parts > MAX_PARTS) return `a message of ${parts} parts`;
  return size > maxSize ? `a message of ${size} bytes` : undefined;
}

/** How long messages in libzmq's queues may take to leave when we close, in milliseconds. */
export const LINGER = 1000;

/**
 * The same for a connection that has failed, as a range to choose from at random. libzmq 4.3.5 aborts the whole process
 * (session_base.cpp:233) if a peer resets just when the linger is over and a message of several parts is half sent;
 * without a linger, a server that says BYE and resets could choose that moment. With more than the reconnect interval,
 * libzmq would connect once more.
 */
export const FAILED_LINGER = [50, 200] as const;

/** libzmq's ROUTER_NOTIFY, for which zeromq.js has no name: a ROUTER is told of peers by `[routing id, ""]`. */
const ROUTER_NOTIFY = 97;
export const NOTIFY_DISCONNECT = 2;
export const NOTIFY_CONNECT_AND_DISCONNECT = 3;

/** libzmq's ZMQ_ZERO_COPY_RECV, for which zeromq.js has no name. */
const ZERO_COPY_RECV = 10;
/**
 * With it, libzmq hands out views into receive buffers of about 20 kB, and whoever keeps one small message keeps all of
 * the buffer: ten times the memory that we count. libzmq reads the option when a socket is made, so it is set first.
 */
(context as unknown as OptionSetter).setInt32Option(ZERO_COPY_RECV, 0);

/** zeromq.js keeps the setters for options without a name protected. */
interface OptionSetter {
  setInt32Option(option: number, value: number): void;
}

/**
 * A ROUTER with the original's options (docs/spec/oxenmq.md, section 1). Up to 1,000 messages to a peer may wait in
 * libzmq, its default. Messages from a peer have no such limit: when one is reached, libzmq 4.3.5 stops reading, and if
 * the peer then hangs up, the next heartbeat of either side makes libzmq abort the whole process (`!_io_error`).
 * `sendTimeout: 0` sends at once or not at all, as the original does. An unknown peer is an error (`mandatory`).
 *
 * @param maxMessageSize bytes of the largest part that libzmq accepts
 * @param notify which of libzmq's notices to get: {@link NOTIFY_DISCONNECT} or {@link NOTIFY_CONNECT_AND_DISCONNECT}
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
    // Without it, connecting to an address that drops everything takes the kernel's two minutes of repeated SYNs.
    connectTimeout: 10_000,
  });
  (socket as unknown as OptionSetter).setInt32Option(ROUTER_NOTIFY, notify);
  return socket;
}

/** How many messages are taken between looks at the clock, and how long they may hold the event loop, in ms. */
const BATCH = 16;
const SLICE = 8;

/**
 * Receives until the socket is closed. A plain loop was the fastest pattern we tried. zeromq.js only lets the event
 * loop turn every 512 messages, which may be many milliseconds of work, so this lets it turn after {@link SLICE} ms.
 *
 * @param take must not throw
 * @param failed called with any error but that of closing; the loop then ends
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
      // Woken without a message.
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') continue;
      failed(error as Error);
      return;
    }
    if (++taken % BATCH !== 0 || performance.now() - since < SLICE) continue;
    await nextTurn();
    since = performance.now();
  }
}

/**
 * Changes options of a socket that is in use. zeromq.js warns that they take effect only with the next connect, which
 * is exactly what is wanted here, so the warning is suppressed.
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
