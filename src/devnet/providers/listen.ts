import type { AddressInfo, Server } from 'node:net';

/**
 * Has a fake provider listen on 127.0.0.1.
 * @param port any free one unless given
 * @returns the port
 * @throws Error as Node's, if the port is taken
 */
export async function listen(server: Server, port = 0): Promise<number> {
  // A client that rejects our certificate knows why.
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return (server.address() as AddressInfo).port;
}
