import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasSlot, slotBits } from '../../../src/hivemind/cluster/roster.ts';
import { holdersOf, SLOTS } from '../../../src/session/slots.ts';
import { SECOND, world } from './cluster-world.ts';

const EVERY = SLOTS;

test('a member on its own holds, connects, covers and sends everything', async () => {
  const { join, firsts } = world();
  const a = await join('a');
  assert.deepEqual([a.loaded.size, a.connected.slots.size, firsts(a, 'a')], [EVERY, EVERY, EVERY]);
  assert.equal(a.cluster.report().coverage.fewer, EVERY);
  assert.deepEqual(a.cluster.complaints(), ['no other hivemind is alive: if this one stops, pushes are lost']);
});

test('a member that joins sends nothing before it covers, and then half of everything', async () => {
  const { clock, join, firsts } = world();
  const a = await join('a');
  const b = await join('b', false);
  await b.cluster.start();
  await clock.advance(2 * SECOND);
  assert.equal(b.loaded.size, EVERY);
  assert.deepEqual([firsts(a, 'a'), firsts(b, 'a')], [EVERY, EVERY]);
  b.gaps = new Set([17]);
  b.cluster.ready();
  await clock.advance(3 * SECOND);
  assert.ok(firsts(a, 'b') > EVERY / 3 && firsts(a, 'b') < (2 * EVERY) / 3);
  assert.equal(a.cluster.duty.firstOf(17), 'a');
  assert.deepEqual(a.cluster.complaints(), ['1 of 256 slots are covered by fewer than 2 hiveminds']);
  b.gaps = new Set();
  await clock.advance(3 * SECOND);
  assert.deepEqual(a.cluster.report().coverage, { full: EVERY, fewer: 0, none: 0 });
  assert.deepEqual([a.cluster.complaints(), b.cluster.complaints()], [[], []]);
  a.unreached = ['b'];
  assert.deepEqual(a.cluster.complaints(), ['the hivemind b cannot be reached: the connection broke']);
  for (let slot = 0; slot < SLOTS; slot++) assert.equal(a.cluster.duty.firstOf(slot), b.cluster.duty.firstOf(slot));
});

test('for slots of which another is first fewer servers are asked, until that one is gone', async () => {
  const { clock, join, firsts } = world();
  const a = await join('a');
  assert.equal(a.spared.slots.size, 0);
  const b = await join('b', false);
  await b.cluster.start();
  assert.equal(b.spared.slots.size, EVERY, 'before anything is asked of anybody');
  b.cluster.ready();
  await clock.advance(3 * SECOND);
  assert.deepEqual([a.spared.slots.size, b.spared.slots.size], [firsts(a, 'b'), firsts(a, 'a')]);
  assert.deepEqual([a.cluster.report().spared, b.cluster.report().spared], [firsts(a, 'b'), firsts(a, 'a')]);
  b.kill();
  await clock.advance(6 * SECOND);
  assert.equal(a.spared.slots.size, 0);
});

test('a member that is about to stop is not relied on any more', async () => {
  const { clock, join } = world();
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(3 * SECOND);
  assert.ok(a.spared.slots.size > 0);
  const left = b.cluster.leave(2 * SECOND);
  await clock.advance(100);
  assert.equal(a.spared.slots.size, 0);
  await clock.advance(3 * SECOND);
  await left;
});

test('with one copy no servers are spared', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(10 * SECOND);
  assert.deepEqual([a.spared.slots.size, b.spared.slots.size], [0, 0]);
});

test('with one copy each keeps what it held until the other covers it, and lets it go then', async () => {
  const { clock, join } = world(1);
  const a = await join('a');
  const b = await join('b', false);
  b.gaps = undefined;
  await b.cluster.start();
  b.cluster.ready();
  await clock.advance(120 * SECOND);
  assert.equal(a.loaded.size, EVERY, 'nothing was let go');
  assert.ok(b.loaded.size > EVERY / 3 && b.loaded.size < (2 * EVERY) / 3);
  b.gaps = new Set();
  await clock.advance(10 * SECOND);
  assert.equal(a.loaded.size + b.loaded.size, EVERY);
  assert.deepEqual(new Set([...a.loaded, ...b.loaded]).size, EVERY);
  assert.equal(a.connected.slots.size, a.loaded.size);
  assert.deepEqual(a.cluster.report().coverage, { full: EVERY, fewer: 0, none: 0 });
});

