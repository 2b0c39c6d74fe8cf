import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  accepted,
  type Delivery,
  gone,
  misconfigured,
  type Outcome,
  refused,
  retry,
} from '../../../src/notifiers/runtime/backend.ts';
import { type HeldPush, Sender, type SenderOptions } from '../../../src/notifiers/runtime/sender.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { until } from '../../support/until.ts';

type Send = (pushes: readonly Delivery[]) => Promise<readonly Outcome[]>;

function setUp(
  send: Send,
  more: Partial<SenderOptions> & { batch?: number; concurrency?: number; linger?: number } = {},
) {
  const clock = new FakeClock();
  const ends: string[] = [];
  const pauses: number[] = [];
  const { batch, concurrency, linger, ...options } = more;
  const sender = new Sender({
    backend: {
      validate: () => ({ id: '' }),
      send,
      ...(batch === undefined ? {} : { batch }),
      ...(concurrency === undefined ? {} : { concurrency }),
      ...(linger === undefined ? {} : { linger }),
    },
    clock,
    random: randomBytes,
    maxQueue: 10_000,
    maxRetrying: 1_000,
    done: (push, end) => ends.push(`${push.id} ${end.kind}${'reason' in end ? ` ${end.reason}` : ''}`),
    paused: (ms) => pauses.push(ms),
    ...options,
  });
  return { clock, sender, ends, pauses };
}

function push(id: string, expiry = 0, returnable = true): HeldPush {
  return { id, data: null, payload: Buffer.from(id), expiry, urgent: true, returnable };
}

/** A provider whose answers a test gives when it likes. */
function manual() {
  const calls: { ids: string[]; answer: (...outcomes: Outcome[]) => void; fail: (error: Error) => void }[] = [];
  const send: Send = (pushes) =>
    new Promise((resolve, reject) => {
      calls.push({ ids: pushes.map(({ id }) => id), answer: (...outcomes) => resolve(outcomes), fail: reject });
    });
  return { calls, send };
}

/** Whether that has come about by now: what waits for it in vain fails, and does not wait for ever. */
async function isDone(event: Promise<unknown>): Promise<boolean> {
  return await Promise.race([event.then(() => true), nextTurn(false)]);
}

test("every push ends once, with the provider's verdict on it", async () => {
  const outcomes = [accepted, gone('dead', 5), refused('no')];
  const { clock, sender, ends } = setUp(async () => [outcomes.shift()!]);
  for (const id of ['a', 'b', 'c']) sender.add(push(id));
  await clock.advance(1);
  assert.deepEqual(ends, ['a accepted', 'b gone dead', 'c refused no']);
  assert.equal(sender.held, 0);
  assert.equal(clock.pending, 0);
});

test('no more calls run at a time than the backend accepts', async () => {
  const provider = manual();
  const { clock, sender } = setUp(provider.send, { concurrency: 2 });
  for (const id of ['a', 'b', 'c']) sender.add(push(id));
  await clock.advance(0);
  assert.deepEqual(
    provider.calls.map((call) => call.ids),
    [['a'], ['b']],
  );
  assert.equal(sender.inFlight, 2);
  provider.calls[1]!.answer(accepted);
  await clock.advance(0);
  assert.deepEqual(provider.calls[2]!.ids, ['c']);
});

test('a batch waits for more, but not for long, and a full one not at all', async () => {
  const provider = manual();
  const { clock, sender } = setUp(provider.send, { batch: 3, linger: 50 });
  sender.add(push('a'));
  sender.add(push('b'));
  await clock.advance(49);
  assert.equal(provider.calls.length, 0);
  await clock.advance(1);
  assert.deepEqual(provider.calls[0]!.ids, ['a', 'b']);
  for (const id of ['c', 'd', 'e', 'f']) sender.add(push(id));
  await clock.advance(0);
  assert.deepEqual(provider.calls[1]!.ids, ['c', 'd', 'e']);
  await clock.advance(50);
  assert.deepEqual(provider.calls[2]!.ids, ['f']);
});

test('a push that waits for another attempt delays no other device', async () => {
  const attempts: string[] = [];
  const { clock, sender, ends } = setUp(
    async ([first]) => {
      const { id } = first!;
      attempts.push(id);
      return [
        id === 'slow' && attempts.filter((other) => other === 'slow').length < 3
          ? retry('429', 10_000, 'device')
          : accepted,
      ];
    },
    { concurrency: 1 },
  );
  sender.add(push('slow'));
  sender.add(push('a'));
  sender.add(push('b'));
  await clock.advance(0);
  assert.deepEqual(ends, ['a accepted', 'b accepted']);
  assert.equal(sender.retrying, 1);
  await clock.advance(60_000);
  assert.deepEqual(ends, ['a accepted', 'b accepted', 'slow accepted']);
  assert.equal(clock.pending, 0);
});

