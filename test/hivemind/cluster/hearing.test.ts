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
    log: { warn: () => {} },
  });
  const server = (key: string): Speaker => {
    const one = { key: key.repeat(64), upSince: clock.now() };
    servers.set(one.key, one);
    return one;
  };
  const report = (name: string, ...keys: Speaker[]) =>
    hearing.take({ ...sender(name), servers: keys.map(({ key }) => ({ key: Buffer.from(key, 'hex'), slot: 7 })) });
  return { clock, asked, told, renewed, hearing, server, report };
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

test('a server that speaks to another member and not to us is reconnected at the second report', async () => {
  const { clock, renewed, server, report } = world();
  const deaf = server('1');
  await clock.advance(30 * SECOND);
  report('b', deaf);
  assert.deepEqual(renewed, []);
  await clock.advance(10 * SECOND);
  report('b', deaf);
  assert.deepEqual(renewed, [deaf]);
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
  const { clock, renewed, server, report } = world();
  const sly = server('1');
  await clock.advance(30 * SECOND);
  for (let n = 0; n < 60; n++) {
    report('b', sly);
    await clock.advance(10 * SECOND);
  }
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