test('with three members and two copies each holds two thirds, and when one dies two hold everything', async () => {
  const { clock, join } = world();
  const [a, b, c] = [await join('a'), await join('b'), await join('c')];
  await clock.advance(10 * SECOND);
  const sizes = [a, b, c].map(({ loaded }) => loaded.size);
  assert.equal(
    sizes.reduce((sum, size) => sum + size),
    2 * EVERY,
  );
  assert.ok(Math.max(...sizes) < 0.8 * EVERY, `${sizes}`);
  c.kill();
  await clock.advance(8 * SECOND);
  assert.deepEqual([a.loaded.size, b.loaded.size], [EVERY, EVERY]);
  assert.ok(a.log.includes('the hivemind c has stopped sending heartbeats'));
  assert.equal(a.cluster.report().members.find(({ name }) => name === 'c')!.state, 'dead');
});

test('a member that leaves hands over at once where the others already cover its slots', async () => {
  const { clock, join, firsts } = world();
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  const before = clock.monotonic();
  assert.equal(await a.cluster.leave(3 * SECOND), true);
  assert.equal(clock.monotonic(), before);
  await clock.advance(0);
  assert.deepEqual([firsts(b, 'b'), firsts(a, 'b')], [EVERY, EVERY]);
  assert.ok(b.log.includes('the hivemind a is about to stop'));
});

test('a member that leaves waits until the others have loaded and covered what only it held', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  b.gaps = undefined;
  let handedOver: boolean | undefined;
  void a.cluster.leave(60 * SECOND).then((whole) => (handedOver = whole));
  await clock.advance(5 * SECOND);
  assert.deepEqual([handedOver, b.loaded.size], [undefined, EVERY]);
  b.gaps = new Set();
  await clock.advance(3 * SECOND);
  assert.equal(handedOver, true);
  assert.ok(a.loaded.size > 0, 'it keeps them until it has ended');
});

test('a member that leaves waits no longer than it may, and not at all when there is nobody else', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  b.broken = true;
  let handedOver: boolean | undefined;
  void a.cluster.leave(2 * SECOND).then((whole) => (handedOver = whole));
  await clock.advance(3 * SECOND);
  assert.equal(handedOver, false);
  b.broken = false;
  b.cluster.stop();
  const alone = world();
  const one = await alone.join('a');
  assert.equal(await one.cluster.leave(60 * SECOND), false);
});

test('while the database is away everybody goes on as before, and nobody is declared dead when it is back', async () => {
  const { clock, join, firsts } = world();
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  const before = firsts(a, 'b');
  a.away = b.away = true;
  await clock.advance(60 * SECOND);
  assert.equal(firsts(a, 'b'), before);
  a.away = false;
  await clock.advance(2 * SECOND);
  b.away = false;
  await clock.advance(10 * SECOND);
  assert.equal(firsts(a, 'b'), before);
  assert.equal(
    [...a.log, ...b.log].some((text) => text.includes('stopped sending heartbeats')),
    false,
  );
});

test('slots that cannot be loaded are reported to the operator and tried again; at the start they end it', async () => {
  const { clock, join } = world();
  const a = await join('a');
  const b = await join('b');
  const c = await join('c');
  await clock.advance(10 * SECOND);
  a.broken = true;
  c.kill();
  await clock.advance(8 * SECOND);
  assert.match(a.cluster.complaints()[0]!, /^the subscriptions of \d+ slots cannot be loaded: no rows today$/);
  assert.ok(a.log.includes(a.cluster.complaints()[0]!));
  assert.ok(b.loaded.size === EVERY);
  a.broken = false;
  await clock.advance(3 * SECOND);
  assert.deepEqual([a.loaded.size, a.cluster.complaints()], [EVERY, []]);

  const d = await join('d', false);
  d.broken = true;
  await assert.rejects(d.cluster.start(), /cannot be loaded: no rows today/);
});