test('a call that throws, answers for too few pushes, or does not answer in time is retried', async () => {
  let calls = 0;
  const { clock, sender, ends } = setUp(
    (pushes) => {
      calls++;
      if (calls === 1) throw new Error('at once');
      if (calls === 2) return Promise.reject(new Error('later'));
      if (calls === 3) return Promise.resolve([]);
      if (calls === 4) return new Promise(() => {});
      return Promise.resolve(pushes.map(() => accepted));
    },
    { sendTimeout: 1_000 },
  );
  sender.add(push('a'));
  await clock.advance(300_000);
  assert.deepEqual(ends, ['a accepted']);
  assert.equal(calls, 5);
});

test('an answer that comes too late is ignored', async () => {
  const provider = manual();
  const { clock, sender, ends } = setUp(provider.send, { sendTimeout: 1_000 });
  sender.add(push('a'));
  await clock.advance(60_000);
  assert.ok(provider.calls.length >= 2);
  provider.calls[0]!.answer(accepted);
  await clock.advance(0);
  assert.deepEqual(ends, []);
  provider.calls.at(-1)!.answer(accepted);
  await clock.advance(0);
  sender.abandon();
  assert.equal(ends.length, 1);
  assert.equal(clock.pending, 0);
});

test('expired pushes are not sent, neither at first nor on a retry', async () => {
  let calls = 0;
  const { clock, sender, ends } = setUp(async () => {
    calls++;
    return [retry('503')];
  });
  sender.add(push('a', clock.now()));
  sender.add(push('b', clock.now() + 60_000));
  await clock.advance(0);
  await clock.advance(120_000);
  assert.deepEqual(ends, ['a given-up expired', 'b given-up expired']);
  assert.ok(calls > 1);
});

test('a push that seems to have expired long before it came is sent: the hivemind gave it out, so it is our clock that is wrong', async () => {
  const { clock, sender, ends } = setUp(async () => [{ kind: 'accepted' }]);
  sender.add(push('a', clock.now() - 15 * 86_400_000));
  await clock.advance(0);
  assert.deepEqual(ends, ['a accepted']);
});

test('a push is retried for as long as the policy says, counted from its first attempt', async () => {
  const policy = { base: 1_000, cap: 1_000, lifetime: 60_000 };
  const { clock, sender, ends } = setUp(async () => [retry('500', 0, 'device')], { policy });
  await clock.advance(36_000_000);
  sender.add(push('a'));
  await clock.advance(58_900);
  assert.deepEqual(ends, []);
  await clock.advance(1_100);
  assert.deepEqual(ends, ['a given-up retried-too-long']);
});

test('pushes beyond the limit of those that wait for another attempt are given up', async () => {
  const { clock, sender, ends } = setUp(async () => [retry('429', 1_000, 'device')], { maxRetrying: 2 });
  for (const id of ['a', 'b', 'c']) sender.add(push(id));
  await clock.advance(0);
  assert.deepEqual(ends, ['c given-up too-many-retries']);
  assert.equal(sender.retrying, 2);
  sender.abandon();
});

test('beyond the limit of the queue the oldest push is given up', async () => {
  const provider = manual();
  const { clock, sender, ends } = setUp(provider.send, { maxQueue: 2, concurrency: 1 });
  for (const id of ['a', 'b', 'c', 'd']) sender.add(push(id));
  await clock.advance(0);
  assert.deepEqual(ends, ['b given-up overflow']);
  sender.abandon();
});

test('in an outage the provider is tried with single pushes, ever more rarely, and all follow when it is over', async () => {
  let up = false;
  let calls = 0;
  const { clock, sender, ends, pauses } = setUp(
    async (pushes) => {
      calls++;
      return pushes.map(() => (up ? accepted : retry('503')));
    },
    { batch: 10, concurrency: 2 },
  );
  for (let index = 0; index < 500; index++) sender.add(push(`p${index}`));
  await clock.advance(30 * 60_000);
  assert.ok(calls < 60, `${calls} calls in half an hour`);
  assert.ok(pauses.at(-1)! <= 60_000 && pauses.at(-1)! >= 30_000);
  assert.equal(ends.length, 0);
  assert.equal(sender.held, 500);
  up = true;
  await clock.advance(10 * 60_000);
  assert.equal(ends.length, 500);
  assert.ok(ends.every((end) => end.endsWith('accepted')));
  assert.equal(clock.pending, 0);
});

