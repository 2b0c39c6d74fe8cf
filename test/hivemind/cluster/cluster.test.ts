import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cluster } from '../../../src/hivemind/cluster/cluster.ts';
import type { MemberRow } from '../../../src/hivemind/store/cluster-store.ts';
import { SLOTS } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1_000;
const EVERY = SLOTS;

interface TestMember {
  readonly cluster: Cluster;
  readonly loaded: Set<number>;
  readonly connected: { slots: ReadonlySet<number> };
  readonly spared: { slots: ReadonlySet<number> };
  readonly log: string[];
  /** Slots that were taken out of memory. */
  readonly removed: number[];
  /** What a load waits for. */
  stuck: Promise<void> | undefined;
  /** Slots that are not covered, whatever is loaded; undefined: the network is not known. */
  gaps: Set<number> | undefined;
  /** To whom it has no connection. */
  unreached: string[];
  /** Whether loading, and whether the database, works. */
  broken: boolean;
  away: boolean;
  drops: number;
  /** It no longer writes heartbeats. */
  kill(): void;
}

/** Members on one database, which is a map, over links that lose nothing. */
function world(copies = 2) {
  const clock = new FakeClock();
  const rows = new Map<string, MemberRow>();
  const members = new Map<string, TestMember>();
  let runs = 0n;

  const join = async (name: string, start = true): Promise<TestMember> => {
    const run = ++runs;
    let dead = false;
    const row = (more: Partial<MemberRow>) => ({
      name,
      generation: run,
      run,
      state: 'starting' as const,
      address: `ipc:///${name}`,
      pushAddress: '',
      version: '2.0.0',
      started: clock.now(),
      seen: clock.now(),
      covers: Buffer.alloc(SLOTS / 8),
      ...more,
    });
    const member: TestMember = {
      loaded: new Set(),
      connected: { slots: new Set() },
      spared: { slots: new Set() },
      log: [],
      removed: [],
      stuck: undefined,
      gaps: new Set(),
      unreached: [],
      broken: false,
      away: false,
      drops: 0,
      kill: () => {
        dead = true;
        member.cluster.stop();
      },
      cluster: new Cluster({
        clock,
        own: { name, run },
        copies,
        beat: async (own) => {
          if (member.away || dead) throw new Error('the database is away');
          rows.set(name, { ...row(own), started: rows.get(name)?.started ?? clock.now() });
          return { now: clock.now(), members: [...rows.values()].sort((a, b) => (a.name < b.name ? -1 : 1)) };
        },
        load: async (slots) => {
          for (const slot of slots) {
            member.loaded.add(slot);
            if (member.broken) throw new Error('no rows today');
          }
          await member.stuck;
        },
        devices: {
          removeAccounts: (isRemoved) => {
            member.drops++;
            for (const slot of member.loaded) {
              const account = Buffer.alloc(33);
              account[1] = slot;
              if (isRemoved(account, 0) && member.loaded.delete(slot)) member.removed.push(slot);
            }
            return undefined;
          },
        },
        uncovered: async () => {
          const { gaps } = member;
          return gaps && new Set([...Array(SLOTS).keys()].filter((slot) => gaps.has(slot) || !member.loaded.has(slot)));
        },
        setSlots: (slots) => (member.connected.slots = slots),
        spareSlots: (slots) => (member.spared.slots = slots),
        links: {
          update: () => {},
          get troubles() {
            return member.unreached.map((other) => ({ name: other, trouble: 'the connection broke' }));
          },
          send: (to, command) => {
            const other = members.get(to);
            if (!other || dead) return false;
            if (command === 'cluster.leaving') other.cluster.refresh();
            if (command === 'cluster.changed') other.log.push(`${name} has changes`);
            return true;
          },
        },
        log: { info: (text) => member.log.push(text), warn: (text) => member.log.push(text) },
      }),
    };
    members.set(name, member);
    if (start) {
      await member.cluster.start();
      member.cluster.ready();
      await clock.advance(2 * SECOND);
    }
    return member;
  };
  const firsts = ({ cluster }: TestMember, name: string) =>
    [...Array(SLOTS).keys()].filter((slot) => cluster.duty.firstOf(slot) === name).length;
  return { clock, join, firsts, rows };
}

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
  await clock.advance(5 * SECOND);
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
  await clock.advance(SECOND);
  assert.deepEqual(new Set(a.removed), new Set(passed));
  assert.equal(a.loaded.size, EVERY);
});

test('others are told once of all changes that come together', async () => {
  const { clock, join } = world();
  const [a, b] = [await join('a'), await join('b')];
  for (let n = 0; n < 100; n++) a.cluster.changed(n % 7);
  await clock.advance(SECOND);
  a.cluster.changed(1);
  await clock.advance(SECOND);
  assert.equal(b.log.filter((text) => text === 'a has changes').length, 2);
});

test('the report says what each member covers and sends', async () => {
  const { clock, join } = world();
  const [a] = [await join('a'), await join('b')];
  await clock.advance(8 * SECOND);
  const report = a.cluster.report().members;
  assert.deepEqual(
    report.map(({ name, state, covers }) => [name, state, covers]),
    [
      ['a', 'ready', EVERY],
      ['b', 'ready', EVERY],
    ],
  );
  assert.equal(
    report.reduce((sum, { first }) => sum + first, 0),
    EVERY,
  );
});
