/** The socket files of ipc addresses. */

import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';

/** The path of an ipc address; undefined for other addresses and for abstract sockets, which have no file. */
export function ipcPath(address: string): string | undefined {
  const path = address.startsWith('ipc://') ? address.slice(6) : undefined;
  return path?.startsWith('@') || path === '*' ? undefined : path;
}

/**
 * Makes sure that nothing of value is at a path: libzmq removes whatever it finds there before it binds, even the
 * socket of a process that is listening.
 *
 * @throws Error that says what is there
 */
export async function checkIpcPath(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (!found.isSocket()) throw new Error('there is something other than a socket at this path');
  if (await isListening(path)) throw new Error('another process is listening there');
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/**
 * Takes charge of the file of a socket that was just bound.
 *
 * @param mode the permissions to give it, if any
 * @returns a function that removes the file, unless another one has taken its place; libzmq does not remove it
 */
export function ownIpcFile(path: string, mode: number | undefined): () => void {
  if (mode !== undefined) chmodSync(path, mode);
  const { ino } = lstatSync(path);
  return () => {
    try {
      if (lstatSync(path).ino === ino) unlinkSync(path);
    } catch {
      // Gone, or no longer ours to remove.
    }
  };
}
