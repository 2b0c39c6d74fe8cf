import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { type Account, sessionAccount } from '../../../src/devnet/account.ts';
import { startNetwork } from '../../../src/devnet/network.ts';
import { startTestHivemind, type TestHivemind } from '../../support/hivemind.ts';
import { subscribe } from '../../support/requests.ts';
import { message, TestNotifier } from '../../support/session-world.ts';
import { until } from '../../support/until.ts';

/** A figure of its metrics; of several with that outcome or of all. */
async function figure({ registry }: TestHivemind, name: string, labels: Record<string, string> = {}): Promise<number> {
  const { values } = (await registry.getSingleMetric(name)?.get()) ?? { values: [] };
  const wanted = values.filter(({ labels: its }) => Object.entries(labels).every(([key, value]) => its[key] === value));
  return wanted.reduce((sum, { value }) => sum + value, 0);
}

test('two hiveminds hear of each message, one sends its push, and when one stops the other sends them all', async (t) => {
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 6, swarms: 2 });
  t.after(() => network.stop());
  const secret = randomBytes(32);
  const start = (instance: string, database?: string) =>
    startTestHivemind(t, {
      secret,
      ...(database !== undefined && { database }),
      settings: { instance, oxend_rpc: network.oxend.address, allow_private_nodes: 'yes' },
    });
  const a = await start('a');
  const b = await start('b', a.database);
  const both = [a, b];
  const id = randomBytes(16);
  const notifiers = await Promise.all(both.map((hivemind) => new TestNotifier(hivemind).register(id)));
  const sealed = () => notifiers.flatMap((notifier) => notifier.sealed);

  const accounts: Account[] = [];
  const client = a.connect();
  for (let n = 0; n < 20; n++) {
    const account = sessionAccount(randomBytes);
    accounts.push(account);
    const [reply] = await client.request('push.subscribe', [JSON.stringify(subscribe(account, `phone ${n}`))]);
    assert.match(String(reply), /"success":true/);
  }
  for (const hivemind of both) {
    await until(async () => {
      const hasAll = (await figure(hivemind, 'spns_accounts')) === accounts.length;
      return hasAll && (await figure(hivemind, 'spns_cluster_slots', { state: 'full' })) === 256;
    });
  }

  for (const account of accounts) for (const text of ['one', 'two']) network.deliver(message(account, text));
  const fingerprints = () => new Set(sealed().map(({ fingerprint }) => fingerprint?.toString('hex')));
  const sum = async (name: string, labels?: Record<string, string>) =>
    (await Promise.all(both.map((hivemind) => figure(hivemind, name, labels)))).reduce((all, one) => all + one, 0);
  await until(async () => {
    const copies = await sum('spns_cluster_copies_total');
    return fingerprints().size >= 40 && copies >= 40 && (await sum('spns_cluster_pushes_held')) === 0;
  });
  assert.equal(fingerprints().size, 40);
  // On a machine that is busy a second of silence may pass, and the notifier would see the copy.
  const sentAfterAll =
    (await sum('spns_cluster_copies_total')) - (await sum('spns_cluster_copies_total', { outcome: 'ended' }));
  assert.ok(sealed().length <= 40 + sentAfterAll, `${sealed().length} sealed, ${sentAfterAll} sent after all`);
  for (const notifier of notifiers) assert.ok(notifier.sealed.length > 0, 'each is first for some');

  await b.stop();
  const [rest] = notifiers;
  assert.ok(rest);
  const before = rest.sealed.length;
  for (const account of accounts) network.deliver(message(account, 'three'));
  await until(() => rest.sealed.length >= before + 20);
  assert.equal(fingerprints().size, 60);
});