test('an outage lasts until a push is accepted, also while a probe is on its way', async () => {
  const provider = manual();
  const { clock, sender } = setUp(provider.send, { concurrency: 30 });
  for (let index = 0; index < 30; index++) sender.add(push(`p${index}`));
  await clock.advance(0);
  for (const call of provider.calls.splice(0)) call.answer(retry('503'));
  await clock.advance(0);
  assert.equal(sender.isPaused, true);
  await until(async () => {
    await clock.advance(100);
    return provider.calls.length > 0;
  }, 0);
  assert.equal(sender.inFlight, 1);
  assert.equal(sender.isPaused, true);
  provider.calls[0]!.answer(accepted);
  await clock.advance(0);
  assert.equal(sender.isPaused, false);
  sender.abandon();
});

test('a wait that is meant for all pushes stops them all for that time', async () => {
  const sent: number[] = [];
  const { clock, sender, ends } = setUp(
    async () => {
      sent.push(clock.monotonic());
      return [sent.length === 1 ? retry('quota', 60_000, 'everyone') : accepted];
    },
    { concurrency: 1 },
  );
  for (const id of ['a', 'b', 'c']) sender.add(push(id));
  await clock.advance(0);
  await clock.advance(59_999);
  assert.equal(sent.length, 1);
  await clock.advance(10_000);
  assert.equal(sent.length, 4);
  assert.deepEqual(ends.slice().sort(), ['a accepted', 'b accepted', 'c accepted']);
});

test('a wait of any length that a backend passes on is capped at an hour, and none makes a tight loop', async () => {
  for (const after of [2_592_000_000, 2 ** 31, 1e300, Number.POSITIVE_INFINITY]) {
    let asked = 0;
    const { clock, sender, pauses } = setUp(async () => {
      asked++;
      return [retry('quota', after, 'everyone')];
    });
    for (const id of ['a', 'b']) sender.add(push(id));
    await clock.advance(59 * 60_000);
    const [pause] = pauses;
    assert.ok(pause !== undefined && pause >= 60 * 60_000 && pause <= 61 * 60_000, `${pause}`);
    // Both were asked before the answer came.
    assert.equal(asked, 2);
    sender.abandon();
  }
});

test('a wrong configuration keeps the pushes, and probes with one at a time', async () => {
  let calls = 0;
  const { clock, sender, ends } = setUp(async () => {
    calls++;
    return [misconfigured('BadCertificate')];
  });
  for (let index = 0; index < 200; index++) sender.add(push(`p${index}`));
  await clock.advance(10 * 60_000);
  assert.equal(ends.length, 0);
  assert.ok(calls < 80, `${calls} calls`);
  sender.abandon();
});

test('a batch that is told to wait as a whole waits as long as it was told, not longer for its size', async () => {
  const sent: number[] = [];
  const { clock, sender, ends, pauses } = setUp(
    async (pushes) => {
      sent.push(clock.monotonic());
      return pushes.map(() => (sent.length === 1 ? retry('quota', 7_000, 'everyone') : accepted));
    },
    { batch: 500, concurrency: 4, linger: 10 },
  );
  for (let index = 0; index < 500; index++) sender.add(push(`p${index}`));
  await clock.advance(0);
  await clock.advance(6_999);
  assert.equal(sent.length, 1);
  await clock.advance(3_000);
  assert.equal(ends.length, 500);
  assert.equal(pauses.length, 1);
  assert.ok(pauses[0]! >= 7_000 && pauses[0]! <= 7_500, `${pauses[0]} ms`);
});

const LIMITS = { maxQueue: 1_000, maxRetrying: 1_000 };

