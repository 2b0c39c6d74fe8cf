import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { type Account, sessionAccount } from '../../src/devnet/account.ts';
import { startNetwork } from '../../src/devnet/network.ts';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import type { Connection } from '../../src/oxenmq/peers.ts';
import { openPayload } from '../../src/session/payload.ts';
import { startTestHivemind, type TestHivemind } from '../support/hivemind.ts';
import { createDatabase } from '../support/postgres.ts';
import { subscribe } from '../support/requests.ts';
import { message } from '../support/session-world.ts';
import { until } from '../support/until.ts';
import { startProcess, writeConfig } from './process.ts';
import { folder } from './support.ts';

const KEY = Buffer.alloc(32, 9);
const SERVERS = 2;
/** Messages to each phone that may be on their way at the same time. */
const AHEAD = 10;

interface Member {
  readonly hivemind: TestHivemind;
  /** A client of its own. */
  readonly client: Connection;
}

interface Phone {
  readonly account: Account;
  readonly token: string;
}

/** Two hiveminds on one database and one network, and a notifier whose settings name the first. */
async function startSuite(t: TestContext) {
  const path = await folder(t);
  const fake = await startFakeApns();
  t.after(() => fake.close());
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: SERVERS, swarms: 1 });
  t.after(() => network.stop());
  const database = await createDatabase(t);
  const secret = randomBytes(32);
  const start = async (instance: string): Promise<Member> => {
    const listen = `ipc://${path}/${instance}.sock`;
    const settings = { instance, listen, oxend_rpc: network.oxend.address, allow_private_nodes: 'yes' };
    const hivemind = await startTestHivemind(t, { database, secret, settings });
    return { hivemind, client: hivemind.connect({}, listen) };
  };
  const [a, b] = [await start('a'), await start('b')];
  const settings = await fake.settings(path);
  const config = await writeConfig(path, 'apns', { endpoint: `ipc://${path}/a.sock` }, settings, secret);
  const notifier = startProcess(t, config, 'apns');

  /** How often each text came to each phone. */
  const times = new Map<string, number>();
  fake.taken.onPush = ({ token, payload }) => {
    const got = `${token} ${openPayload(payload, KEY).data}`;
    times.set(got, (times.get(got) ?? 0) + 1);
  };
  const write = (phones: readonly Phone[], text: string) => {
    for (const { account } of phones) network.deliver(message(account, text));
  };
  return { fake, network, start, a, b, notifier, times, write };
}

async function ask<T>({ client }: Member, command: string, ...parts: string[]): Promise<T> {
  const [body] = await client.request(command, parts);
  return JSON.parse(String(body));
}

async function hasNotifier(member: Member): Promise<boolean> {
  const services = await ask<{ service: string; notifiers: number }[]>(member, 'admin.get_services');
  return services.some(({ service, notifiers }) => service === 'apns' && notifiers === 1);
}

async function subscribeAll(member: Member, count: number): Promise<Phone[]> {
  const phones = Array.from({ length: count }, () => ({
    account: sessionAccount(randomBytes),
    token: randomBytes(32).toString('hex'),
  }));
  const elements = phones.map(({ account, token }) => ({
    ...subscribe(account, token, { key: KEY }),
    service: 'apns',
  }));
  const answers = await ask<{ success?: boolean }[]>(member, 'push.subscribe', JSON.stringify(elements));
  for (const { success } of answers) assert.ok(success, JSON.stringify(answers));
  return phones;
}

test('two hiveminds are restarted one after the other while messages come: each phone gets each message once', async (t) => {
  const suite = await startSuite(t);
  const { b } = suite;
  let { a } = suite;
  await until(() => hasNotifier(a));
  await until(() => hasNotifier(b));
  const phones = await subscribeAll(b, 40);
  // Both have every account monitored by both servers.
  const monitored = () => suite.network.servers.every(({ server }) => server.monitors === 2 * phones.length);
  await until(monitored);
  let [written, writing] = [0, true];
  const writer = (async () => {
    for (; writing; written++) {
      // On a busy machine more than a hivemind can read before it stops would pile up.
      await until(() => suite.times.size >= (written - AHEAD) * phones.length);
      suite.write(phones, `message ${written}`);
      await sleep(50);
    }
  })();
  await until(() => written >= 10);
  await a.hivemind.stop();
  let before = written;
  await until(() => written >= before + 20);
  a = await suite.start('a');
  await until(() => hasNotifier(a));
  await until(monitored);
  before = written;
  await until(() => written >= before + 20);
  await b.hivemind.stop();
  before = written;
  await until(() => written >= before + 20);
  writing = false;
  await writer;
  const count = written * phones.length;
  await until(() => suite.times.size === count);
  const twice = [...suite.times.values()].filter((times) => times > 1).length;
  t.diagnostic(`${count} pushes, ${twice} of them taken twice`);
  assert.equal(twice, 0);
  assert.equal(await suite.notifier.end('SIGTERM'), 0, suite.notifier.output());
});
