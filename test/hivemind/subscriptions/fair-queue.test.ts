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
