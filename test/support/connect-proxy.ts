import { createServer, type IncomingMessage } from 'node:http';
import net from 'node:net';
import type { TestContext } from 'node:test';

/** A forward proxy as companies run them: it opens tunnels by CONNECT, and does nothing else. */
export interface ConnectProxy {
  /** `http://[user:password@]host:port` */
  readonly url: string;
  /** Where it was asked to connect to, `host:port`, granted or not. */
  readonly asked: readonly string[];
  /** Tunnels that are open. */
  readonly open: number;
  /** Resolves when none is. */
  allClosed(): Promise<void>;
  /** What a client gets instead of a tunnel: a status, bytes that are not HTTP, or no answer at all. */
  answer: number | string | 'hang' | undefined;
  /** Resolves when it has been asked so many times since the start. */
  reached(count: number): Promise<void>;
  /** Cuts all tunnels. */
  cut(): void;
  close(): Promise<void>;
}

/**
 * Starts one, which ends with the test.
 *
 * @param options.place `host:port`; any free port of 127.0.0.1 unless given
 */
export async function startConnectProxy(
  t: TestContext,
  options: { user?: string; password?: string; place?: string } = {},
): Promise<ConnectProxy> {
  const asked: string[] = [];
  const sockets = new Set<net.Socket>();
  const waiting: { count: number; resolve: () => void }[] = [];
  const tunnels = new Set<net.Socket>();
  const closing: (() => void)[] = [];
  const { user, password = '' } = options;
  const wanted = user === undefined ? undefined : `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

  const server = createServer((_request, response) => response.writeHead(405).end());
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('connect', (request: IncomingMessage, client: net.Socket, first: Buffer) => {
    client.on('error', () => client.destroy());
    asked.push(request.url!);
    for (const { resolve } of waiting.filter(({ count }) => asked.length >= count)) resolve();
    const refuse = (status: number) => client.end(`HTTP/1.1 ${status} No\r\ncontent-length: 4\r\n\r\nno\r\n`);
    if (request.headers.host !== request.url) return refuse(400);
    if (request.headers['proxy-authorization'] !== wanted) return refuse(407);
    if (proxy.answer === 'hang') return undefined;
    if (typeof proxy.answer === 'number') return refuse(proxy.answer);
    if (proxy.answer !== undefined) return client.end(proxy.answer);
    const { hostname, port } = new URL(`tunnel://${request.url}`);
    const upstream = net.connect({ host: hostname, port: Number(port) }, () => {
      upstream.write(first);
      client.pipe(upstream);
      // In pieces, as a network may bring it: the first has been read when the second leaves.
      client.write('HTTP/1.1 200 Connec');
      setImmediate(() =>
        setImmediate(() => {
          client.write('tion established\r\nvia: test\r\n\r\n');
          upstream.pipe(client);
        }),
      );
    });
    tunnels.add(upstream);
    upstream.on('error', () => client.destroy());
    upstream.on('close', () => {
      tunnels.delete(upstream);
      client.destroy();
      if (tunnels.size === 0) for (const resolve of closing.splice(0)) resolve();
    });
    client.on('close', () => upstream.destroy());
    return undefined;
  });
  const [host, wantedPort] = (options.place ?? '127.0.0.1:0').split(':');
  await new Promise<void>((resolve) => server.listen(Number(wantedPort), host, resolve));
  const { port } = server.address() as net.AddressInfo;
  const who = user === undefined ? '' : `${encodeURIComponent(user)}:${encodeURIComponent(password)}@`;

  const proxy: ConnectProxy = {
    url: `http://${who}${host}:${port}`,
    asked,
    answer: undefined,
    get open() {
      return tunnels.size;
    },
    allClosed() {
      if (tunnels.size === 0) return Promise.resolve();
      return new Promise((resolve) => closing.push(resolve));
    },
    reached(count) {
      if (asked.length >= count) return Promise.resolve();
      return new Promise((resolve) => waiting.push({ count, resolve }));
    },
    cut() {
      for (const socket of sockets) socket.destroy();
    },
    close() {
      proxy.cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
  t.after(() => proxy.close());
  return proxy;
}
