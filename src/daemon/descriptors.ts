import { readFileSync } from 'node:fs';

/** What a process needs beside the connections of its clients: files, sockets of its own, the libraries' pipes. */
const OWN = 100;

/**
 * How many file descriptors clients' connections may take in all. Node raises the limit as far as it may when it
 * starts; when none is left libzmq ends the process, so it must never come to that.
 */
export function spareDescriptors(read: () => string = () => readFileSync('/proc/self/limits', 'utf8')): number {
  let limit = 1024;
  try {
    limit = Number(/^Max open files\s+(\d+)/m.exec(read())?.[1] ?? limit);
  } catch {
    // Not Linux: the usual limit.
  }
  return Math.max(limit - OWN, 8);
}
