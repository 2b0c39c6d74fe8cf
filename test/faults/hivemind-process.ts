import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { type Account, sessionAccount } from '../../src/devnet/account.ts';
import { type Network, startNetwork } from '../../src/devnet/network.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import type { Notification } from '../../src/session/notification.ts';
import { ended } from '../support/once.ts';
import { createDatabase } from '../support/postgres.ts';
import { subscribe } from '../support/requests.ts';
import { message, TestNotifier } from '../support/session-world.ts';
import { until } from '../support/until.ts';

const MAIN = path.join(import.meta.dirname, '../../src/hivemind/main.ts');

export interface ProcessWorld {
  readonly network: Network;
  readonly notifier: TestNotifier;
  readonly client: Connection;
  readonly accounts: readonly Account[];
  readonly child: ReturnType<typeof spawn>;
  readonly output: () => string;
  readonly ended: Promise<number | NodeJS.Signals>;
}

/**
 * A hivemind as a process of its own in one swarm of five storage servers, with a notifier, and accounts that are
 * monitored.
 */
export async function startProcess(
  t: TestContext,
  count: number,
  settings: Record<string, number> = {},
): Promise<ProcessWorld> {
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 5, swarms: 1 });
  t.after(() => network.stop());
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-fault-'));
  const address = `ipc://${folder}/hivemind.sock`;
  await fs.writeFile(path.join(folder, 'key'), randomBytes(32), { mode: 0o600 });
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`);
  await fs.writeFile(
    path.join(folder, 'spns.ini'),
    `[db]\nurl = ${await createDatabase(t)}\n[keys]\nhivemind = ${folder}/key\n[hivemind]\nlisten = ${address}\n` +
      `oxend_rpc = ${network.oxend.address}\nallow_private_nodes = yes\nstartup_wait = 0\n${lines.join('')}`,
  );
  const child = spawn(process.execPath, [MAIN], {
    env: { ...process.env, SPNS_CONFIG: path.join(folder, 'spns.ini') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  const end = ended(child);
  const peers: Peers[] = [];
  const connect: ConstructorParameters<typeof TestNotifier>[0]['connect'] = (commands = {}) => {
    const one = new Peers({ clock: systemClock, commands, helloTimeout: 60_000 });
    peers.push(one);
    return one.connect(parseAddress(address));
  };
  t.after(async () => {
    await Promise.all(peers.map((one) => one.close()));
    child.kill('SIGKILL');
    await end;
    await fs.rm(folder, { recursive: true, force: true });
  });
  const notifier = new TestNotifier({ connect });
  const client = connect();
  await client.request('admin.get_stats', [], 60_000);
  await notifier.register();
  const accounts = Array.from({ length: count }, () => sessionAccount(randomBytes));
  const body = accounts.map((account, index) => subscribe(account, `phone ${index}`));
  await client.request('push.subscribe', [JSON.stringify(body)], 60_000);
  await until(() => network.servers.every(({ server }) => server.monitors === count));
  return { network, notifier, client, accounts, child, output: () => output, ended: end };
}

/**
 * Messages to the accounts in turn, at all their storage servers, as fast as this machine lets those tell them.
 * @returns how many notifications went out
 */
export async function deliver({ network, accounts }: ProcessWorld, count: number, to: Notification[]): Promise<number> {
  let sent = 0;
  for (let index = 0; index < count; index++) {
    const one = message(accounts[to.length % accounts.length]!, 'x'.repeat(300));
    to.push(one);
    sent += network.deliver(one);
    // A server has room for some 2,000 that have not left.
    if (index % 200 === 199) await new Promise((resolve) => setImmediate(resolve));
  }
  return sent;
}
