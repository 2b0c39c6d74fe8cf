import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { until } from '../support/until.ts';
import { FakeHivemind } from './fake-hivemind.ts';
import { type NotifierProcess, startProcess, writeConfig } from './process.ts';
import { apnsToken, folder } from './support.ts';

/** Has the process read its configuration again, and resolves when it has said what came of it. */
async function reload(notifier: NotifierProcess): Promise<string> {
  const before = notifier.output().length;
  notifier.child.kill('SIGHUP');
  const said = () => /reloaded|is refused, the old one/.test(notifier.output().slice(before));
  await until(said);
  return notifier.output().slice(before);
}

test('new credentials are adopted under load, and no push is lost or doubled', async (t) => {
  const path = await folder(t);
  const times = new Map<string, number>();
  const { promise: held, resolve: answer } = Promise.withResolvers<void>();
  const options: { held?: Promise<void> } = {};
  const fakes = await Promise.all([startFakeFcm(options), startFakeFcm()]);
  for (const fake of fakes) {
    t.after(() => fake.close());
    fake.taken.onPush = ({ token }) => times.set(token, (times.get(token) ?? 0) + 1);
  }
  const [first, second] = fakes;
  const hivemind = await FakeHivemind.start(t, 'firebase');
  const keys = { connections: '1' };
  const config = await writeConfig(path, 'firebase', hivemind, { ...(await first.settings(path)), ...keys });
  const notifier = startProcess(t, config, 'firebase');
  await hivemind.until(() => hivemind.instances.size === 1);
  const count = 2_000;
  hivemind.push(Array.from({ length: count }, (_, index) => ({ serviceId: `d${index}` })));
  await first.taken.reached(300);
  // So that there is something left to send, however long it takes to read the new settings.
  options.held = held;
  await writeConfig(path, 'firebase', hivemind, { ...(await second.settings(path)), ...keys });
  assert.match(await reload(notifier), /reloaded: the settings and credentials of firebase/);
  answer();
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.equal(times.size, count);
  assert.equal(first.taken.count + second.taken.count, count);
  assert.ok(second.taken.count > 0, 'the new project was used');
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
});

test('an invalid new credential is refused in a sentence, and the old one stays in use', async (t) => {
  const path = await folder(t);
  const fake = await startFakeFcm();
  t.after(() => fake.close());
  const hivemind = await FakeHivemind.start(t, 'firebase');
  const settings = await fake.settings(path);
  const notifier = startProcess(t, await writeConfig(path, 'firebase', hivemind, settings), 'firebase');
  await hivemind.until(() => hivemind.instances.size === 1);
  const good = await readFile(settings.token_file!, 'utf8');
  await writeFile(settings.token_file!, good.replace('-----BEGIN PRIVATE KEY-----', ''));
  const said = await reload(notifier);
  assert.match(said, /token_file.*has a private_key that cannot be read/);
  assert.match(said, /the new configuration is refused, the old one stays in force/);
  assert.doesNotMatch(said, /reloaded/);
  hivemind.push([{}, {}]);
  await hivemind.until(() => hivemind.accepted.size === 2);
  // Put back as it was, there is nothing to take over.
  await writeFile(settings.token_file!, good);
  assert.match(await reload(notifier), /reloaded: the configuration is as it was/);
  assert.equal(fake.tokensGiven, 1);
});

test('a key that is replaced under its old name is adopted, and what the provider had refused goes out at once', async (t) => {
  const path = await folder(t);
  const [fake, other] = await Promise.all([startFakeApns({ auth: 'token' }), startFakeApns({ auth: 'token' })]);
  for (const one of [fake, other]) t.after(() => one.close());
  const settings = await fake.settings(path);
  const wrong = await other.settings(path);
  const key = join(path, 'key.p8');
  await copyFile(wrong.key_file!, key);
  const hivemind = await FakeHivemind.start(t, 'apns');
  const config = await writeConfig(path, 'apns', hivemind, { ...settings, key_file: key, connections: '1' });
  const notifier = startProcess(t, config, 'apns');
  await hivemind.until(() => hivemind.instances.size === 1);
  const count = 300;
  hivemind.push(Array.from({ length: count }, (_, index) => ({ serviceId: apnsToken(index) })));
  await until(() => notifier.output().includes('sending nothing for'));
  assert.match(notifier.output(), /the provider does not accept us: InvalidProviderToken/);
  assert.equal(fake.taken.count, 0);
  const { connections } = fake;
  // Nothing has changed yet: no connection is made for it.
  assert.match(await reload(notifier), /reloaded: the configuration is as it was/);
  assert.equal(fake.connections, connections);
  await copyFile(settings.key_file!, key);
  assert.match(await reload(notifier), /reloaded: the settings and credentials of apns/);
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.equal(fake.taken.count, count);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
});
