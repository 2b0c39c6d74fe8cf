import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accepted, type Backend, type Delivery, type Outcome, retry } from '../../../src/notifiers/runtime/backend.ts';
import { Calls } from '../../../src/notifiers/runtime/calls.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const push = (id: string): Delivery => ({ id, data: null, payload: Buffer.alloc(1), expiry: 0, urgent: true });
const backendThat = (send: Backend['send']): Backend => ({ validate: () => ({ id: '' }), send });

/** A backend whose calls a test answers. */
function manual() {
  const answers: ((outcomes: Outcome[]) => void)[] = [];
  const backend = backendThat(() => new Promise((resolve) => answers.push(resolve)));
  return { backend, answers };
}

function setUp() {
  const clock = new FakeClock();
  const calls = new Calls(clock, 1_000);
  /** Whether it has come about by now. */
  const isDone = async (event: Promise<unknown>) => {
    await clock.advance(0);
    return await Promise.race([event.then(() => true), new Promise((resolve) => setImmediate(resolve, false))]);
  };
  return { clock, calls, isDone };
}

test('a call gives what the backend says of each push', async () => {
  const { clock, calls } = setUp();
  const { backend, answers } = manual();
  const call = calls.run(backend, [push('a'), push('b')]);
  await clock.advance(0);
  assert.equal(calls.size, 1);
  answers[0]!([accepted, retry('503')]);
  assert.deepEqual(await call, [accepted, retry('503')]);
  assert.deepEqual([calls.size, clock.pending], [0, 0]);
});

test('a backend that throws, now or later, has each of its pushes tried again, with its words', async () => {
  const { calls } = setUp();
  const pushes = [push('a'), push('b')];
  for (const [send, reason] of [
    [
      () => {
        throw new Error('at once');
      },
      'at once',
    ],
    [() => Promise.reject(new Error('later')), 'later'],
    [() => Promise.reject('a text'), 'a text'],
  ] as const)
    assert.deepEqual(await calls.run(backendThat(send), pushes), [retry(reason), retry(reason)]);
  assert.equal(calls.size, 0);
});

test('a call that says nothing ends in time, and what it says later changes nothing', async () => {
  const { clock, calls, isDone } = setUp();
  const { backend, answers } = manual();
  const call = calls.run(backend, [push('a')]);
  await clock.advance(999);
  assert.equal(await isDone(call), false);
  await clock.advance(1);
  assert.deepEqual(await call, [retry('no answer in time')]);
  answers[0]!([accepted]);
  await clock.advance(0);
  assert.deepEqual([calls.size, clock.pending], [0, 0]);
});

test('a backend is unused when the last of its calls has ended', async () => {
  const { clock, calls, isDone } = setUp();
  const [one, other] = [manual(), manual()];
  assert.equal(await isDone(calls.unused(one.backend)), true, 'it never had any');
  void calls.run(one.backend, [push('a')]);
  void calls.run(one.backend, [push('b')]);
  void calls.run(other.backend, [push('c')]);
  await clock.advance(0);
  const unused = [calls.unused(one.backend), calls.unused(one.backend)];
  one.answers[0]!([accepted]);
  other.answers[0]!([accepted]);
  assert.equal(await isDone(unused[0]!), false);
  one.answers[1]!([accepted]);
  for (const event of unused) assert.equal(await isDone(event), true);
});

test('abandoned calls end at once, with nothing said', async () => {
  const { clock, calls } = setUp();
  const { backend } = manual();
  const all = [calls.run(backend, [push('a')]), calls.run(backend, [push('b')])];
  await clock.advance(0);
  calls.abandon();
  assert.deepEqual(await Promise.all(all), [[], []]);
  assert.deepEqual([calls.size, clock.pending], [0, 0]);
});