test('a new backend takes over at once, and what its predecessor was asked ends there', async () => {
  const before = manual();
  const after = manual();
  const { clock, sender, ends } = setUp(before.send, { concurrency: 2 });
  for (const id of ['a', 'b', 'c', 'd', 'e']) sender.add(push(id));
  await clock.advance(0);
  let unused = false;
  void sender.use({ validate: () => ({ id: '' }), send: after.send, concurrency: 4 }, LIMITS).then(() => {
    unused = true;
  });
  await clock.advance(0);
  assert.deepEqual(
    [before, after].map(({ calls }) => calls.map(({ ids }) => ids[0])),
    [
      ['a', 'b'],
      ['c', 'd'],
    ],
  );
  before.calls[0]!.answer(accepted);
  await clock.advance(0);
  assert.equal(unused, false);
  assert.deepEqual(after.calls[2]!.ids, ['e']);
  before.calls[1]!.answer(gone('dead', 5));
  for (const call of after.calls) call.answer(accepted);
  await clock.advance(0);
  assert.equal(unused, true);
  assert.deepEqual(ends.slice().sort(), ['a accepted', 'b gone dead', 'c accepted', 'd accepted', 'e accepted']);
  assert.equal(clock.pending, 0);
});

test('a backend that is replaced because the provider refused it ends the pause; a wait that the provider asked for goes on', async () => {
  for (const [outcome, waits] of [
    [misconfigured('BadCertificate'), false],
    [retry('quota', 60_000, 'everyone'), true],
    // For how long, it did not say.
    [retry('quota', undefined, 'everyone'), false],
  ] as const) {
    const { clock, sender, ends } = setUp(async () => [outcome]);
    for (let index = 0; index < 100; index++) sender.add(push(`p${index}`));
    await until(async () => {
      await clock.advance(100);
      return sender.isPaused;
    }, 0);
    void sender.use({ validate: () => ({ id: '' }), send: async () => [accepted] }, LIMITS);
    await clock.advance(0);
    assert.equal(sender.isPaused, waits, outcome.reason);
    await clock.advance(1_000);
    assert.equal(ends.length > 50, !waits, outcome.kind);
    assert.equal(sender.isPaused, waits);
    await clock.advance(10 * 60_000);
    assert.equal(ends.length, 100);
    assert.ok(ends.every((end) => end.endsWith('accepted')));
    assert.equal(clock.pending, 0);
  }
});

test('stopping hands back what has not been sent and waits for what has', async () => {
  const provider = manual();
  const { clock, sender, ends } = setUp(provider.send, { concurrency: 2 });
  sender.add(push('retrying'));
  await clock.advance(0);
  provider.calls[0]!.answer(retry('503', 60_000));
  await clock.advance(0);
  for (const id of ['a', 'b', 'c']) sender.add(push(id));
  await clock.advance(0);
  const stopped = sender.stop();
  await clock.advance(0);
  assert.deepEqual(ends, ['retrying handed-back', 'c handed-back']);
  assert.equal(await isDone(stopped), false);
  sender.add(push('late'));
  provider.calls[1]!.answer(accepted);
  provider.calls[2]!.answer(retry('503'));
  assert.ok(await isDone(stopped));
  assert.deepEqual(ends.slice(2), ['late handed-back', 'a accepted', 'b handed-back']);
  assert.equal(clock.pending, 0);
});

test('what nobody takes back is sent once when stopping, and the rest is handed back', async () => {
  let calls = 0;
  const { clock, sender, ends } = setUp(async () => [++calls === 2 ? retry('503') : accepted], { concurrency: 1 });
  for (const id of ['a', 'b', 'c']) sender.add(push(id, 0, false));
  sender.add(push('returnable'));
  const stopped = sender.stop();
  sender.add(push('late', 0, false));
  await clock.advance(0);
  assert.ok(await isDone(stopped));
  assert.deepEqual(ends, [
    'returnable handed-back',
    'a accepted',
    'b given-up shutdown',
    'c accepted',
    'late accepted',
  ]);
  assert.equal(clock.pending, 0);
});

test('what is abandoned ends at once, and its answers are not waited for', async () => {
  const provider = manual();
  const { clock, sender, ends } = setUp(provider.send, { concurrency: 1 });
  sender.add(push('a'));
  sender.add(push('b'));
  await clock.advance(0);
  void sender.stop();
  sender.abandon();
  assert.deepEqual(ends, ['b handed-back', 'a handed-back']);
  provider.calls[0]!.answer(accepted);
  await clock.advance(0);
  assert.equal(ends.length, 2);
  assert.equal(clock.pending, 0);
});

