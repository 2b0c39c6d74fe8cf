import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hearing, type Speaker } from '../../../src/hivemind/cluster/hearing.ts';
import { encodeNotification } from '../../../src/session/notification.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { seededRandom } from '../../support/random.ts';

const SECOND = 1_000;
const random = seededRandom(3);
const sender = (name: string) => ({ name, run: 1n });

function frame(account = Buffer.concat([Buffer.of(5), random.bytes(32)])): Buffer {
  const notification = { account, hash: Buffer.alloc(43, 'h'), namespace: 0, timestamp: 1, expiry: 2, data: null };
  return encodeNotification(notification);
}

function world(othersOf: (slot: number) => readonly string[] = () => ['b']) {
  const clock = new FakeClock();
  const told: [member: string, keys: string[]][] = [];
  const log: string[] = [];
  const renewed: Speaker[] = [];
  const servers = new Map<string, Speaker>();
  /** Since when all are asked for the accounts of a slot, unless for ever. */
  const asked = new Map<number, number | undefined>();
  const hearing = new Hearing<Speaker>({
    clock,
    othersOf,
    serverOf: (key) => servers.get(key),
    askedSince: (_server, slot) => (asked.has(slot) ? asked.get(slot) : Number.NEGATIVE_INFINITY),
    reconnect: (server) => renewed.push(server),
    tell: (member, heard) => told.push([member, heard.map(({ key }) => key.toString('hex'))]),
    log: { warn: (text) => log.push(text) },
  });
  const server = (key: string): Speaker => {
    const one = { key: key.repeat(64 / key.length), upSince: clock.now() };
    servers.set(one.key, one);
    return one;
  };
  const report = (name: string, ...keys: Speaker[]) =>
    hearing.take({ ...sender(name), servers: keys.map(({ key }) => ({ key: Buffer.from(key, 'hex'), slot: 7 })) });
  return { clock, asked, told, renewed, log, hearing, server, report };
}

test('each member that covers the slot is told of a server once in a period, however much that server says', async () => {
  const account = Buffer.concat([Buffer.of(5), random.bytes(32)]);
  const { clock, told, hearing, server } = world((slot) => (slot === slotOf(account) ? ['b', 'c'] : []));
  const [one, other] = [server('1'), server('2')];
  for (let n = 0; n < 3; n++) hearing.heard(one, frame(account));
  hearing.heard(other, Buffer.from('no notification'));
  await clock.advance(10 * SECOND);
  assert.deepEqual(told, [
    ['b', [one.key]],
    ['c', [one.key]],
  ]);
  await clock.advance(10 * SECOND);
  assert.equal(told.length, 2);
  hearing.heard(one, frame(account));
  await clock.advance(10 * SECOND);
  assert.equal(told.length, 4);
});

test('a server that reports to another member but not to us is reconnected at the second report', async () => {
  const { clock, renewed, log, hearing, server, report } = world();
  const deaf = server('0123456789abcdef');
  await clock.advance(30 * SECOND);
  report('b', deaf);
  assert.deepEqual([renewed, hearing.counters.reconnects], [[], 0]);
  await clock.advance(10 * SECOND);
  report('b', deaf);
  assert.deepEqual([renewed, hearing.counters.reconnects], [[deaf], 1]);
  assert.deepEqual(log, ['storage server 0123456789ab reports to the hivemind b but not to us: reconnecting to it']);
});

test('reports count from 20 s after a connection, or after what was heard, and 5 s after one another', async () => {
  const { clock, renewed, hearing, server, report } = world();
  const [deaf, heard] = [server('1'), server('2')];
  const reported = async (one: Speaker, ...pauses: number[]) => {
    const before = renewed.length;
    for (const ms of pauses) {
      await clock.advance(ms);
      report('b', one);
    }
    return renewed.length > before;
  };
  assert.equal(await reported(deaf, 19_999, 4_999), false, 'only the second counts');
  assert.equal(await reported(deaf, 4_999), false);
  assert.equal(await reported(deaf, 1), true);
  hearing.heard(heard, frame());
  assert.equal(await reported(heard, 19_999, 4_999), false);
  assert.equal(await reported(heard, 4_999), false);
  assert.equal(await reported(heard, 1), true);
  const [fresh, quiet] = [server('3'), server('4')];
  assert.equal(await reported(fresh, 20_000, 5_000), true);
  hearing.heard(quiet, frame());
  assert.equal(await reported(quiet, 20_000, 5_000), true);
});

