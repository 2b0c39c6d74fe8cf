import type { AddressInfo, Server } from 'node:net';

/**
 * Has a fake provider listen on 127.0.0.1, and gives the port.
 * @param port any free one unless given
 * @throws Error as Node's, if the port is taken
 */
export async function listen(server: Server, port = 0): Promise<number> {
  // Clients that reject our certificate find out for themselves.
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return (server.address() as AddressInfo).port;
}
