import { readFileSync } from 'node:fs';

/** How many a process needs besides its clients' connections: files, sockets of its own, the libraries' pipes. */
const OWN = 100;

/**
 * How many file descriptors all clients' connections together may take. Node raises the limit as far as it may when it
 * starts. libzmq aborts the process when none is left, so that must never happen.
 */
export function spareDescriptors(read: () => string = () => readFileSync('/proc/self/limits', 'utf8')): number {
  let limit = 1024;
  try {
    limit = Number(/^Max open files\s+(\d+)/m.exec(read())?.[1] ?? limit);
  } catch {
    // Not on Linux: the usual limit.
  }
  return Math.max(limit - OWN, 8);
}
