import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeV4Request, encryptOnion, parseV4Response } from '../src/session/onion.ts';
import { x25519Public } from '../src/session/sodium.ts';
import { commits, HttpClients, msEach, runClients, startAnswerer } from './clients.ts';
import { cpuSeconds } from './cpu.ts';
import {
  type BenchWorld,
  daemonEnvironment,
  makeAccounts,
  measureCpu,
  nodeFlags,
  round,
  subscribeRequest,
} from './world.ts';

const COUNT = 4_000;

/**
 * New subscriptions as phones send them: onion requests of both ciphers in turn, to one front-end process; and what the
 * clients alone can send.
 */
export async function* onionRequests(world: BenchWorld): AsyncGenerator<object> {
  const now = Math.floor(Date.now() / 1000);
  const serverKey = x25519Public(world.onionKey);
  // Encrypted beforehand, and the answers opened afterwards: that is the phones' work.
  const requests = makeAccounts(COUNT).map((account, index) => {
    const body = Buffer.from(subscribeRequest(account, randomBytes(32).toString('hex'), now));
    const request = encodeV4Request({ method: 'POST', endpoint: '/subscribe', headers: {}, body });
    return encryptOnion(request, serverKey, index % 2 === 0 ? 'xchacha20' : 'aes-gcm');
  });
  const web = spawn(process.execPath, [...nodeFlags(), path.join(import.meta.dirname, '../src/web/main.ts')], {
    env: daemonEnvironment('web', world.config),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const clients = new HttpClients(world.webSocket);
  try {
    await listens(world.webSocket);
    const pid = web.pid as number;
    const answers: Buffer[] = [];
    const commitsBefore = await commits(world);
    const cpu = measureCpu(world);
    const webBefore = [cpuSeconds(pid, true), cpuSeconds(pid)] as const;
    const rates = await runClients(COUNT, async (index) => {
      answers[index] = await clients.post(requests[index]!.body);
    });
    const used = { webMainThread: cpuSeconds(pid, true) - webBefore[0], web: cpuSeconds(pid) - webBefore[1], ...cpu() };
    const group = COUNT / ((await commits(world)) - commitsBefore);
    for (const [index, { open }] of requests.entries()) {
      const { body } = parseV4Response(open(answers[index] as Buffer));
      if (!body.includes('"added":true')) throw new Error(`unexpected answer: ${body}`);
    }
    yield {
      row: 'subscriptions by onion requests',
      ...rates,
      rows_a_commit: round(group),
      cpu_ms_each: msEach(used, COUNT),
    };
  } finally {
    clients.close();
    web.kill('SIGTERM');
    await once(web, 'exit');
  }
  yield await clientsAlone(requests[0]!.body);
}

/** Resolves when somebody answers there, whatever it is. */
async function listens(socketPath: string): Promise<void> {
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const clients = new HttpClients(socketPath);
    const answer = await clients.post(Buffer.alloc(1)).catch((error: Error) => error);
    clients.close();
    if (!(answer instanceof Error) || answer.message.startsWith('unexpected')) return;
    await sleep(10);
  }
  throw new Error('the front-end does not listen');
}

/** The same request to a process that answers at once. */
async function clientsAlone(body: Buffer): Promise<object> {
  const answerer = await startAnswerer();
  const clients = new HttpClients(answerer.socketPath);
  try {
    const { pid } = answerer;
    const before = [cpuSeconds(pid), cpuSeconds(process.pid)] as const;
    const rates = await runClients(COUNT, async () => void (await clients.post(body)));
    const used = { answerer: cpuSeconds(pid) - before[0], load: cpuSeconds(process.pid) - before[1] };
    return { row: 'onion requests, clients alone', ...rates, cpu_ms_each: msEach(used, COUNT) };
  } finally {
    clients.close();
    await answerer.stop();
  }
}