test('what a failed load has brought in is taken out of memory, for nobody keeps it up to date', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  const held = a.loaded.size;
  a.broken = true;
  b.kill();
  await clock.advance(6 * SECOND);
  assert.match(a.cluster.complaints()[0]!, /cannot be loaded/);
  assert.ok(a.removed.length > 0);
  // The slots are those of another member by now.
  await join('b');
  await clock.advance(SECOND);
  assert.equal(a.loaded.size, held);
});

test('slots that are released and taken up again are loaded anew: changes in between were missed', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  const before = [...a.loaded];
  // Everything else waits behind this load.
  const loading = Promise.withResolvers<void>();
  a.stuck = loading.promise;
  b.kill();
  await clock.advance(6 * SECOND);
  a.removed.length = 0;
  const c = await join('c');
  await clock.advance(6 * SECOND);
  const passed = before.filter((slot) => !a.cluster.holdsSlot(slot));
  assert.ok(passed.length > 0);
  c.kill();
  await clock.advance(6 * SECOND);
  assert.deepEqual([a.removed, passed.filter((slot) => !a.cluster.holdsSlot(slot))], [[], []]);
  loading.resolve();
  for (let n = 0; n < 3; n++) await clock.advance(SECOND);
  assert.deepEqual(new Set(a.removed), new Set(passed));
  assert.equal(a.loaded.size, EVERY);
});

test('others are told once of all changes that come together', async () => {
  const { clock, join } = world();
  const [a, b] = [await join('a'), await join('b')];
  const told = () => [a, b].map(({ log }) => log.filter((text) => text.startsWith('a has changes')));
  for (let n = 0; n < 100; n++) a.cluster.changed(n % 7);
  await clock.advance(9);
  assert.deepEqual(told(), [[], []]);
  await clock.advance(1);
  assert.deepEqual(told(), [[], ['a has changes in 0,1,2,3,4,5,6']]);
  await clock.advance(SECOND);
  a.cluster.changed(255);
  await clock.advance(SECOND);
  assert.deepEqual(told()[1]!.slice(1), ['a has changes in 255']);
  a.cluster.changed(1);
  a.cluster.stop();
  await clock.advance(SECOND);
  assert.equal(told()[1]!.length, 2, 'nothing after the stop');
});

test('a slot counts as held from the moment that it is to be loaded, by its number, by an account or among others', async () => {
  const { join } = world(1);
  const [a] = [await join('a'), await join('b', false)];
  const account = Buffer.alloc(40);
  account[8] = 255;
  assert.ok(a.cluster.holdsSlot(0) && a.cluster.holdsSlot(255));
  await (await join('c')).cluster.leave(0);
  const d = await join('d');
  for (const slot of [0, 1, 7, 254, 255]) {
    account[8] = slot;
    assert.equal(d.cluster.holds(account, 7), d.cluster.holdsSlot(slot));
    assert.equal(d.cluster.holds(account.subarray(7)), d.cluster.holdsSlot(slot));
    assert.equal(d.cluster.holdsAnyOf(slotBits([slot])), d.cluster.holdsSlot(slot));
  }
  const all = [...Array(SLOTS).keys()];
  assert.equal(d.cluster.holdsAnyOf(slotBits(all)), true);
  assert.equal(d.cluster.holdsAnyOf(slotBits(all.filter((slot) => !d.cluster.holdsSlot(slot)))), false);
  assert.equal(a.cluster.holdsAnyOf(slotBits([])), false);
});

test('others work as soon as one of them has joined the network, of which they learn at once', async () => {
  const { clock, join, rows } = world();
  const a = await join('a');
  assert.equal(a.cluster.othersWork, false);
  const b = await join('b', false);
  await b.cluster.start();
  await clock.advance(SECOND);
  assert.equal(a.cluster.othersWork, false);
  const { beats } = b.counts;
  b.cluster.ready();
  await clock.advance(0);
  assert.deepEqual([b.counts.beats, rows.get('b')?.state], [beats + 1, 'ready']);
  await clock.advance(SECOND);
  assert.equal(a.cluster.othersWork, true);
  void b.cluster.leave(0);
  b.cluster.ready();
  await clock.advance(2 * SECOND);
  assert.equal(rows.get('b')?.state, 'leaving', 'it does not come back');
  assert.equal(a.cluster.othersWork, false);
});

