import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { encodeV4Request, encryptOnion, parseV4Response } from '../src/session/onion.ts';
import { x25519Public } from '../src/session/sodium.ts';
import { cpuSeconds } from './cpu.ts';
import { type BenchWorld, makeAccounts, measureCpu, percentile, round, subscribeRequest } from './world.ts';

const COUNT = 4_000;
const IN_FLIGHT = 64;

/** New subscriptions as phones send them: onion requests of both ciphers in turn, to one front-end process. */
export async function onionRequests(world: BenchWorld): Promise<object> {
  const web = spawn(process.execPath, [path.join(import.meta.dirname, '../src/web/main.ts')], {
    env: { ...process.env, SPNS_CONFIG: world.config },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
  const send = (body: Buffer) => post(world.webSocket, agent, body);
  try {
    await isListening(web, send);
    const now = Math.floor(Date.now() / 1000);
    const serverKey = x25519Public(world.onionKey);
    // Encrypted beforehand, and the answers opened afterwards: that is the phones' work.
    const requests = makeAccounts(COUNT).map((account, index) => {
      const body = Buffer.from(subscribeRequest(account, randomBytes(32).toString('hex'), now));
      const request = encodeV4Request({ method: 'POST', endpoint: '/subscribe', headers: {}, body });
      return encryptOnion(request, serverKey, index % 2 === 0 ? 'xchacha20' : 'aes-gcm');
    });
    const answers: Buffer[] = [];
    const latencies: number[] = [];
    const cpu = measureCpu(world);
    const webBefore = cpuSeconds(web.pid as number);
    const start = performance.now();
    let next = 0;
    const client = async () => {
      for (let index = next++; index < COUNT; index = next++) {
        const sent = performance.now();
        answers[index] = await send((requests[index] as { body: Buffer }).body);
        latencies.push(performance.now() - sent);
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, client));
    const seconds = (performance.now() - start) / 1000;
    const used = { web: round(cpuSeconds(web.pid as number) - webBefore), ...cpu() };
    for (const [index, { open }] of requests.entries()) {
      const { body } = parseV4Response(open(answers[index] as Buffer));
      if (!body.includes('"added":true')) throw new Error(`unexpected answer: ${body}`);
    }
    return {
      row: 'subscriptions by onion requests',
      per_second: Math.round(COUNT / seconds),
      p50_ms: percentile(latencies, 0.5),
      p99_ms: percentile(latencies, 0.99),
      web_ms_each: round((used.web * 1000) / COUNT),
      in_flight: IN_FLIGHT,
      seconds: round(seconds),
      cpu_seconds: used,
    };
  } finally {
    agent.destroy();
    web.kill('SIGTERM');
    await once(web, 'exit');
  }
}

async function isListening(web: ChildProcess, send: (body: Buffer) => Promise<Buffer>): Promise<void> {
  while (web.exitCode === null) {
    // Anything at all that answers.
    if (await send(Buffer.alloc(1)).then(Boolean, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('the front-end has ended');
}

function post(socketPath: string, agent: http.Agent, body: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, agent, method: 'POST', path: '/oxen/v4/lsrpc' }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve(Buffer.concat(chunks)));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}
