import type { ChildProcess } from 'node:child_process';
import { type EventEmitter, once as nextOf } from 'node:events';
import type { Socket } from 'node:net';
import { inTime } from './until.ts';

/**
 * Resolves with what the next such event carries.
 *
 * @throws Error if it does not come within a minute, and the error that the emitter tells of meanwhile
 */
export function once(emitter: EventEmitter, event: string): Promise<unknown[]> {
  return inTime(nextOf(emitter, event), () => `the event ${event}`);
}

/** Resolves when a socket is closed, also by the other end's reset, which {@link once} would fail with. */
export function closed(socket: Socket): Promise<void> {
  return inTime(new Promise((resolve) => socket.once('close', () => resolve())), () => 'the end of a connection');
}

/**
 * How a process ends when its output has ended as well: the exit code, or the signal. Waits for as long as it lives,
 * which the test's own limit bounds.
 */
export function ended(child: ChildProcess): Promise<number | NodeJS.Signals> {
  return new Promise((resolve) => child.once('close', (code, signal) => resolve(code ?? signal ?? -1)));
}
