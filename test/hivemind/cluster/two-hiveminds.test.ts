import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { startNetwork } from '../../../src/devnet/network.ts';
import { pushedHashes } from '../../faults/support.ts';
import { startTestHivemind, type TestHivemind } from '../../support/hivemind.ts';
import { createDatabase } from '../../support/postgres.ts';
import { seconds, subscribe, unsubscribe } from '../../support/requests.ts';
import { message, TestNotifier } from '../../support/session-world.ts';
import { until } from '../../support/until.ts';
import { accountOf, copiesOf, untilHeard, untilWhole } from './several.ts';

const SECRET = randomBytes(32);

/** A network and a database, on which hiveminds can be started by name. */
async function world(t: TestContext) {
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 6, swarms: 2 });
  t.after(() => network.stop());
  const database = await createDatabase(t);
  const start = (instance: string, settings: Record<string, string | number> = {}) =>
    startTestHivemind(t, {
      database,
      secret: SECRET,
      settings: {
        ...(instance && { instance }),
        oxend_rpc: network.oxend.address,
        allow_private_nodes: 'yes',
        ...settings,
      },
    });
  return { network, start };
}

async function ask(hivemind: TestHivemind, command: string, ...parts: string[]): Promise<unknown> {
  const [body] = await hivemind.ask(command, ...parts);
  return JSON.parse(String(body));
}

test('two hiveminds cover every slot twice, and each takes subscriptions for both', async (t) => {
  const { network, start } = await world(t);
  const [a, b] = [await start('a'), await start('b')];
  const notifiers = [await new TestNotifier(a).register(), await new TestNotifier(b).register()];
  await untilWhole([a, b]);
  const accounts = Array.from({ length: 20 }, (_, n) => accountOf(n % 4 < 2 ? 'a' : 'b'));
  for (const [n, account] of accounts.entries()) {
    const to = n % 2 === 0 ? a : b;
    const answer = await ask(to, 'push.subscribe', JSON.stringify(subscribe(account, `token ${n}`)));
    assert.deepEqual(answer, { added: true, message: 'Subscription successful', success: true });
  }
  await untilHeard(network, accounts, 2);
  await untilWhole([a, b]);
  const messages = accounts.map((account) => message(account, 'hello'));
  for (const one of messages) network.deliver(one);
  const hashes = messages.map(({ hash }) => String(hash));
  const came = () => pushedHashes(notifiers).filter((hash) => hashes.includes(hash));
  await until(async () => {
    const { held, settled } = await copiesOf([a, b]);
    return new Set(came()).size === hashes.length && settled >= hashes.length && held === 0;
  });
  const { settled, ended } = await copiesOf([a, b]);
  const mayBeSent = settled - ended;
  assert.ok(
    came().length <= hashes.length + mayBeSent,
    `${came().length} came, ${mayBeSent} copies may have been sent`,
  );
  assert.ok(
    notifiers.every(({ sealed }) => sealed.length > 0),
    'they share the work',
  );
});

test('what one writes the other knows: renewals and unsubscriptions', async (t) => {
  const { start } = await world(t);
  const [a, b] = [await start('a'), await start('b')];
  await new TestNotifier(a).register();
  await new TestNotifier(b).register();
  const account = sessionAccount(randomBytes);
  const known = async (hivemind: TestHivemind) =>
    ((await ask(hivemind, 'admin.get_stats')) as { accounts_monitored: number }).accounts_monitored;
  await ask(a, 'push.subscribe', JSON.stringify(subscribe(account, 'phone', { at: seconds() - 10 })));
  await until(async () => (await known(b)) === 1);
  const renewed = await ask(b, 'push.subscribe', JSON.stringify(subscribe(account, 'phone')));
  assert.deepEqual(renewed, { message: 'Resubscription successful', success: true, updated: true });
  const removed = await ask(b, 'push.unsubscribe', JSON.stringify(unsubscribe(account, 'phone')));
  assert.equal((removed as { removed: boolean }).removed, true);
  await until(async () => (await known(a)) === 0);
});

test('a second hivemind of the same name, one without a name, and one with other settings say who is in the way', async (t) => {
  const { start } = await world(t);
  const a = await start('a');
  await assert.rejects(start('a'), /Another hivemind named a is at work on this database/);
  await assert.rejects(start(''), /A hivemind with a name is at work on this database/);
  await assert.rejects(
    start('b', { copies: 3 }),
    /The hivemind a works on this database with copies = 2, this one has 3/,
  );
  assert.deepEqual(a.gaveUp, []);
});