test('what a member covers is checked at every fifth heartbeat, and at each while a slot is missing', async () => {
  const { clock, join } = world();
  const a = await join('a');
  await clock.advance(10 * SECOND);
  const { beats, checks } = a.counts;
  await clock.advance(50 * SECOND);
  assert.deepEqual([a.counts.beats - beats, a.counts.checks - checks], [50, 10]);
  a.gaps = new Set([3]);
  await clock.advance(10 * SECOND);
  const missing = a.counts.checks;
  for (let n = 0; n < 10; n++) {
    await clock.advance(SECOND);
    // A check takes some turns of the event loop.
    for (let turn = 0; turn < 3; turn++) await clock.advance(0);
  }
  assert.equal(a.counts.checks - missing, 10);
});

test('one slot alone is released, and loaded again, as many are', async () => {
  const { clock, join } = world(1);
  const a = await join('a');
  const b = await join('b', false);
  const slots = [...Array(SLOTS).keys()];
  const one = slots.find((slot) => holdersOf(slot, ['a', 'b'], 1)[0] === 'b')!;
  b.gaps = new Set(slots.filter((slot) => slot !== one));
  await b.cluster.start();
  b.cluster.ready();
  await clock.advance(10 * SECOND);
  assert.deepEqual([a.removed, a.loaded.has(one), a.cluster.holdsSlot(one)], [[one], false, false]);
  assert.ok(a.log.includes('1 slots are now covered by others, and are released'));
  assert.deepEqual(a.parts, ['part', 'other work', 'part', 'other work']);
  b.kill();
  await clock.advance(6 * SECOND);
  assert.deepEqual([a.loaded.size, a.counts.loads], [EVERY, 2]);
});

test('others are told at once of what a member has come to cover, and it checks that once at a time', async () => {
  const { clock, join, rows } = world();
  const a = await join('a');
  a.gaps = new Set([3]);
  await clock.advance(10 * SECOND);
  const covers = () => hasSlot(rows.get('a')!.covers, 3);
  assert.equal(covers(), false);
  a.gaps = new Set();
  const { beats } = a.counts;
  await clock.advance(SECOND);
  for (let n = 0; n < 3; n++) await clock.advance(0);
  assert.deepEqual([covers(), a.counts.beats - beats], [true, 2]);

  a.gaps = new Set([3]);
  await clock.advance(10 * SECOND);
  const check = Promise.withResolvers<void>();
  a.checking = check.promise;
  await clock.advance(SECOND);
  const { checks } = a.counts;
  await clock.advance(10 * SECOND);
  assert.equal(a.counts.checks, checks);
  check.resolve();
  await clock.advance(2 * SECOND);
  assert.ok(a.counts.checks > checks);
});

test('what a heartbeat brings after the stop changes nothing any more', async () => {
  const { clock, join } = world();
  const a = await join('a');
  const b = await join('b', false);
  await b.cluster.start();
  a.cluster.refresh();
  a.cluster.stop();
  await clock.advance(0);
  assert.deepEqual(a.linked, []);
});

test('a member that has stopped writes no heartbeat, not even when another one leaves, and leaves no timer', async (t) => {
  const { clock, join } = world();
  const set = t.mock.method(clock, 'setInterval');
  const a = await join('a');
  const cancel = t.mock.method(set.mock.calls[0]!.result!, 'cancel');
  a.cluster.stop();
  const { beats, checks } = a.counts;
  a.cluster.refresh();
  await clock.advance(10 * SECOND);
  assert.deepEqual([a.counts.beats, a.counts.checks, cancel.mock.callCount()], [beats, checks, 1]);
});

