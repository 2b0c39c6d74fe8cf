import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Holders } from '../../../src/hivemind/cluster/holders.ts';
import { coversSlot, firstOfSlots, Roster, slotBits } from '../../../src/hivemind/cluster/roster.ts';
import type { MemberRow } from '../../../src/hivemind/store/cluster-store.ts';
import { holdersOf, SLOTS } from '../../../src/session/slots.ts';

const START = 1_800_000_000_000;

function row(name: string, seen: number, more: Partial<MemberRow> = {}): MemberRow {
  return {
    name,
    generation: 1n,
    run: 1n,
    state: 'ready',
    address: `ipc:///${name}`,
    pushAddress: `ipc:///${name}-push`,
    version: '2.0.0',
    started: START,
    seen,
    covers: slotBits([]),
    ...more,
  };
}

/** A roster, and a world in which a second passes with each beat. */
function world(own = 'a') {
  let [monotonic, database] = [5_000, START];
  const roster = new Roster({ monotonic: () => monotonic }, own);
  return {
    roster,
    pass(ms: number) {
      monotonic += ms;
      database += ms;
    },
    now: () => database,
    /** @param ages how long ago each of the others wrote a heartbeat, ms */
    beat(ages: Record<string, number>, more: Record<string, Partial<MemberRow>> = {}) {
      const rows = Object.entries(ages).map(([name, age]) => row(name, database - age, more[name]));
      return roster.take(database, [row(own, database), ...rows]);
    },
  };
}

/** Whether that member is alive as far as we know. */
function isLiving({ members }: Roster, member: string): boolean {
  return members.find(({ name }) => name === member)?.living === true;
}

function beats(count: number, each: ReturnType<typeof world>, ages: Record<string, number>) {
  for (let n = 0; n < count; n++) {
    each.pass(1_000);
    each.beat(ages);
  }
}

test('a member without a heartbeat for three seconds is dead to one whose own have not stopped', () => {
  const each = world();
  beats(6, each, { b: 500 });
  assert.equal(isLiving(each.roster, 'b'), true);
  each.pass(1_000);
  each.beat({ b: 3_000 });
  assert.equal(isLiving(each.roster, 'b'), true);
  each.pass(1_000);
  assert.equal(each.beat({ b: 3_001 }), true);
  assert.equal(isLiving(each.roster, 'b'), false);
  assert.deepEqual(each.roster.holders, ['a']);
});

test('after an outage of the database no living member is declared dead before we have beaten for a while ourselves', () => {
  const each = world();
  beats(6, each, { b: 500, c: 500 });
  each.pass(60_000);
  each.beat({ b: 60_000, c: 60_000 });
  assert.deepEqual(each.roster.holders.sort(), ['a', 'b', 'c']);
  // b comes back, c does not.
  for (let n = 0; n < 3; n++) {
    each.pass(1_000);
    each.beat({ b: 200, c: 60_000 + n * 1_000 });
    assert.equal(isLiving(each.roster, 'c'), true, `beat ${n}`);
  }
  beats(2, each, { b: 200, c: 65_000 });
  assert.deepEqual(each.roster.holders.sort(), ['a', 'b']);
});

test('one pause of our own takes away the right to judge', () => {
  const each = world();
  beats(6, each, { b: 500 });
  each.pass(2_001);
  each.beat({ b: 5_000 });
  assert.equal(isLiving(each.roster, 'b'), true);
});

test('who has beaten for four seconds, each time within two of the last, may judge', () => {
  for (const [pauses, lives] of [
    [[1_000, 1_000, 1_000, 999], true],
    [[1_000, 1_000, 1_000, 1_000], false],
    [[2_000, 2_000], false],
    [[2_000, 2_001, 2_000], true],
    [[2_001, 2_000, 2_000], false],
  ] as const) {
    const each = world();
    each.beat({ b: 100 });
    for (const ms of pauses) {
      each.pass(ms);
      each.beat({ b: 4_000 });
    }
    assert.equal(isLiving(each.roster, 'b'), lives, pauses.join());
  }
});

test('our own row, however old, does not make us dead', () => {
  const each = world();
  beats(6, each, {});
  each.pass(1_000);
  each.roster.take(each.now(), [row('a', each.now() - 60_000)]);
  assert.deepEqual(each.roster.holders, ['a']);
});

test('a member that has stopped in order is dead at once; one that is leaving lives, and holds nothing', () => {
  const each = world();
  beats(2, each, { b: 500, c: 500 });
  each.pass(1_000);
  each.beat({ b: 100, c: 100 }, { b: { state: 'stopped' }, c: { state: 'leaving' } });
  assert.equal(isLiving(each.roster, 'b'), false);
  assert.equal(isLiving(each.roster, 'c'), true);
  assert.deepEqual(each.roster.holders, ['a']);
});

test('at the start a member that was seen lately counts as alive, but not one that is long gone', () => {
  const each = world();
  each.beat({ b: 30_000, c: 30_001 });
  assert.deepEqual(each.roster.holders.sort(), ['a', 'b']);
});

test('a later run of a name is not judged by the previous one', () => {
  const each = world();
  beats(6, each, { b: 4_000 });
  assert.equal(isLiving(each.roster, 'b'), false);
  each.pass(3_000);
  // Our run is broken: no judgement of the new one yet.
  each.beat({ b: 4_000 }, { b: { run: 2n } });
  assert.equal(isLiving(each.roster, 'b'), true);
});

test('a heartbeat alone is no change; an address, a state or a covered slot is', () => {
  const each = world();
  each.beat({ b: 100 });
  assert.equal(each.beat({ b: 50 }), false);
  assert.equal(each.beat({ b: 50 }, { b: { address: 'ipc:///other' } }), true);
  assert.equal(each.beat({ b: 50 }, { b: { address: 'ipc:///other', covers: slotBits([9]) } }), true);
  assert.equal(each.beat({}), true);
  assert.equal(each.beat({ c: 50 }), true);
  assert.equal(each.beat({ c: 50, d: 50 }), true);
  assert.equal(each.beat({ c: 50 }), true);
  assert.equal(each.beat({ d: 50 }), true, 'as many, but others');
});

test('the first is the best of those that cover a slot, and while none does the best of all', () => {
  const names = ['a', 'b', 'c'];
  const nobody = firstOfSlots(new Holders(names), () => false);
  const all = firstOfSlots(new Holders(names), () => true);
  assert.deepEqual(nobody, all);
  for (let slot = 0; slot < SLOTS; slot++) assert.equal(all[slot], holdersOf(slot, names, 3)[0]);
  const only = firstOfSlots(new Holders(names), (name) => name === 'b');
  assert.ok(only.every((name) => name === 'b'));
  assert.equal(firstOfSlots(new Holders([]), () => true)[0], '');
});

test('the bits of slots are those that were set', () => {
  const covers = slotBits([0, 7, 8, 255]);
  assert.equal(covers.length, 32);
  assert.deepEqual(
    Array.from({ length: SLOTS }, (_, slot) => slot).filter((slot) => coversSlot({ covers }, slot)),
    [0, 7, 8, 255],
  );
});
