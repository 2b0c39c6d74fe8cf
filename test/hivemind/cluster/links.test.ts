import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Clock, systemClock } from '../../../src/clock.ts';
import { Links } from '../../../src/hivemind/cluster/links.ts';
import { openListeners } from '../../../src/hivemind/listeners.ts';
import { keyPairFromSecret } from '../../../src/oxenmq/keys.ts';
import type { Commands, Remote } from '../../../src/oxenmq/remote.ts';
import { decodeHello, encodeHello, type Hello } from '../../../src/session/cluster-protocol.ts';
import type { HivemindSettings } from '../../../src/settings/hivemind.ts';
import { Happenings, openListener } from '../../oxenmq/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo } from '../../support/log.ts';
import { until } from '../../support/until.ts';

const SECRET = randomBytes(32);
const hello = (name: string, run = 1n): Hello => ({ name, run, version: '2.0.0' });

/** @param clock one that stands still where a stall of the machine must not pass for a member that is late */
function open(t: TestContext, secret = SECRET, clock: Clock = systemClock) {
  const log = new Happenings<string>();
  const links = new Links({
    clock,
    secret,
    routingId: Buffer.from('one of a kind'),
    own: hello('a'),
    log: logTo((text) => log.add(text)),
  });
  t.after(() => links.close());
  return { links, log, connected: () => log.first((text) => text.startsWith('connected')) };
}

/** A member that listens, and keeps what it is told. */
async function member(t: TestContext, own: Hello, more: Partial<HivemindSettings> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'spns-links-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const told = new Happenings<string>();
  const gone = new Happenings<Remote>();
  const greetings = new Happenings<Hello>();
  /** Whether it answers greetings. */
  const manners = { greets: true };
  const commands: Commands = {
    cluster: {
      access: 'admin',
      commands: {
        hello: {
          kind: 'request',
          handler: (message) => {
            greetings.add(decodeHello(message.parts[0]!));
            if (manners.greets) message.reply(encodeHello(own));
          },
        },
        leaving: { kind: 'command', handler: ({ parts }) => told.add(String(parts[0])) },
        progress: {
          kind: 'request',
          handler: (message) => {
            told.add(String(message.parts[0]));
            if (String(message.parts[0]) !== 'say nothing') message.reply();
          },
        },
      },
    },
  };
  const listeners = await openListeners({
    clock: systemClock,
    random: randomBytes,
    settings: {
      instance: own.name,
      listen: `ipc://${folder}/hivemind.sock`,
      listenCurveAdmin: [],
      ...more,
    } as unknown as HivemindSettings,
    secret: SECRET,
    commands,
    log: logTo(() => {}),
    stray: () => {},
    gone: (remote) => gone.add(remote),
  });
  const close = () => Promise.all(listeners.map((listener) => listener.close()));
  t.after(close);
  const address = `ipc://${folder}/hivemind.sock`;
  const curve = listeners
    .flatMap((one) => ('endpoint' in one ? [one.endpoint as string] : []))
    .find((one) => one.startsWith('tcp'));
  const key = keyPairFromSecret(SECRET).publicKey.toString('hex');
  return { own, address, curve: `${curve?.replace('tcp', 'curve')}/${key}`, told, gone, greetings, manners, close };
}

test('a request that was answered has arrived, and any other is not known to have', async (t) => {
  const b = await member(t, hello('b'));
  const { links, connected } = open(t, SECRET, new FakeClock());
  links.update([{ name: 'b', run: 1n, address: b.address }]);
  const has = (name: string, text: string) =>
    links.request(name, 'cluster.progress', [Buffer.from(text)]).then(
      () => true,
      () => false,
    );
  assert.equal(await has('b', 'too early'), false);
  await connected();
  assert.equal(await has('b', 'answer'), true);
  assert.equal(await has('c', 'nobody'), false);
  const unanswered = has('b', 'say nothing');
  await b.told.first((text) => text === 'say nothing');
  await b.close();
  assert.equal(await unanswered, false);
});