test('random outcomes: every push ends exactly once, and nothing is left', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    let state = seed;
    const next = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % below;
    };
    const kinds = [
      accepted,
      accepted,
      accepted,
      retry('503'),
      retry('429', 5_000, 'device'),
      retry('quota', 9_000, 'everyone'),
      gone('x', 1),
      refused('y'),
      misconfigured('z'),
    ];
    const { clock, sender, ends } = setUp(async (pushes) => pushes.map(() => kinds[next(kinds.length)]!), {
      batch: 1 + next(20),
      concurrency: 1 + next(5),
      linger: next(2) * 20,
      maxQueue: 10_000,
    });
    for (let index = 0; index < 300; index++) {
      sender.add(push(`p${index}`, next(4) === 0 ? clock.now() + next(100_000) : 0));
      if (next(10) === 0) await clock.advance(next(1_000));
    }
    await clock.advance(4 * 3_600_000);
    assert.equal(ends.length, 300, `seed ${seed}`);
    assert.equal(new Set(ends.map((end) => end.split(' ')[0])).size, 300, `seed ${seed}`);
    assert.equal(clock.pending, 0, `seed ${seed}`);
  }
});

/** Pushes go to the provider that stands before the slash in their id. */
function setUpLanes(send: Send, more: Partial<SenderOptions> & { concurrency?: number } = {}) {
  const { concurrency = 8, ...options } = more;
  const pauses: string[] = [];
  const lane = ({ id }: Delivery) => id.slice(0, id.indexOf('/'));
  const backend = { validate: () => ({ id: '' }), send, concurrency, lane };
  const paused = (_ms: number, _reason: string, name: string) => pauses.push(name);
  return { ...setUp(send, { backend, paused, ...options }), pauses };
}

test('with many providers none takes the calls that another needs', async () => {
  const provider = manual();
  const { clock, sender } = setUpLanes(provider.send, { concurrency: 8 });
  for (let index = 0; index < 50; index++) sender.add(push(`slow/${index}`));
  await clock.advance(0);
  // As many as it leaves free.
  assert.equal(provider.calls.length, 4);
  sender.add(push('other/1'));
  sender.add(push('third/1'));
  await clock.advance(0);
  assert.deepEqual(
    provider.calls.slice(4).map(({ ids }) => ids[0]),
    ['other/1', 'third/1'],
  );
  for (const { answer } of provider.calls.splice(0)) answer(accepted);
  await clock.advance(0);
  assert.equal(provider.calls.length, 4);
  assert.equal(sender.queued, 42);
});

test('providers take turns, however much is queued up for one of them', async () => {
  const order: string[] = [];
  const { clock, sender } = setUpLanes(
    async ([first]) => {
      order.push(first!.id);
      return [accepted];
    },
    { concurrency: 2 },
  );
  for (const id of ['a/1', 'a/2', 'a/3', 'a/4', 'b/1', 'b/2']) sender.add(push(id));
  await clock.advance(0);
  assert.deepEqual(order, ['a/1', 'b/1', 'a/2', 'b/2', 'a/3', 'a/4']);
  assert.equal(sender.held, 0);
});

test('a provider that fails is left alone by itself, tried with single pushes, and all of its pushes follow', async () => {
  let down = true;
  const asked = new Map<string, number>();
  const { clock, sender, ends, pauses } = setUpLanes(async ([first]) => {
    const [name = ''] = first!.id.split('/');
    asked.set(name, (asked.get(name) ?? 0) + 1);
    return [down && name === 'down' ? retry('5xx') : accepted];
  });
  for (let index = 0; index < 100; index++) {
    sender.add(push(`down/${index}`));
    sender.add(push(`up/${index}`));
  }
  await clock.advance(0);
  assert.equal(asked.get('up'), 100);
  assert.equal(ends.length, 100);
  // 20 failures and those that were on their way.
  assert.ok(asked.get('down')! <= 24, `${asked.get('down')} calls`);
  assert.equal(sender.held, 100);
  assert.deepEqual(new Set(pauses), new Set(['down']));
  const before = asked.get('down')!;
  await clock.advance(300_000);
  assert.ok(asked.get('down')! - before <= 20, `${asked.get('down')! - before} probes in five minutes`);
  sender.add(push('up/late'));
  await clock.advance(0);
  assert.equal(ends.at(-1), 'up/late accepted');
  // A good answer of anyone.
  assert.equal(sender.isPaused, false);
  down = false;
  await clock.advance(600_000);
  assert.equal(sender.held, 0);
  assert.equal(ends.filter((end) => end.startsWith('down/') && end.endsWith('accepted')).length, 100);
  assert.equal(clock.pending, 0);
});

