import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { formatListen, type ListenAddress } from '../settings/listen-address.ts';

/**
 * Removes a Unix socket that a killed process left behind, so that one can listen there again; a socket that still
 * answers is left alone. To be called before listening on a Unix socket.
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
 * Lets `server` listen.
 *
 * @returns the address that it has, with the real port instead of 0
 * @throws Error that says where it could not listen and why
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
      // libuv also says EACCES for a Unix socket in a folder that does not exist.
      return unix
        ? 'the folder does not exist, or this user may not write to it'
        : 'this user may not; choose a port above 1023';
    case 'EADDRNOTAVAIL':
      return 'this machine has no such address';
    case 'ENOTFOUND':
      return 'that host name is not known';
    default:
      return error.message;
  }
}