test('a member counts as reached once it has said who it is, and not before', async (t) => {
  const b = await member(t, hello('b'));
  const { links, connected } = open(t, SECRET, new FakeClock());
  links.update([{ name: 'b', run: 1n, address: b.address }]);
  assert.equal(links.send('b', 'cluster.leaving', Buffer.from('too early')), false);
  await connected();
  assert.deepEqual(links.reached, ['b']);
  assert.equal(links.send('b', 'cluster.leaving', Buffer.from('hear')), true);
  await b.told.first((text) => text === 'hear');
  assert.deepEqual(b.greetings.all, [hello('a')]);
  assert.equal(links.send('c', 'cluster.leaving', Buffer.from('nobody')), false);

  links.update([]);
  await b.gone.first(() => true);
  assert.equal(links.send('b', 'cluster.leaving', Buffer.from('gone')), false);
});

test("with the cluster's key a member on another machine is admitted, with another one it is not", async (t) => {
  const b = await member(t, hello('b'), { listenCurve: 'tcp://127.0.0.1:*' });
  const { links, connected } = open(t);
  links.update([{ name: 'b', run: 1n, address: b.curve }]);
  await connected();
  links.send('b', 'cluster.leaving', Buffer.from('encrypted'));
  await b.told.first((text) => text === 'encrypted');

  const stranger = open(t, randomBytes(32));
  stranger.links.update([{ name: 'b', run: 1n, address: b.curve }]);
  await stranger.log.first((text) => text.startsWith('the hivemind b cannot be reached'));
  assert.deepEqual(stranger.links.reached, []);
});

test('another hivemind at that address is not taken for the one that is meant', async (t) => {
  const c = await member(t, hello('c'));
  const { links, log } = open(t);
  links.update([{ name: 'b', run: 1n, address: c.address }]);
  await log.first(
    (text) =>
      text ===
      `the hivemind b cannot be reached: at ${c.address} there is the hivemind c: do both advertise the same address?`,
  );
  assert.equal(links.send('b', 'cluster.leaving', Buffer.from('x')), false);
  assert.deepEqual(
    links.troubles.map(({ name }) => name),
    ['b'],
  );
});

test('a member with an invalid address is complained about once, and so is one where nobody listens, until it comes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-links-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const address = `ipc://${folder}/late.sock`;
  const { links, log, connected } = open(t);
  links.update([
    { name: 'odd', run: 1n, address: 'nowhere' },
    { name: 'unknown', run: 1n, address: '' },
    { name: 'late', run: 1n, address },
  ]);
  assert.match(log.all[0]!, /^the hivemind odd cannot be reached: nowhere is not an address/);
  assert.deepEqual(links.reached, []);
  await log.first((text) => text.startsWith('the hivemind late cannot be reached'));
  await member(t, hello('late'), { listen: address });
  await connected();
  assert.deepEqual(links.reached, ['late']);
  assert.equal(log.all.filter((text) => text.includes('odd')).length, 1);
  assert.equal(
    log.all.some((text) => text.includes('unknown')),
    false,
  );
});

test('the next run of a member is connected anew, and counts only once it is the one that is meant', async (t) => {
  const b = await member(t, hello('b', 2n));
  const { links, connected } = open(t);
  links.update([{ name: 'b', run: 1n, address: b.address }]);
  await b.greetings.first(() => true);
  links.update([{ name: 'b', run: 2n, address: b.address }]);
  await connected();
  assert.deepEqual(links.reached, ['b']);
});

