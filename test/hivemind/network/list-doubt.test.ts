import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ListDoubt } from '../../../src/hivemind/network/list-doubt.ts';
import type { ServiceNodes } from '../../../src/session/service-nodes.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MINUTE = 60_000;

/** Nodes from one number to another, five a swarm. */
function list(height: number, from: number, to: number): ServiceNodes {
  const nodes = Array.from({ length: to - from }, (_, i) => {
    const publicKey = Buffer.alloc(32);
    publicKey.writeUInt32BE(from + i);
    return { publicKey, host: '', port: 0, swarm: BigInt(Math.floor((from + i) / 5)) };
  });
  return { height, blockHash: '', nodes, swarms: nodes.map(({ swarm }) => swarm), skipped: 0 };
}

/** A doubt that knows 2,000 nodes in 400 swarms at height 1000. */
function setUp(nodes = 2000) {
  const clock = new FakeClock();
  const doubt = new ListDoubt(clock);
  assert.equal(doubt.judge(list(1000, 0, nodes)), undefined);
  /** How many minutes it takes until such lists, one a minute, are believed; undefined if that never happens. */
  const believedAfter = (one: (minute: number) => ServiceNodes): number | undefined => {
    for (let minute = 0; minute <= 120; minute++) {
      if (doubt.judge(one(minute)) === undefined) return minute;
      clock.run(MINUTE);
    }
    return undefined;
  };
  return { clock, doubt, believedAfter };
}

const doubted: [string, (minute: number) => ServiceNodes, RegExp][] = [
  ['that is cut off in the middle', () => list(1001, 0, 900), /900 of 2000 storage servers are left/],
  ['with a third missing', () => list(1001, 0, 1300), /1300 of 2000 storage servers are left/],
  ['of one node', () => list(1001, 7, 8), /1 of 2000 storage servers are left/],
  ['of another network', () => list(1001, 5000, 7000), /0 of 2000 storage servers are left/],
  ['of an earlier height', () => list(999, 0, 2000), /its height is 999, after 1000/],
  [
    'with all nodes in one swarm',
    () => {
      const all = list(1001, 0, 2000);
      return { ...all, nodes: all.nodes.map((node) => ({ ...node, swarm: 3n })), swarms: [3n] };
    },
    /1 of 400 swarms are left/,
  ],
];
for (const [what, one, words] of doubted) {
  test(`a list ${what} is doubted, and believed in the end when it has been repeated for ten minutes`, () => {
    const { doubt, believedAfter } = setUp();
    assert.match(doubt.judge(one(0)) ?? 'believed', words);
    assert.equal(believedAfter(one), 10);
    assert.equal(doubt.judge(one(0)), undefined);
  });
}

test('growth counts at once, and so does ordinary change', () => {
  const { doubt } = setUp();
  assert.equal(doubt.judge(list(1000, 0, 5000)), undefined);
  assert.equal(doubt.judge(list(1001, 100, 5100)), undefined);
  assert.equal(doubt.judge(list(1002, 100, 4200)), undefined, 'a fifth goes');
});

test('the first list counts, however small; an empty one never does', () => {
  const doubt = new ListDoubt(new FakeClock());
  assert.equal(doubt.judge(list(5, 0, 0)), 'no storage server is in the list');
  assert.equal(doubt.judge(list(5, 0, 1)), undefined);
  assert.equal(doubt.judge(list(6, 0, 2000)), undefined);
  const { believedAfter } = setUp();
  assert.equal(
    believedAfter(() => list(1001, 0, 0)),
    undefined,
  );
});

test('in a small network a single departure is no collapse', () => {
  const { doubt } = setUp(2);
  assert.equal(doubt.judge(list(1001, 0, 1)), undefined);
  const { doubt: other } = setUp(9);
  assert.equal(other.judge(list(1001, 0, 5)), undefined);
  assert.match(other.judge(list(1002, 0, 2)) ?? 'believed', /2 of 5/);
});

test('it takes five answers, however far apart, and ten minutes, however many answers', () => {
  const { doubt, clock } = setUp();
  for (let i = 0; i < 1000; i++) assert.notEqual(doubt.judge(list(1001, 0, 100)), undefined);
  clock.run(10 * MINUTE);
  assert.equal(doubt.judge(list(1001, 0, 100)), undefined);
  for (let i = 0; i < 4; i++) {
    assert.notEqual(doubt.judge(list(1002, 0, 10)), undefined, `${i}`);
    clock.run(5 * MINUTE);
  }
  assert.equal(doubt.judge(list(1002, 0, 10)), undefined);
});

test('partial lists that differ from each other do not confirm each other', () => {
  const { believedAfter } = setUp();
  assert.equal(
    believedAfter((minute) => list(1001, (minute % 4) * 500, (minute % 4) * 500 + 500)),
    undefined,
  );
});

test('a good list in between ends the doubt', () => {
  const { doubt, clock } = setUp();
  for (let minute = 0; minute < 60; minute++) {
    assert.equal(
      doubt.judge(minute % 4 === 3 ? list(1001, 0, 2000) : list(1001, 0, 100)) === undefined,
      minute % 4 === 3,
    );
    clock.run(4 * MINUTE);
  }
});

test('while a chain is being synchronised its lists are not believed', () => {
  const { believedAfter } = setUp();
  assert.equal(
    believedAfter((minute) => list(200 + 6 * minute, 0, 400)),
    undefined,
  );
});

test('a chain that was set back and goes on at its pace is believed', () => {
  const { believedAfter } = setUp();
  assert.equal(
    believedAfter((minute) => list(700 + Math.floor(minute / 2), 0, 2000)),
    10,
  );
});

test('of a chain that was set back ten blocks at once are believed, and one a minute', () => {
  for (const [height, isBelieved] of [
    [920, true],
    [921, false],
  ] as const) {
    const { doubt, clock } = setUp();
    for (let n = 0; n < 4; n++) assert.notEqual(doubt.judge(list(900, 0, 2000)), undefined);
    clock.run(10 * MINUTE);
    assert.equal(doubt.judge(list(height, 0, 2000)) === undefined, isBelieved, `${height}`);
  }
});
