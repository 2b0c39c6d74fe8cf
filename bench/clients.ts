import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { type BenchWorld, percentile } from './world.ts';

/** Requests that are in flight at once, in each row that has clients. */
export const IN_FLIGHT = 64;

/** What became of a row's requests. */
export interface Rates {
  readonly per_second: number;
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly in_flight: number;
}

/** Sends `count` requests, {@link IN_FLIGHT} at a time, each of which `send` answers by its index. */
export async function runClients(count: number, send: (index: number) => Promise<void>): Promise<Rates> {
  const latencies: number[] = [];
  let next = 0;
  const client = async () => {
    for (let index = next++; index < count; index = next++) {
      const sent = performance.now();
      await send(index);
      latencies.push(performance.now() - sent);
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: IN_FLIGHT }, client));
  return {
    per_second: Math.round((count * 1000) / (performance.now() - start)),
    p50_ms: percentile(latencies, 0.5),
    p99_ms: percentile(latencies, 0.99),
    in_flight: IN_FLIGHT,
  };
}

/** Group commits since the hivemind started. */
export async function commits(world: BenchWorld): Promise<number> {
  return (await world.metrics()).get('spns_database_commits_total') ?? Number.NaN;
}

/** Milliseconds of CPU for each of `count`, rounded to microseconds. */
export function msEach<Name extends string>(seconds: Record<Name, number>, count: number): Record<Name, number> {
  const each = Object.entries<number>(seconds).map(([name, used]) => [name, Math.round((used * 1e6) / count) / 1000]);
  return Object.fromEntries(each) as Record<Name, number>;
}

/**
 * The front-end's clients: a connection for each request in flight. They write and read no more of HTTP than this
 * takes, for Node's own client costs as much as a front-end's answer.
 */
export class HttpClients {
  readonly #idle: net.Socket[] = [];
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Posts an onion request; resolves with the body of an answer whose status is 200. */
  async post(body: Buffer): Promise<Buffer> {
    const socket = this.#idle.pop() ?? (await connect(this.#socketPath));
    socket.write(
      `POST /oxen/v4/lsrpc HTTP/1.1\r\nhost: bench\r\ncontent-type: application/octet-stream\r\ncontent-length: ${body.length}\r\n\r\n`,
      'latin1',
    );
    socket.write(body);
    const answer = await readAnswer(socket);
    this.#idle.push(socket);
    return answer;
  }

  close(): void {
    for (const socket of this.#idle) socket.destroy();
  }
}

async function connect(socketPath: string): Promise<net.Socket> {
  const socket = net.connect({ path: socketPath });
  await once(socket, 'connect');
  return socket;
}

function readAnswer(socket: net.Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let data: Buffer = Buffer.alloc(0);
    const done = () => {
      socket.off('data', take);
      socket.off('error', reject);
      socket.off('close', lost);
    };
    const lost = () => reject(new Error('the connection was closed'));
    const take = (chunk: Buffer) => {
      data = data.length === 0 ? chunk : Buffer.concat([data, chunk]);
      const end = data.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = data.toString('latin1', 0, end);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1]);
      if (data.length < end + 4 + length) return;
      done();
      if (head.startsWith('HTTP/1.1 200')) resolve(data.subarray(end + 4));
      else reject(new Error(`unexpected answer: ${head}`));
    };
    socket.on('data', take);
    socket.on('error', reject);
    socket.on('close', lost);
  });
}

/** A process that answers every request at once (bench/answerer.ts), to find out what clients can do at most. */
export interface Answerer {
  readonly pid: number;
  /** For OxenMQ. */
  readonly address: string;
  /** For HTTP, the path of a Unix socket. */
  readonly socketPath: string;
  stop(): Promise<void>;
}

export async function startAnswerer(): Promise<Answerer> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-bench-'));
  const address = `ipc://${folder}/omq.sock`;
  const socketPath = path.join(folder, 'http.sock');
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'answerer.ts'), address, socketPath], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [word] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (word !== 'listening') throw new Error('the process that answers at once did not start');
  return {
    pid: child.pid as number,
    address,
    socketPath,
    async stop() {
      child.kill();
      await once(child, 'exit');
      await fs.rm(folder, { recursive: true, force: true });
    },
  };
}