test('while nothing changes, nothing is loaded, released or connected anew', async () => {
  const { clock, join } = world();
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(10 * SECOND);
  assert.deepEqual([a.linked, b.linked], [['b'], ['a']]);
  const { loads, settings } = a.counts;
  await clock.advance(30 * SECOND);
  assert.deepEqual([a.counts.loads, a.counts.settings, a.drops], [loads, settings, 0]);
  assert.deepEqual([loads, settings], [1, 1]);
  assert.ok(!a.log.some((text) => text.includes('released')));
});

test('a member that leaves looks every 200 ms whether others have taken over, until its time is over', async () => {
  const { clock, join } = world(1);
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  b.gaps = undefined;
  let handedOver: boolean | undefined;
  // Off the beat of the other heartbeats.
  await clock.advance(10);
  const { beats } = a.counts;
  void a.cluster.leave(400).then((whole) => (handedOver = whole));
  await clock.advance(0);
  await clock.advance(199);
  assert.equal(a.counts.beats - beats, 1);
  await clock.advance(1);
  assert.equal(a.counts.beats - beats, 2);
  await clock.advance(0);
  await clock.advance(199);
  assert.equal(handedOver, undefined);
  await clock.advance(1);
  assert.equal(handedOver, false);
});

test('operators are told of slots that nobody covers, and with one copy a member on its own is nothing to tell', async () => {
  const { clock, join } = world(1);
  const a = await join('a');
  await clock.advance(5 * SECOND);
  assert.deepEqual(a.cluster.complaints(), []);
  a.gaps = new Set([3]);
  await clock.advance(10 * SECOND);
  assert.deepEqual(a.cluster.complaints(), ['1 of 256 slots are covered by no hivemind']);
  assert.deepEqual(a.cluster.report().coverage, { full: EVERY - 1, fewer: 0, none: 1 });
  const b = await join('b', false);
  await b.cluster.start();
  assert.deepEqual(b.cluster.complaints(), [], 'it has only begun');
});

test('what becomes of other members is logged once', async () => {
  const { clock, join, rows } = world();
  const a = await join('a');
  const b = await join('b');
  await clock.advance(5 * SECOND);
  b.kill();
  rows.set('b', { ...rows.get('b')!, state: 'stopped' });
  await clock.advance(5 * SECOND);
  await join('b');
  await clock.advance(5 * SECOND);
  const again = { ...rows.get('b')!, run: 99n };
  rows.set('c', { ...again, name: 'c' });
  await clock.advance(SECOND);
  rows.set('c', { ...again, name: 'c', run: 100n });
  await clock.advance(SECOND);
  assert.deepEqual(
    a.log.filter((text) => text.startsWith('the hivemind')),
    [
      'the hivemind b (2.0.0) is alive',
      'the hivemind b has stopped',
      'the hivemind b (2.0.0) is alive',
      'the hivemind c (2.0.0) is alive',
      'the hivemind c (2.0.0) is alive',
    ],
  );
});

test('the report says what each member covers and sends, and of those that are gone when they were last seen', async () => {
  const { clock, join, firsts, rows } = world();
  const start = clock.now() / 1000;
  const [a, b] = [await join('a'), await join('b')];
  await clock.advance(8_100);
  const member = (name: string, run: string, started: number, seen: number) => ({
    name,
    run,
    state: 'ready',
    address: `ipc:///${name}`,
    version: '2.0.0',
    covers: EVERY,
    first: firsts(a, name),
    started: start + started,
    seen: start + seen,
  });
  const [first, second] = [member('a', '1', 0, 12), member('b', '2', 2, 11)];
  const { members, ...rest } = a.cluster.report();
  assert.deepEqual(members, [first, second]);
  assert.deepEqual(rest, {
    own: 'a',
    copies: 2,
    coverage: { full: EVERY, fewer: 0, none: 0 },
    spared: second.first,
  });
  assert.equal(first.first + second.first, EVERY);
  b.kill();
  await clock.advance(8 * SECOND);
  const gone = { ...second, state: 'dead', covers: 0, first: 0, seen: second.seen + 1 };
  assert.deepEqual(a.cluster.report().members[1], gone);
  rows.set('b', { ...rows.get('b')!, state: 'stopped' });
  await clock.advance(SECOND);
  assert.deepEqual(a.cluster.report().members[1], { ...gone, state: 'stopped' });
});