test('after the stop nothing is told any more', async () => {
  const { clock, told, hearing, server } = world();
  hearing.heard(server('1'), frame());
  hearing.stop();
  await clock.advance(60 * SECOND);
  assert.deepEqual(told, []);
});

test('no more servers are told at a time than a message can hold, and each with the slot of its first message', async () => {
  const accounts = [1, 2].map((first) => Buffer.concat([Buffer.of(5, first), Buffer.alloc(31)]));
  const { clock, told, hearing, server } = world((slot) => (slot === 1 ? ['b'] : ['c']));
  const one = server('1');
  for (const account of accounts) hearing.heard(one, frame(account));
  await clock.advance(10 * SECOND);
  assert.deepEqual(told.splice(0), [['b', [one.key]]]);
  for (let n = 0; n < 4_100; n++)
    hearing.heard({ key: n.toString(16).padStart(64, '0'), upSince: 0 }, frame(accounts[0]));
  await clock.advance(10 * SECOND);
  assert.deepEqual(
    told.map(([member, keys]) => [member, keys.length]),
    [['b', 4_096]],
  );
});

test('two members that report the same message count as one', async () => {
  const { clock, renewed, server, report } = world();
  const deaf = server('1');
  await clock.advance(30 * SECOND);
  report('b', deaf);
  report('c', deaf);
  assert.deepEqual(renewed, []);
});

test('a server that was heard, was connected just now, or is not connected, is left as it is', async () => {
  const { clock, renewed, hearing, server, report } = world();
  const [heard, down] = [server('1'), server('2')];
  await clock.advance(30 * SECOND);
  Object.assign(down, { upSince: undefined });
  const fresh = server('3');
  for (let n = 0; n < 5; n++) {
    hearing.heard(heard, frame());
    Object.assign(fresh, { upSince: clock.now() - 15 * SECOND });
    report('b', heard, down, fresh, { key: 'f'.repeat(64), upSince: 0 });
    await clock.advance(10 * SECOND);
  }
  assert.deepEqual(renewed, []);
  // What was heard in between ends the suspicion.
  await clock.advance(30 * SECOND);
  report('b', heard);
  hearing.heard(heard, frame());
  await clock.advance(25 * SECOND);
  report('b', heard);
  assert.deepEqual(renewed, []);
});

test('a server that speaks only to some of us on purpose is reconnected every five minutes at most', async () => {
  const { clock, renewed, hearing, server, report } = world();
  const sly = server('1');
  await clock.advance(30 * SECOND);
  const times: number[] = [];
  for (let second = 0; second < 600; second += 10) {
    report('b', sly);
    if (renewed.length > times.length) times.push(second);
    await clock.advance(10 * SECOND);
  }
  assert.deepEqual(times, [10, 310]);
  // From then on, too, it takes two reports.
  await clock.advance(300 * SECOND);
  hearing.heard(sly, frame());
  await clock.advance(30 * SECOND);
  report('b', sly);
  assert.equal(renewed.length, 2);
});

test('of a server that was reconnected the next report alone means nothing', async () => {
  const { clock, renewed, server, report } = world();
  const sly = server('1');
  await clock.advance(30 * SECOND);
  for (let n = 0; n < 2; n++) {
    report('b', sly);
    await clock.advance(10 * SECOND);
  }
  await clock.advance(300 * SECOND);
  report('b', sly);
  assert.equal(renewed.length, 1);
  await clock.advance(10 * SECOND);
  report('b', sly);
  assert.equal(renewed.length, 2);
});

test('a server that we do not ask about the slot another member reports is left as it is', async () => {
  const { clock, asked, renewed, server, report } = world();
  const spared = server('1');
  asked.set(7, undefined);
  for (let n = 0; n < 6; n++) {
    await clock.advance(10 * SECOND);
    report('b', spared);
  }
  assert.deepEqual(renewed, []);
  // What it told before we asked it, and while it had not answered, is no proof.
  asked.set(7, clock.monotonic());
  report('b', spared);
  await clock.advance(10 * SECOND);
  report('b', spared);
  assert.deepEqual(renewed, []);
  for (let n = 0; n < 2; n++) {
    await clock.advance(10 * SECOND);
    report('b', spared);
  }
  assert.deepEqual(renewed, [spared]);
});
