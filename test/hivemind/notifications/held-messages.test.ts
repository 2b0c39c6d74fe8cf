import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HeldCopy, HeldMessages } from '../../../src/hivemind/notifications/held-messages.ts';
import { SLICE } from '../../../src/hivemind/slice.ts';
import type { Notification } from '../../../src/session/notification.ts';
import { FakeClock } from '../../support/fake-clock.ts';

type Server = { readonly name: string };

const MIB = 1024 * 1024;
/** What a copy takes besides its frame, in bytes. */
const OVERHEAD = 1_000;

const servers = Array.from({ length: 20 }, (_, n): Server => ({ name: `server ${n}` }));
const [one, two, three] = servers as [Server, Server, Server];

function copy(hash: string, given: Partial<Notification> = {}): Notification {
  return {
    account: Buffer.alloc(33, 5),
    hash: Buffer.from(hash),
    namespace: 0,
    timestamp: 1,
    expiry: 2,
    data: Buffer.from('body'),
    ...given,
  };
}

function setUp() {
  const clock = new FakeClock();
  /** When which copies were given out. */
  const due: [number, ...string[]][] = [];
  const onDue = (copies: readonly HeldCopy<Server>[]) => {
    due.push([clock.monotonic(), ...copies.map(({ server, message }) => `${server.name}: ${message.hash}`)]);
  };
  return { clock, due, held: new HeldMessages<Server>({ clock, onDue }) };
}

test('a copy waits for a second, and those of the same hash go with the first, in their order', async () => {
  const { clock, due, held } = setUp();
  assert.equal(held.hold(one, copy('a'), 100), 'held');
  await clock.advance(400);
  assert.equal(held.hold(two, copy('b'), 10), 'held');
  assert.equal(held.hold(two, copy('a', { namespace: 1 }), 50), 'held');
  assert.deepEqual([held.size, held.bytes], [3, 160 + 3 * OVERHEAD]);
  await clock.advance(599);
  assert.deepEqual(due, []);
  await clock.advance(1);
  assert.deepEqual(due, [[1_000, 'server 0: a', 'server 1: a']]);
  assert.deepEqual([held.size, held.bytes], [1, 10 + OVERHEAD]);
  await clock.advance(399);
  assert.equal(due.length, 1);
  await clock.advance(1);
  assert.deepEqual(due.slice(1), [[1_400, 'server 1: b']]);
  assert.deepEqual([held.size, held.bytes, clock.pending], [0, 0, 0]);
});

test('the copy of another account is another copy', () => {
  const { held } = setUp();
  held.hold(one, copy('a'), 0);
  assert.equal(held.hold(two, copy('a', { account: Buffer.alloc(33, 6) }), 0), 'held');
});

test('a second server confirms a copy that has the same namespace and body, whatever its times are', () => {
  for (const [first, second, isSame] of [
    [copy('a'), copy('a', { timestamp: 7, expiry: 8 }), true],
    [copy('a', { data: null }), copy('a', { data: null }), true],
    [copy('a'), copy('a', { data: null }), false],
    [copy('a', { data: null }), copy('a'), false],
    [copy('a'), copy('a', { data: Buffer.from('bodY') }), false],
    [copy('a'), copy('a', { namespace: 1 }), false],
  ] as const) {
    const { held, due } = setUp();
    held.hold(one, first, 10);
    assert.equal(held.hold(one, second, 10), 'repeated');
    const outcome = held.hold(two, second, 10);
    if (!isSame) {
      assert.equal(outcome, 'held');
      continue;
    }
    assert.deepEqual(outcome, { confirmed: { message: first, server: one, size: 10 }, others: [] });
    assert.deepEqual([held.size, held.bytes, due.length], [0, 0, 0]);
  }
});

test('those that said something else are told with the confirmed copy', () => {
  const { held } = setUp();
  const odd = copy('a', { namespace: 1 });
  held.hold(one, odd, 10);
  held.hold(two, copy('a'), 20);
  assert.deepEqual(held.hold(three, copy('a'), 30), {
    confirmed: { message: copy('a'), server: two, size: 20 },
    others: [{ message: odd, server: one, size: 10 }],
  });
  assert.deepEqual([held.size, held.bytes], [0, 0]);
});

test('a proven copy takes out those of its account and hash, and no others', () => {
  const { held } = setUp();
  assert.deepEqual(held.settle(copy('a')), []);
  held.hold(one, copy('a'), 10);
  held.hold(one, copy('b'), 20);
  assert.deepEqual(held.settle(copy('c')), []);
  assert.deepEqual(held.settle(copy('a', { namespace: 7 })), [{ message: copy('a'), server: one, size: 10 }]);
  assert.deepEqual([held.size, held.bytes], [1, 20 + OVERHEAD]);
  // What was taken out is held anew.
  assert.equal(held.hold(one, copy('a'), 10), 'held');
});

test('4 MiB of one server are held, and no byte more until some have gone', () => {
  const { held } = setUp();
  assert.equal(held.hold(one, copy('a'), 4 * MIB - 2 * OVERHEAD - 5), 'held');
  assert.equal(held.hold(one, copy('b'), 6), 'full');
  assert.equal(held.hold(two, copy('b'), 6), 'held');
  assert.equal(held.hold(one, copy('c'), 5), 'held');
  held.settle(copy('c'));
  assert.equal(held.hold(one, copy('b', { namespace: 1 }), 5), 'held');
});

test('64 MiB of all servers are held, and beyond that the oldest go at once', () => {
  const { held, due } = setUp();
  const whole = 4 * MIB - OVERHEAD;
  for (const [n, server] of servers.slice(0, 16).entries()) held.hold(server, copy(`${n}`), whole);
  assert.deepEqual([held.bytes, due], [64 * MIB, []]);
  assert.equal(held.hold(servers[16]!, copy('16'), 0), 'held');
  assert.deepEqual(due, [[0, 'server 0: 0']]);
  assert.equal(held.bytes, 60 * MIB + OVERHEAD);
});

test('when much is due at once the event loop gets its turn between', async () => {
  const { clock, due, held } = setUp();
  const slow = new HeldMessages<Server>({
    clock,
    onDue: ([first]) => {
      due.push([clock.monotonic(), String(first!.message.hash)]);
      clock.stall(first!.message.namespace);
    },
  });
  for (const [hash, namespace] of [
    ['a', SLICE],
    ['b', 1],
    ['c', 0],
    ['d', 0],
  ] as const)
    slow.hold(one, copy(hash, { namespace }), 0);
  clock.run(1_000);
  assert.equal(held.size, 0);
  assert.deepEqual(due, [
    [1_000, 'a'],
    [1_000 + SLICE, 'b'],
  ]);
  await clock.advance(0);
  assert.deepEqual(
    due.slice(2).map(([, hash]) => hash),
    ['c', 'd'],
  );
});

test('at the end all go at once, and no timer is left', () => {
  const { clock, due, held } = setUp();
  held.hold(one, copy('a'), 0);
  held.hold(two, copy('b'), 0);
  held.stop();
  assert.deepEqual(due, [
    [0, 'server 0: a'],
    [0, 'server 1: b'],
  ]);
  assert.deepEqual([held.size, held.bytes, clock.pending], [0, 0, 0]);
});
