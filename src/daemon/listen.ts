import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { formatListen, type ListenAddress } from '../settings/listen-address.ts';

/**
 * Takes away the Unix socket that a killed process left behind, on which nobody could listen again; one that is still
 * answered stays. Call it before listening on a Unix socket.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  try {
    if (!lstatSync(path).isSocket()) return;
  } catch {
    return;
  }
  const stale = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
  if (stale) unlinkSync(path);
}

/**
 * Lets `server` listen; the error of one that cannot says where and why. Returns the address it has, with the port that
 * was found for 0.
 */
export async function listenOn(server: Server, address: ListenAddress): Promise<ListenAddress> {
  if ('path' in address) await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen('path' in address ? { path: address.path } : { host: address.host, port: address.port }, () => {
      server.off('error', reject);
      resolve();
    });
  }).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`cannot listen on ${formatListen(address)}: ${reason(error, 'path' in address)}`, { cause: error });
  });
  const bound = server.address();
  return bound !== null && typeof bound === 'object' ? { host: bound.address, port: bound.port } : address;
}

function reason(error: NodeJS.ErrnoException, unix: boolean): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return 'another process already listens there; stop it or choose another address';
    case 'EACCES':
      // For a Unix socket in a folder that is not there libuv says EACCES, too.
      return unix
        ? 'the folder is not there, or this user may not write to it'
        : 'this user may not; choose a port above 1023';
    case 'EADDRNOTAVAIL':
      return 'this machine has no such address';
    case 'ENOTFOUND':
      return 'that host name is not known';
    default:
      return error.message;
  }
}
