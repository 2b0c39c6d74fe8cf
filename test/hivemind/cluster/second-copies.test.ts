import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import type { Account } from '../../../src/devnet/account.ts';
import { startNetwork } from '../../../src/devnet/network.ts';
import { startTestHivemind } from '../../support/hivemind.ts';
import { subscribe } from '../../support/requests.ts';
import { message, TestNotifier } from '../../support/session-world.ts';
import { until } from '../../support/until.ts';
import { accountOf, copiesOf, untilHeard, untilWhole } from './several.ts';

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
    const account = accountOf(n % 2 === 0 ? 'a' : 'b');
    accounts.push(account);
    const [reply] = await client.request('push.subscribe', [JSON.stringify(subscribe(account, `phone ${n}`))]);
    assert.match(String(reply), /"success":true/);
  }
  await untilHeard(network, accounts, both.length);
  await untilWhole(both);

  for (const account of accounts) for (const text of ['one', 'two']) network.deliver(message(account, text));
  const fingerprints = () => new Set(sealed().map(({ fingerprint }) => fingerprint?.toString('hex')));
  await until(async () => {
    const { held, settled } = await copiesOf(both);
    return fingerprints().size >= 40 && settled >= 40 && held === 0;
  });
  assert.equal(fingerprints().size, 40);
  const { settled, ended } = await copiesOf(both);
  const mayBeSent = settled - ended;
  assert.ok(sealed().length <= 40 + mayBeSent, `${sealed().length} sealed, ${mayBeSent} copies may have been sent`);
  for (const notifier of notifiers) assert.ok(notifier.sealed.length > 0, 'each is first for some');

  await b.stop();
  const [rest] = notifiers;
  assert.ok(rest);
  const before = rest.sealed.length;
  for (const account of accounts) network.deliver(message(account, 'three'));
  await until(() => rest.sealed.length >= before + 20);
  assert.equal(fingerprints().size, 60);
});
