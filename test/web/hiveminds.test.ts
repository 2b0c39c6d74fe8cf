import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Incoming } from '../../src/oxenmq/remote.ts';
import { encodeMembers } from '../../src/session/members.ts';
import type { Hivemind } from '../../src/web/hivemind.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/until.ts';
import { connect, fakeHivemind } from './fake-hivemind.ts';

type Fake = Awaited<ReturnType<typeof fakeHivemind>>;
type Answer = (request: Incoming) => void;

/** Hiveminds of one cluster that know of each other; who is not started is known and away. */
async function cluster(t: TestContext, answers: Record<string, Answer>) {
  const fakes: Record<string, Fake> = {};
  /** Where others are said to be, and what is said instead of the list. */
  const others: { name: string; address: string }[] = [];
  const said: { instead?: Buffer; of?: string[] } = {};
  /** Who was asked for the list, which is the first that each is asked. */
  const listed = new Set<string>();
  const list = (own: string) => () => {
    listed.add(own);
    const names = said.of ?? Object.keys(fakes);
    const members = names.map((name) => ({ name, address: fakes[name]!.address }));
    return said.instead ?? encodeMembers({ own, members: [...members, ...others] });
  };
  for (const [name, answer] of Object.entries(answers)) {
    fakes[name] = await fakeHivemind(t, (_, request) => answer(request), list(name));
  }
  return { fakes, others, said, listed };
}

/** Polls, while time passes: twenty times as fast as on the wall, so that sockets keep up with it on a busy machine. */
function later(clock: FakeClock, condition: () => boolean): Promise<void> {
  return until(async () => {
    await clock.advance(60);
    return condition();
  }, 3);
}

const says =
  (text: string): Answer =>
  (request) =>
    request.reply(text, 'final');

async function ask(hivemind: Hivemind, body = '{}'): Promise<string> {
  const outcome = await hivemind.ask('push.subscribe', Buffer.from(body));
  return outcome.kind === 'reply' ? String(outcome.data) : outcome.kind;
}

test('from one hivemind it learns of the others, and switches to another when that one dies', async (t) => {
  const { fakes, listed } = await cluster(t, { a: says('a'), b: says('b') });
  await fakes.a!.start();
  await fakes.b!.start();
  const { hivemind } = connect(t, fakes.a!.address);
  assert.equal(await ask(hivemind), 'a');
  await until(() => listed.has('b'));
  await fakes.a!.stop();
  assert.equal(await ask(hivemind), 'b');
  assert.ok(hivemind.connected);
  await until(() => hivemind.missing.length === 1);
  assert.deepEqual(hivemind.missing, [{ name: 'a', problem: 'the connection broke' }]);
});

test('what was with a hivemind when it died is asked of another one at once', async (t) => {
  const arrived = Promise.withResolvers<void>();
  const { fakes, listed } = await cluster(t, { a: () => arrived.resolve(), b: says('b') });
  await fakes.a!.start();
  await fakes.b!.start();
  const { hivemind } = connect(t, [fakes.a!.address, fakes.b!.address]);
  await until(() => listed.size === 2);
  const waiting = ask(hivemind, 'one');
  await arrived.promise;
  await fakes.a!.stop();
  assert.equal(await waiting, 'b');
  assert.deepEqual(
    fakes.b!.asked.map(({ body }) => String(body)),
    ['one'],
  );
});

test('a frozen hivemind gets no more than its share of what waits, and the others everything else', async (t) => {
  const { fakes, listed } = await cluster(t, { a: () => undefined, b: says('b') });
  await fakes.a!.start();
  await fakes.b!.start();
  const { hivemind } = connect(t, [fakes.a!.address, fakes.b!.address]);
  await until(() => listed.size === 2);
  const stuck = ask(hivemind, 'stuck');
  await until(() => fakes.a!.asked.length === 1);
  for (let n = 0; n < 20; n++) assert.equal(await ask(hivemind), 'b');
  assert.equal(fakes.a!.asked.length, 1);
  await fakes.a!.stop();
  assert.equal(await stuck, 'b');
});