test('a member has two seconds to greet and to answer, and a second later another attempt is made', async (t) => {
  const clock = new FakeClock();
  const folder = mkdtempSync(join(tmpdir(), 'spns-links-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const address = `ipc://${folder}/late.sock`;
  const { links, log, connected } = open(t, SECRET, clock);
  links.update([{ name: 'late', run: 1n, address }]);
  await clock.advance(1_999);
  assert.deepEqual([links.troubles, log.all], [[], []]);
  await clock.advance(1);
  const said = await log.first((text) => text.startsWith('the hivemind late cannot be reached: '));
  assert.ok(said.endsWith(`(${address})`), said);
  assert.deepEqual(
    links.troubles.map(({ name, trouble }) => `the hivemind ${name} cannot be reached: ${trouble}`),
    [said],
  );
  await assert.rejects(links.request('late', 'cluster.progress', []), { code: 'UNREACHABLE', message: /late.sock/ });
  await assert.rejects(links.request('nobody', 'cluster.progress', []), {
    code: 'UNREACHABLE',
    message: /not connected/,
  });
  const late = await member(t, hello('late'), { listen: address });
  await clock.advance(1_000);
  await connected();
  assert.deepEqual([links.reached, links.troubles], [['late'], []]);

  const failures: string[] = [];
  links.request('late', 'cluster.progress', ['say nothing']).catch(({ code }) => failures.push(code));
  await late.told.first((text) => text === 'say nothing');
  await clock.advance(1_999);
  assert.deepEqual(failures, []);
  await clock.advance(1);
  await until(() => failures.length > 0, 0);
  assert.deepEqual(failures, ['TIMEOUT']);
});

test('a member that was too busy to answer our greeting is greeted again', async (t) => {
  const clock = new FakeClock();
  const b = await member(t, hello('b'));
  const { links, log, connected } = open(t, SECRET, clock);
  b.manners.greets = false;
  links.update([{ name: 'b', run: 1n, address: b.address }]);
  await b.greetings.first(() => true);
  await clock.advance(2_000);
  await log.first(
    (text) => text === `the hivemind b cannot be reached: it has not answered our greeting (${b.address})`,
  );
  b.manners.greets = true;
  await clock.advance(1_000);
  await connected();
  assert.deepEqual([links.reached, links.troubles, b.greetings.all.length], [['b'], [], 2]);
});

test('a member whose connection breaks is complained about, and is reached again when it is back', async (t) => {
  const b = await member(t, hello('b'));
  const { links, log, connected } = open(t);
  links.update([{ name: 'b', run: 1n, address: b.address }]);
  await connected();
  await b.close();
  await log.first((text) => text === `the hivemind b cannot be reached: the connection broke (${b.address})`);
  assert.deepEqual(links.reached, []);
  await member(t, hello('b'), { listen: b.address });
  await log.when((all) => all.filter((text) => text.startsWith('connected to the hivemind b at '))[1]);
  assert.deepEqual([links.reached, links.troubles], [['b'], []]);
});

test('a member that has moved is connected at its new address, and no more at the old one', async (t) => {
  const [before, after] = [await member(t, hello('b')), await member(t, hello('b'))];
  const { links, log } = open(t, SECRET, new FakeClock());
  for (const { address } of [before, after]) {
    links.update([{ name: 'b', run: 1n, address }]);
    await log.first((text) => text === `connected to the hivemind b at ${address}`);
  }
  await before.gone.first(() => true);
  // To say the same again changes nothing.
  links.update([{ name: 'b', run: 1n, address: after.address }]);
  assert.equal(links.send('b', 'cluster.leaving', Buffer.from('moved')), true);
  await after.told.first((text) => text === 'moved');
  assert.deepEqual(before.told.all, []);
  assert.equal(after.greetings.all.length, 1);
});

test('what is no hivemind of a cluster is told by what it answers', async (t) => {
  const alone = await openListener(t, { commands: {} });
  const { links, log } = open(t);
  links.update([{ name: 'b', run: 1n, address: alone.endpoint }]);
  await log.first((text) =>
    /^the hivemind b cannot be reached: what answers at .* is not a hivemind of a cluster/.test(text),
  );
  assert.deepEqual(links.reached, []);
});