test('a provider that asks to wait is not tried before, and nobody else waits', async () => {
  const asked: string[] = [];
  const { clock, sender, ends } = setUpLanes(async ([first]) => {
    asked.push(first!.id);
    return [asked.length === 1 ? retry('503', 120_000, 'everyone') : accepted];
  });
  sender.add(push('a/1'));
  await clock.advance(0);
  sender.add(push('a/2'));
  sender.add(push('b/1'));
  await clock.advance(0);
  await clock.advance(119_000);
  assert.deepEqual(asked, ['a/1', 'b/1']);
  await clock.advance(60_000);
  assert.deepEqual(ends.sort(), ['a/1 accepted', 'a/2 accepted', 'b/1 accepted']);
});

test('pushes that wait for one provider leave room for those of others', async () => {
  const { clock, sender, ends } = setUpLanes(
    async ([first]) => [first!.id.startsWith('ok/') ? accepted : retry('5xx')],
    { maxRetrying: 100 },
  );
  for (let index = 0; index < 200; index++) sender.add(push(`down/${index}`));
  await clock.advance(0);
  assert.equal(sender.retrying, 50);
  assert.equal(ends.filter((end) => end.endsWith('given-up too-many-retries')).length, 150);
  for (let index = 0; index < 200; index++) sender.add(push(`too/${index}`));
  await clock.advance(0);
  assert.equal(sender.retrying, 75);
  // They all fail: that is told.
  assert.equal(sender.isPaused, true);
  sender.add(push('ok/1'));
  await clock.advance(0);
  assert.equal(sender.isPaused, false);
});

test('however many providers are silent, those that answer have half of the calls', async () => {
  const waiting: (() => void)[] = [];
  const { clock, sender, ends } = setUpLanes(
    ([first]) => {
      if (first!.id.startsWith('good')) return Promise.resolve([accepted]);
      return new Promise((resolve) => waiting.push(() => resolve([retry('no answer in time')])));
    },
    { concurrency: 8 },
  );
  for (let index = 0; index < 40; index++) sender.add(push(`silent${index}/1`));
  await clock.advance(0);
  // Nobody knows them yet.
  assert.equal(sender.inFlight, 8);
  while (waiting.length > 0) {
    for (const answer of waiting.splice(0)) answer();
    await clock.advance(0);
  }
  await clock.advance(10_000);
  assert.equal(sender.inFlight, 4);
  for (let index = 0; index < 20; index++) sender.add(push(`good${index}/1`));
  await clock.advance(0);
  assert.equal(ends.filter((end) => end.endsWith('accepted')).length, 20);
});

test('stopping hands back what waits for a provider that is left alone', async () => {
  const { clock, sender, ends } = setUpLanes(async () => [retry('5xx')]);
  for (let index = 0; index < 40; index++) sender.add(push(`down/${index}`));
  await clock.advance(0);
  const stopped = sender.stop();
  await clock.advance(0);
  assert.ok(await isDone(stopped));
  assert.deepEqual(new Set(ends.map((end) => end.split(' ')[1])), new Set(['handed-back']));
  assert.equal(ends.length, 40);
  sender.abandon();
  assert.equal(clock.pending, 0);
});

test('however many servers ask to be left alone for an hour, few are remembered once nothing waits for them', async () => {
  const { clock, sender, ends } = setUpLanes(async () => [retry('503', 3_600_000, 'everyone')], { concurrency: 100 });
  for (let index = 0; index < 3_000; index++) sender.add(push(`${index}/x`, clock.now() + 60_000));
  await clock.advance(0);
  assert.equal(ends.length, 3_000);
  assert.ok(clock.pending <= 1_001, `${clock.pending} timers`);
  await clock.advance(4_000_000);
  assert.equal(clock.pending, 0);
});

test('a push that expired more than an hour ago is sent: then it is our clock that is wrong', async () => {
  const { clock, sender, ends } = setUp(async () => [accepted]);
  const hour = 3_600_000;
  sender.add(push('an hour', clock.now() - hour));
  sender.add(push('more', clock.now() - hour - 1));
  await clock.advance(0);
  assert.deepEqual(ends, ['an hour given-up expired', 'more accepted']);
});

test('of many providers nothing is paused until twenty answers in a row are trouble', async () => {
  const outcomes: Outcome[] = [accepted, ...Array.from({ length: 20 }, () => retry('503'))];
  const { clock, sender } = setUpLanes(async () => [outcomes.shift()!]);
  for (let n = 0; n < 20; n++) sender.add(push(`${n}/x`));
  await clock.advance(0);
  assert.deepEqual([outcomes.length, sender.isPaused], [1, false]);
  sender.add(push('last/x'));
  await clock.advance(0);
  assert.equal(sender.isPaused, true);
  sender.abandon();
});