test('a hivemind that joins is found, one that goes for good is left, and one that cannot be reached is named', async (t) => {
  const clock = new FakeClock();
  const { fakes, others, said, listed } = await cluster(t, { a: says('a'), b: says('b') });
  said.of = ['a'];
  others.push({ name: 'c', address: 'ipc:///nowhere/push.sock' }, { name: 'd', address: 'curve://127.0.0.1:1/key' });
  await fakes.a!.start();
  const { hivemind } = connect(t, fakes.a!.address, { clock });
  await later(clock, () => hivemind.missing.length === 2 && hivemind.missing[0]!.problem !== undefined);
  assert.deepEqual(
    hivemind.missing.map(({ name }) => name),
    ['c', 'd'],
  );
  assert.match(hivemind.missing[0]!.problem!, /nowhere/);
  assert.equal(hivemind.missing[1]!.problem, 'the address that it announces is invalid');
  assert.equal(await ask(hivemind), 'a');
  await fakes.b!.start();
  said.of = ['a', 'b'];
  others.length = 0;
  await later(clock, () => listed.has('b') && hivemind.missing.length === 0);
  await fakes.a!.stop();
  assert.equal(await ask(hivemind), 'b');
  said.of = ['b'];
  await later(clock, () => hivemind.missing.length === 0);
  assert.ok(hivemind.connected);
});

test('the same hivemind at two addresses is connected once, also one that others know by another address', async (t) => {
  const clock = new FakeClock();
  let lists = 0;
  const fake = await fakeHivemind(
    t,
    (_, request) => request.reply('a', 'final'),
    () => {
      lists++;
      return encodeMembers({ own: 'a', members: [{ name: 'a', address: `ipc:///${fake.folder}/hivemind.sock` }] });
    },
  );
  await fake.start();
  const { hivemind } = connect(t, [fake.address, `ipc://${fake.folder}/./hivemind.sock`], { clock });
  // The second has heard that it leads to the same one, and is closed.
  await until(() => lists === 2 && fake.clients() === 1);
  for (let n = 3; n < 7; n++) {
    await clock.advance(5_000);
    await until(() => lists >= n);
    // The answer has come once another request is answered.
    assert.equal(await ask(hivemind), 'a');
    assert.equal(lists, n);
  }
  assert.equal(fake.clients(), 1);
});

test('lists that nobody would send are ignored', async (t) => {
  const clock = new FakeClock();
  const { fakes, said } = await cluster(t, { a: says('a') });
  const members = Array.from({ length: 65 }, (_, n) => ({ name: `m${n}`, address: `ipc:///nowhere/${n}` }));
  for (const instead of [encodeMembers({ own: 'a', members }), Buffer.from('le'), Buffer.alloc(100_000, 'd')]) {
    said.instead = instead;
    await fakes.a!.start();
    const { hivemind, untilConnected } = connect(t, fakes.a!.address, { clock });
    await untilConnected(true);
    await clock.advance(10_000);
    assert.equal(await ask(hivemind), 'a');
    assert.deepEqual(hivemind.missing, []);
    await fakes.a!.stop();
  }
});

test('with none of them there a request waits, and is answered by whichever comes first', async (t) => {
  const { fakes } = await cluster(t, { a: says('a'), b: says('b') });
  const { hivemind } = connect(t, [fakes.a!.address, fakes.b!.address]);
  const waiting = ask(hivemind);
  await fakes.b!.start();
  assert.equal(await waiting, 'b');
});

test('what becomes of the connections is told once each: to any hivemind, and to each member of a cluster', async (t) => {
  const { fakes, listed } = await cluster(t, { a: says('a'), b: says('b') });
  const clock = new FakeClock();
  const { hivemind, told } = connect(t, fakes.a!.address, { clock });
  /** Everything so far, of which none says the same as the one before. */
  const taken = () => {
    assert.ok(
      told.every((text, n) => text !== told[n - 1]),
      told.join('; '),
    );
    return told.splice(0);
  };
  await clock.advance(40_000);
  assert.equal(told.at(-1), `false: ${hivemind.problem}`);
  assert.match(hivemind.problem ?? '', /hivemind\.sock/);
  for (const text of taken()) assert.match(text, /^false: /);
  await fakes.a!.start();
  await fakes.b!.start();
  const isGood = (text: string) => text.endsWith(': connected');
  await later(clock, () => listed.size === 2 && told.filter(isGood).length >= 3);
  assert.equal(hivemind.problem, undefined);
  assert.deepEqual(taken().filter(isGood).sort(), ['a: connected', 'b: connected', 'true: connected']);
  await fakes.b!.stop();
  await until(() => told.length > 0);
  await clock.advance(90_000);
  assert.ok(told.length > 1);
  const [first, ...rest] = taken();
  assert.equal(first, 'b: the connection broke', 'there is still a hivemind to ask');
  for (const text of rest) assert.match(text, /^b: .*hivemind\.sock/);
  await fakes.b!.start();
  await later(clock, () => told.includes('b: connected'));
  taken();
  await fakes.a!.stop();
  await fakes.b!.stop();
  await until(() => told.includes('false: the connection broke'));
  assert.deepEqual(taken().slice(0, 2).sort(), ['a: the connection broke', 'b: the connection broke']);
});

