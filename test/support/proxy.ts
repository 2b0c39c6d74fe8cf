import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleaner } from './hivemind.ts';

/**
 * What happens to bytes on their way:
 * - `pass`
 * - `hole`: they are read and dropped; a connection that has lost some is dead for good, as behind a firewall that
 *   forgot it
 * - `slice`: they arrive in pieces of 1 to 3 bytes
 * - `refuse`: a new connection is reset as soon as it is made
 * - `{ delay }`: they arrive so many milliseconds late
 */
export type Way = 'pass' | 'hole' | 'slice' | 'refuse' | { readonly delay: number };

/** A proxy on TCP or a Unix socket whose behaviour can be changed while it runs. */
export interface FaultyProxy {
  readonly port: number;
  /** Applies to all bytes from now on, also on existing connections. */
  way: Way;
  /** Connections from clients that are open now. */
  readonly open: number;
  /** The most that were open at one time, and all that were ever made. */
  readonly most: number;
  readonly accepted: number;
  /** How many pieces, in either direction, have been delayed. */
  readonly delayed: number;
  /** Breaks all connections at once; of TCP by RST. */
  reset(): void;
  /** Leaves all connections half open: nothing passes over them any more, and nobody is told. New ones work. */
  freeze(): void;
  close(): Promise<void>;
}

/** The two sockets of a connection; the one to the target is missing if it was made while the way was a hole. */
interface Line {
  readonly sockets: net.Socket[];
  dead: boolean;
}

/**
 * @param target where to connect to
 * @param listen a path for a Unix socket; a TCP port of the system's choice on 127.0.0.1 if not given
 */
export async function startProxy(t: Cleaner, target: net.NetConnectOpts, listen?: string): Promise<FaultyProxy> {
  const lines = new Set<Line>();
  let [most, accepted, pieces, delayed] = [0, 0, 0, 0];

  function accept(near: net.Socket): void {
    const line: Line = { sockets: [near], dead: proxy.way === 'hole' };
    lines.add(line);
    accepted++;
    most = Math.max(most, lines.size);
    near.on('error', () => {});
    near.once('close', () => {
      lines.delete(line);
      // A dead line tells nobody: its other end believes in it until this proxy closes, or is reset.
      if (line.dead) orphans.push(...line.sockets);
    });
    if (proxy.way === 'refuse') {
      abort(near);
      return;
    }
    if (line.dead) {
      near.resume().once('end', () => near.destroy());
      return;
    }
    const far = net.connect(target);
    far.on('error', () => {});
    line.sockets.push(far);
    void carry(line, near, far);
    void carry(line, far, near);
  }

  async function carry(line: Line, from: net.Socket, to: net.Socket): Promise<void> {
    from.setNoDelay(true);
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        const { way } = proxy;
        if (way === 'hole') line.dead = true;
        if (line.dead) continue;
        if (typeof way === 'object') await sleep(way.delay);
        if (way === 'slice') await slice(chunk, to);
        else await write(to, chunk);
        if (typeof way === 'object') delayed++;
      }
      if (!line.dead) to.end();
    } catch {
      if (!line.dead) abort(to);
    }
  }

  async function slice(chunk: Buffer, to: net.Socket): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      const end = at + 1 + (pieces++ % 3);
      await write(to, chunk.subarray(at, end));
      // So that the pieces leave one by one.
      await new Promise((resolve) => setImmediate(resolve));
      at = end;
    }
  }

  const orphans: net.Socket[] = [];
  const server = net.createServer({ allowHalfOpen: true }, accept);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (listen === undefined) server.listen(0, '127.0.0.1', resolve);
    else server.listen(listen, resolve);
  });
  const proxy: FaultyProxy = {
    port: listen === undefined ? (server.address() as net.AddressInfo).port : 0,
    way: 'pass',
    get open() {
      return lines.size;
    },
    get most() {
      return most;
    },
    get accepted() {
      return accepted;
    },
    get delayed() {
      return delayed;
    },
    reset() {
      for (const socket of [...lines].flatMap(({ sockets }) => sockets).concat(orphans.splice(0))) abort(socket);
    },
    freeze() {
      for (const line of lines) line.dead = true;
    },
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      proxy.reset();
      return closed;
    },
  };
  t.after(() => proxy.close());
  return proxy;
}

function write(to: net.Socket, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    to.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

/**
 * By RST where there is such a thing. Not on a socket that is being shut down: libuv refuses that, and Node then waits
 * for it for ever when it exits.
 */
function abort(socket: net.Socket): void {
  if (socket.destroyed) return;
  if (!socket.writableEnded && socket.remoteFamily?.startsWith('IPv')) socket.resetAndDestroy();
  else socket.destroy();
}
