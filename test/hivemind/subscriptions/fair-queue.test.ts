import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FairQueue, NotDone, type Ticket } from '../../../src/hivemind/subscriptions/fair-queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const BAD = new Error('bad');

/** A queue whose tasks take a millisecond each, and write down whose they were. */
function setUp() {
  const clock = new FakeClock();
  const done: string[] = [];
  let open = true;
  const queue = new FairQueue({ clock, open: () => open, isDoubtful: (error) => error === BAD });
  const ticket = (client: string, lane: 'small' | 'large' = 'small', tasks = 1, patience = 10_000) =>
    queue.ticket(client, lane, tasks, patience);
  /** Adds so many tasks; `bad` says which of them fail as no honest one does. */
  const add = (of: Ticket, name: string, count = 1, bad: (index: number) => boolean = () => false) =>
    Array.from({ length: count }, (_, index) =>
      of.run(() => {
        clock.stall(1);
        done.push(name);
        if (bad(index)) throw BAD;
      }),
    );
  const rest = (tasks: Promise<void>[]) => Promise.allSettled(tasks);
  const setOpen = (value: boolean) => {
    open = value;
    if (open) queue.wake();
  };
  return { clock, queue, done, ticket, add, rest, setOpen };
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('small requests go first, and large ones get a share meanwhile', async () => {
  const { done, ticket, add, rest } = setUp();
  const tasks = [...add(ticket('a', 'large'), 'large', 200), ...add(ticket('b'), 'small', 100)];
  await rest(tasks);
  const end = done.lastIndexOf('small') + 1;
  const large = done.slice(0, end).filter((name) => name === 'large').length;
  assert.ok(large >= 10 && large <= 25, `${large} of ${end}`);
});

test('clients take turns, and so do each client’s requests', async () => {
  const { done, ticket, add, rest } = setUp();
  const greedy = Array.from({ length: 500 }, () => add(ticket('greedy'), 'greedy')).flat();
  const many = add(ticket('greedy'), 'many', 50);
  const modest = [...add(ticket('one'), 'one', 3), ...add(ticket('two'), 'two', 3)];
  await rest([...greedy, ...many, ...modest]);
  assert.ok(done.lastIndexOf('one') < 10 && done.lastIndexOf('two') < 10);
  // The last request of the greedy one is not kept waiting by its first ones more than by a turn of each.
  assert.ok(done.indexOf('many') < 510);
});

test('one of a client’s large requests is finished before the next is begun', async () => {
  const { done, ticket, add, rest } = setUp();
  const [first, second, third] = [ticket('a', 'large'), ticket('a', 'large'), ticket('a', 'large')];
  await rest([...add(first, '1', 100), ...add(second, '2', 100), ...add(third, '3', 100)]);
  assert.deepEqual(done, [...Array(100).fill('1'), ...Array(100).fill('2'), ...Array(100).fill('3')]);
});

test('what was begun continues when more of it arrives', async () => {
  const { done, ticket, add } = setUp();
  const [first, second] = [ticket('a', 'large'), ticket('b', 'large')];
  add(second, '2', 100);
  const more = add(first, '1', 1);
  await Promise.all(more);
  // Its second part comes while the other one has its turn.
  await Promise.all(add(first, '1', 50));
  assert.ok(done.filter((name) => name === '2').length <= 2 * 100);
  assert.equal(done.filter((name) => name === '1').length, 51);
});

test('a request with an element that no honest client sends lets all others go first', async () => {
  const { done, ticket, add, rest } = setUp();
  const attack = Array.from({ length: 50 }, (_, index) =>
    add(ticket(`bad ${index}`), 'bad', 100, (at) => at === 0),
  ).flat();
  const honest = add(ticket('honest'), 'honest', 100);
  await rest([...attack, ...honest]);
  const before = done.slice(0, done.lastIndexOf('honest')).filter((name) => name === 'bad').length;
  // One element each until it was known, and a twentieth of the turns.
  assert.ok(before < 50 + 100 / 10, `${before} bad ones`);
  assert.equal(done.length, 50 * 100 + 100);
});

test('doubtful work is done a task at a time, with a turn of the event loop after each', async () => {
  const { done, ticket, add } = setUp();
  add(ticket('bad'), 'bad', 50, () => true).map((task) => task.catch(() => {}));
  await turns(1);
  const known = done.length;
  for (let turn = 1; turn <= 20; turn++) {
    await turns(1);
    assert.ok(done.length <= known + turn);
  }
});

test('what nobody waits for any more is not done, and costs nothing', async () => {
  const { clock, queue, done, ticket, add, rest } = setUp();
  const late = add(ticket('a', 'small', 1, 5), 'late', 20);
  clock.stall(5);
  const ends = await rest([...late, ...add(ticket('b'), 'in time')]);
  assert.equal(ends.filter((end) => end.status === 'rejected' && end.reason instanceof NotDone).length, 20);
  assert.deepEqual(done, ['in time']);
  assert.equal(queue.counters.late, 20);
});

test('while what follows has no room nothing is done', async () => {
  const { done, ticket, add, rest, setOpen } = setUp();
  setOpen(false);
  const tasks = add(ticket('a'), 'a', 3);
  await turns(5);
  assert.deepEqual(done, []);
  setOpen(true);
  await rest(tasks);
  assert.deepEqual(done, ['a', 'a', 'a']);
});

test('how long a request would wait is estimated from the pace, for its client and its size', async () => {
  const { queue, ticket, add, rest } = setUp();
  // A pace of a millisecond each is known after a while.
  for (let round = 0; round < 5; round++) await rest(add(ticket('a'), 'a', 1_000));
  assert.equal(queue.wait('a', 'large', 1_000), 0, 'alone, it need not wait');
  const near = (value: number, expected: number) => assert.ok(Math.abs(value / expected - 1) < 0.2, `${value} ms`);
  const large = ticket('storm', 'large', 4_000);
  near(queue.wait('storm', 'large', 100), 4_100);
  assert.equal(queue.wait('storm', 'small', 1), 0, 'small ones go before large ones');
  // Beside one other client that has more, a client waits for twice its own.
  near(queue.wait('other', 'large', 100), 200);
  const flood = ticket('flood', 'small', 3_000);
  near(queue.wait('flood', 'small', 1), 3_001);
  near(queue.wait('phone', 'small', 1), 2);
  flood.close();
  large.close();
  assert.equal(queue.wait('storm', 'large', 100), 0);
});

test('a request that is given up leaves nothing behind', async () => {
  const { queue, ticket, add, rest } = setUp();
  const given = ticket('a', 'small', 10);
  const tasks = add(given, 'given up', 10);
  given.cancel();
  given.close();
  const ends = await rest([...tasks, ...add(ticket('b'), 'b')]);
  assert.equal(ends.filter(({ status }) => status === 'rejected').length, 10);
  assert.equal(queue.lane('small').clients, 0);
});

test('a request that is given up does nothing with what arrives later', async () => {
  const { done, ticket, add, rest } = setUp();
  const given = ticket('a', 'small', 20);
  const tasks = add(given, 'given up', 10);
  given.cancel();
  const ends = await rest([...tasks, ...add(given, 'later', 10), ...add(ticket('b'), 'b')]);
  assert.equal(ends.filter((end) => end.status === 'rejected' && end.reason instanceof NotDone).length, 20);
  assert.deepEqual(done, ['b']);
});

test('a process that was frozen for a minute does not consider itself slow afterwards', async () => {
  const { clock, queue, ticket, add, rest } = setUp();
  for (let round = 0; round < 3; round++) await rest(add(ticket('a'), 'a', 1_000));
  const tasks = add(ticket('a', 'small', 10, 120_000), 'a', 10);
  clock.stall(70_000);
  await rest(tasks);
  const waiting = ticket('storm', 'large', 1_000);
  assert.ok(queue.wait('other', 'large', 100) < 1_000, `${queue.wait('other', 'large', 100)} ms`);
  waiting.close();
});

/** What was done in each turn of the event loop, until all tasks are. */
async function byTurn(done: string[], tasks: Promise<void>[]): Promise<string[]> {
  const found: string[] = [];
  let isOver = false;
  void Promise.allSettled(tasks).then(() => {
    isOver = true;
  });
  while (!isOver) {
    await turns(1);
    if (done.length > 0) found.push(done.splice(0).join(' '));
  }
  return found;
}

test('a slice ends after four milliseconds, after a doubtful task, and with the last task of a large request', async () => {
  const { clock, queue, done, ticket, add } = setUp();
  clock.stall(1_000);
  const small = add(ticket('a'), 's', 10);
  queue.wake();
  queue.wake();
  assert.deepEqual(await byTurn(done, small), ['s s s s', 's s s s', 's s']);
  const large = [...add(ticket('a', 'large'), '1'), ...add(ticket('b', 'large'), '2', 2), ...add(ticket('a'), 's')];
  assert.deepEqual(await byTurn(done, large), ['s 1', '2 2']);
  const bad = ticket('bad');
  const doubtful = [...add(bad, 'b', 3, (n) => n === 0), ...add(ticket('a'), 's', 2)];
  assert.deepEqual(await byTurn(done, doubtful), ['b s s b', 'b']);
  assert.deepEqual([queue.counters.ms, queue.counters.tasks], [19, 19]);
  for (const lane of ['small', 'large', 'doubtful'] as const) assert.equal(queue.lane(lane).busy, false, lane);
});

test('of twenty turns three are for large requests first and one for doubtful ones, the others for small ones', async () => {
  const { done, ticket, add, rest } = setUp();
  const bad = ticket('bad');
  const tasks = [
    ...add(bad, 'doubtful', 10, (n) => n === 0),
    ...add(ticket('a', 'large'), 'large', 20),
    ...add(ticket('b'), 'small', 60),
  ];
  await rest(tasks);
  // The first turn was that of the request that was not doubtful yet.
  const expected = Array.from({ length: 60 }, (_, turn) => {
    if (turn === 0 || turn % 20 === 19) return 'doubtful';
    return [4, 9, 14].includes(turn % 20) ? 'large' : 'small';
  });
  assert.deepEqual(done.slice(0, 60), expected);
});

test('the turns of those who have nothing to do are others’', async () => {
  for (const kinds of [
    ['small', 'large'],
    ['small', 'doubtful'],
    ['large', 'doubtful'],
  ] as const) {
    const { done, ticket, add, rest } = setUp();
    const bad = ticket('bad');
    // Doubtful from now on, at the cost of two turns: the second finds nothing to do.
    await rest(add(bad, 'first', 1, () => true));
    done.length = 0;
    const tasks = kinds.flatMap((kind) => add(kind === 'doubtful' ? bad : ticket(kind, kind), kind, 30));
    await rest(tasks);
    const firstOf = (turn: number) => {
      if (turn === 19) return kinds.includes('doubtful' as never) ? 'doubtful' : 'small';
      if ([4, 9, 14].includes(turn)) return kinds.includes('large' as never) ? 'large' : 'small';
      return kinds[0];
    };
    assert.deepEqual(
      done.slice(0, 25),
      Array.from({ length: 25 }, (_, n) => firstOf((n + 2) % 20)),
      kinds.join(),
    );
    assert.equal(done.length, 60);
  }
});

test('each small or doubtful request gets a task done in its turn, and each client a turn', async () => {
  const { done, ticket, add, rest } = setUp();
  const [x1, x2, y] = [ticket('x'), ticket('x'), ticket('y')];
  await rest([...add(x1, 'x1', 3), ...add(x2, 'x2', 2), ...add(y, 'y', 3)]);
  assert.equal(done.splice(0).join(' '), 'x1 y x2 y x1 y x2 x1');
  await rest([...add(x1, 'x1', 3, (n) => n === 0), ...add(y, 'y', 3, (n) => n === 0)]);
  assert.equal(done.join(' '), 'x1 y x1 y x1 y');
});

test('a large request is finished in its client’s turn, and goes first when more of it arrives', async () => {
  const { done, ticket, add, rest } = setUp();
  const order = async (tasks: Promise<void>[]) => {
    await rest(tasks);
    return done.splice(0).join(' ');
  };
  const large = (client: string) => ticket(client, 'large');
  const [a1, a2, b, c] = [large('a'), large('a'), large('b'), large('c')];
  assert.equal(await order([...add(a1, 'a1', 2), ...add(a2, 'a2', 2), ...add(b, 'b', 2)]), 'a1 a1 b b a2 a2');
  // Of those that wait for their first task.
  const [d, e] = [large('d'), large('e')];
  assert.equal(await order([...add(d, 'd'), ...add(e, 'e'), ...add(a1, 'a1', 2)]), 'a1 a1 d e');
  // Also before another one of its own client, which keeps its turn.
  const [a3, f] = [large('a'), large('f')];
  assert.equal(await order([...add(f, 'f'), ...add(a3, 'a3'), ...add(a1, 'a1')]), 'a1 f a3');
  // After one that is being worked on.
  const tasks = [...add(b, 'b', 6), ...add(c, 'c')];
  await turns(1);
  assert.equal(await order([...tasks, ...add(a1, 'a1')]), 'b b b b b b a1 c');
  const last = add(b, 'b', 6);
  await turns(1);
  assert.equal(await order([...last, ...add(a1, 'a1')]), 'b b b b b b a1');
});

test('a request that is given up takes none of its client’s and of others with it', async () => {
  const { queue, done, ticket, add, rest } = setUp();
  const [a1, a2, a3, idle, b, c] = [ticket('a'), ticket('a'), ticket('a'), ticket('a'), ticket('b'), ticket('c')];
  const tasks = [a1, a2, a3, b, c].flatMap((one, n) => add(one, `${n}`));
  idle.cancel();
  a2.cancel();
  a2.cancel();
  b.cancel();
  await rest(tasks);
  assert.deepEqual(done, ['0', '4', '2']);
  assert.equal(queue.lane('small').busy, false);
});

test('what is expected of a request is done, however many tasks it turns out to have, and goes where it goes', async () => {
  const { queue, ticket, add, rest } = setUp();
  const expected = () => (['small', 'large', 'doubtful'] as const).map((name) => queue.lane(name).expected);
  const [one, other] = [ticket('a', 'small', 1), ticket('b', 'small', 5)];
  assert.deepEqual(expected(), [6, 0, 0]);
  await rest(add(one, '1', 3));
  assert.deepEqual(expected(), [5, 0, 0]);
  await rest(add(other, '2', 2, (n) => n === 0));
  assert.deepEqual(expected(), [0, 0, 3]);
  other.close();
  assert.deepEqual(expected(), [0, 0, 0]);
});

test('the wait is what goes before and what is asked for, at the pace', () => {
  const { queue, ticket } = setUp();
  ticket('flood', 'small', 30);
  assert.equal(queue.wait('phone', 'small', 2), (2 + 2) / 2);
  assert.equal(queue.wait('flood', 'small', 2), (30 + 2) / 2);
  ticket('a', 'large', 40);
  assert.equal(queue.wait('b', 'large', 3), (3 + 30 + 3) / 2);
  assert.equal(queue.wait('a', 'large', 3), (40 + 30 + 3) / 2);
  ticket('c', 'large', 100);
  assert.equal(queue.wait('b', 'large', 3), (2 * 3 + 30 + 3) / 2);
});

test('the pace is that of the last second with work to do, without the time in which there was none', async () => {
  const { clock, queue, ticket, add, rest, setOpen } = setUp();
  let [ms, count] = [10, 20];
  const pass = (elapsed: number, done: number) => {
    const fading = Math.exp(-elapsed / 1_000);
    [ms, count] = [ms * fading + elapsed, count * fading + done];
  };
  const meter = ticket('meter', 'large', 1_000);
  const check = (what: string) => {
    const wait = queue.wait('other', 'large', 1);
    assert.ok(Math.abs(wait - (2 * ms) / count) < 1e-9, `${what}: ${wait} ms`);
  };
  check('at first');
  const other = ticket('a');
  other.close();
  clock.stall(5_000);
  await rest(add(other, 'a'));
  pass(1, 1);
  check('one after a time of rest');
  const tasks = add(other, 'a');
  clock.stall(3);
  await rest([...tasks, ...add(other, 'a')]);
  pass(5, 2);
  check('it waits from the first');
  setOpen(false);
  const held = add(other, 'a');
  clock.stall(500);
  setOpen(true);
  await rest(held);
  pass(501, 1);
  check('what is held up is slow');
  const frozen = add(ticket('b', 'small', 0, 100_000), 'b');
  clock.stall(70_000);
  await rest(frozen);
  pass(1_000, 1);
  check('frozen');
  const late = add(ticket('b', 'small', 0, 5), 'b');
  clock.stall(50);
  await rest(late);
  check('nothing was done');
  meter.close();
});