test('a member of a cluster is asked every five seconds which others there are', async (t) => {
  const clock = new FakeClock();
  let lists = 0;
  const fake = await fakeHivemind(
    t,
    (_, request) => request.reply('a', 'final'),
    () => {
      lists++;
      return encodeMembers({ own: 'a', members: [{ name: 'a', address: fake.address }] });
    },
  );
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address, { clock });
  await untilConnected(true);
  await until(() => lists === 1);
  // The first answer has come once another request is answered.
  assert.equal(await ask(hivemind), 'a');
  for (let n = 2; n < 6; n++) {
    await clock.advance(4_999);
    assert.equal(await ask(hivemind), 'a');
    assert.equal(lists, n - 1);
    await clock.advance(1);
    await until(() => lists === n);
    assert.equal(await ask(hivemind), 'a');
  }
});

test('of several hiveminds that have as much to do the first in the settings is asked', async (t) => {
  const { fakes, listed } = await cluster(t, { a: says('a'), b: says('b'), c: says('c') });
  for (const fake of Object.values(fakes)) await fake.start();
  const { hivemind } = connect(t, [fakes.b!.address, fakes.a!.address]);
  await until(() => listed.size === 3);
  for (let n = 0; n < 3; n++) assert.equal(await ask(hivemind), 'b');
});

test('a hivemind that is alone is asked once, for as long as the connection lasts', async (t) => {
  const clock = new FakeClock();
  let lists = 0;
  const fake = await fakeHivemind(
    t,
    (_, request) => request.reply('a', 'final'),
    () => {
      lists++;
      return null;
    },
  );
  await fake.start();
  const { hivemind, told } = connect(t, fake.address, { clock });
  assert.equal(await ask(hivemind), 'a');
  await until(() => lists === 1);
  assert.equal(await ask(hivemind), 'a');
  for (let n = 0; n < 4; n++) {
    await clock.advance(5_000);
    assert.equal(await ask(hivemind), 'a');
  }
  assert.deepEqual([lists, told, hivemind.missing], [1, ['true: connected'], []]);
});

test('one in the settings that does not say who it is within four seconds is no reason to wait with the others', async (t) => {
  const clock = new FakeClock();
  const { fakes, listed } = await cluster(t, { b: says('b'), c: says('c') });
  let asked = 0;
  const silent = await fakeHivemind(
    t,
    (_, request) => request.reply('silent', 'final'),
    () => {
      asked++;
      return undefined;
    },
  );
  for (const fake of [silent, ...Object.values(fakes)]) await fake.start();
  const { hivemind } = connect(t, [silent.address, fakes.b!.address], { clock });
  await until(() => asked === 1 && listed.has('b'));
  await until(() => hivemind.missing.length === 1);
  await clock.advance(3_999);
  assert.equal(await ask(hivemind), 'silent', 'it takes requests meanwhile');
  assert.equal(listed.has('c'), false);
  await clock.advance(1);
  await until(() => listed.has('c'));
  await until(() => hivemind.missing.length === 0);
});

test('a connection that was given up is made anew half a second later', async (t) => {
  const clock = new FakeClock();
  const fake = await fakeHivemind(t, (_, request) => request.reply('a', 'final'));
  const { hivemind, told, untilConnected } = connect(t, fake.address, { clock });
  await later(clock, () => told.length > 0);
  await fake.start();
  await clock.advance(500);
  await untilConnected(true);
  assert.equal(await ask(hivemind), 'a');
});
