import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Incoming } from '../../src/oxenmq/remote.ts';
import type { Outcome } from '../../src/web/hivemind.ts';
import { subscription } from '../../src/web/subscriptions.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { connect, fakeHivemind } from './fake-hivemind.ts';

const LIMIT = 100_000;

/** What a client is answered when the hivemind says `outcome`. */
async function answerTo(outcome: Outcome, body = '{}') {
  const hivemind = {
    ask: async () => outcome,
    problem: undefined,
    missing: [],
    connected: true,
    inFlight: 0,
    close: async () => undefined,
  };
  const answer = await subscription(hivemind, '/subscribe', Buffer.from(body), LIMIT);
  return { status: answer.status, body: String(answer.body), headers: answer.headers };
}

const reply = (text: string): Outcome => ({ kind: 'reply', data: Buffer.from(text) });

test('a reply of the hivemind goes back unchanged, with the status 503 if any of its errors is temporary', async () => {
  const cases: [string, number][] = [
    ['{"added":true,"message":"Subscription successful","success":true}', 200],
    ['[{"success":true},{"success":true}]', 200],
    ['{"error":1,"message":"Invalid JSON"}', 200],
    ['{"error":2,"message":"apns notification service not currently available"}', 503],
    ['{"error":3,"message":"apns notification service timed out"}', 503],
    ['{"error":4,"message":"Signature verification failed"}', 200],
    ['{"error":5,"message":"An internal error occurred while processing your request"}', 503],
    ['[{"success":true},{"error":4,"message":"x"},{"error":2,"message":"y"}]', 503],
    ['[{"success":true},{"error":4,"message":"x"}]', 200],
    ['{"message":"a text with \\"error\\": 3 in it","success":true}', 200],
    ['not JSON, with "error"', 200],
    ['["error",null,3]', 200],
    ['', 200],
  ];
  for (const [text, status] of cases) {
    const answer = await answerTo(reply(text));
    assert.deepEqual([answer.status, answer.body], [status, text], text);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(answer.headers['retry-after'], status === 503 ? '15' : undefined);
  }
});

test('where the hivemind says whether an answer is final, the codes are not consulted', async () => {
  const data = Buffer.from('{"error":2,"message":"nope notification service not currently available"}');
  for (const [passing, status] of [
    [true, 503],
    [false, 200],
    [undefined, 503],
  ] as const) {
    assert.equal((await answerTo({ kind: 'reply', data, passing })).status, status);
  }
});

test('without an answer of the hivemind the client is told to retry, in the form in which it asked', async () => {
  const error = '{"error":3,"message":"Timeout waiting for push notification backend"}';
  for (const kind of ['away', 'timeout'] as const) {
    assert.deepEqual(await answerTo({ kind }, '{}').then(({ status, body }) => [status, body]), [503, `${error}\n`]);
    const array = await answerTo({ kind }, ' [{"pubkey":"05"}, {"pubkey":"03"}]');
    assert.deepEqual([array.status, array.body], [503, `[${error},${error}]\n`]);
    assert.equal(array.headers['retry-after'], '15');
    assert.equal((await answerTo({ kind }, '[broken')).body, `${error}\n`);
    assert.equal((await answerTo({ kind }, '[]')).body, `${error}\n`);
    assert.equal(
      (await answerTo({ kind }, `[${'0,'.repeat(40_000)}0]`)).body,
      `${error}\n`,
      'no reply dwarfs its request',
    );
  }
});

test('an error is repeated for up to 1,000 elements, and of a status that is retried only in up to 8,000 bytes', async () => {
  const count = async (outcome: Outcome, body: string) => {
    const value = JSON.parse((await answerTo(outcome, body)).body);
    return Array.isArray(value) ? value.length : 'one';
  };
  const failed: Outcome = { kind: 'failed', reason: 'FORBIDDEN' };
  const elements = (length: number) => JSON.stringify(Array.from({ length }, () => 0));
  const sized = (bytes: number) => `[${' '.repeat(bytes - 3)}0]`;
  for (const outcome of [{ kind: 'away' }, { kind: 'busy' }, failed] as const) {
    assert.equal(await count(outcome, elements(1_000)), 1_000);
    assert.equal(await count(outcome, elements(1_001)), 'one');
    assert.equal(await count(outcome, elements(1)), 1);
    assert.equal(await count(outcome, sized(8_000)), 1);
    assert.equal(await count(outcome, sized(8_001)), outcome === failed ? 1 : 'one');
  }
});

test('a body of as many bytes as are allowed is passed on, and a longer one is refused unread', async () => {
  const asked: number[] = [];
  const hivemind = {
    ask: async (_: string, body: Uint8Array): Promise<Outcome> => {
      asked.push(body.length);
      return reply('{}');
    },
    problem: undefined,
    missing: [],
    connected: true,
    inFlight: 0,
    close: async () => undefined,
  };
  for (const [size, text] of [
    [LIMIT, '{}'],
    [LIMIT + 1, '{"error":1,"message":"Invalid request: request too large"}\n'],
  ] as const) {
    const answer = await subscription(hivemind, '/subscribe', Buffer.alloc(size), LIMIT);
    assert.deepEqual([answer.status, String(answer.body)], [200, text]);
  }
  assert.deepEqual(asked, [LIMIT]);
});

test('when too many requests wait already, the client is told when to retry', async () => {
  const answer = await answerTo({ kind: 'busy' });
  assert.equal(answer.status, 503);
  assert.equal(answer.headers['retry-after'], '15');
  assert.equal(JSON.parse(answer.body).error, 2);
});

test('other problems with the hivemind are error 4 in the words of the original', async () => {
  const answer = await answerTo({ kind: 'failed', reason: 'FORBIDDEN' });
  assert.deepEqual(
    [answer.status, answer.body],
    [200, '{"error":4,"message":"An error occured while processing your request"}\n'],
  );
});

test('requests are held while the hivemind restarts, those it already had included, and given to the next', async (t) => {
  const received: Incoming[] = [];
  let gotOne = (): void => undefined;
  const fake = await fakeHivemind(t, (_, request) => {
    received.push(request);
    gotOne();
  });
  const { hivemind, untilConnected } = connect(t, fake.address);
  const early = hivemind.ask('push.subscribe', Buffer.from('early'));
  gotOne = () => received.at(-1)!.reply('welcome', 'final');
  await fake.start();
  assert.deepEqual(await early, { kind: 'reply', data: Buffer.from('welcome'), passing: false });

  const arrived = new Promise<void>((resolve) => {
    gotOne = resolve;
  });
  const waiting = hivemind.ask('push.subscribe', Buffer.from('one'), 'somebody');
  await arrived;
  assert.equal(hivemind.inFlight, 1);
  await fake.stop();
  await untilConnected(false);
  const meanwhile = hivemind.ask('push.unsubscribe', Buffer.from('two'));
  assert.equal(hivemind.inFlight, 2);

  gotOne = () => received.at(-1)!.reply(`answer to ${received.at(-1)!.parts[0]}`, 'passing');
  await fake.start();
  assert.deepEqual(await waiting, { kind: 'reply', data: Buffer.from('answer to one'), passing: true });
  assert.deepEqual(await meanwhile, { kind: 'reply', data: Buffer.from('answer to two'), passing: true });
  assert.deepEqual(
    received.map(({ parts }) => parts.map(String)),
    [
      ['early', ''],
      ['one', 'somebody'],
      ['one', 'somebody'],
      ['two', ''],
    ],
  );
  assert.equal(hivemind.inFlight, 0);
});

test('nobody waits longer than 10 s for a hivemind that is away, nor at all once it is away for a minute', async (t) => {
  const fake = await fakeHivemind(t, () => undefined);
  const clock = new FakeClock();
  const { hivemind } = connect(t, fake.address, { clock, limit: 2 });
  const waiting = [hivemind.ask('push.subscribe', Buffer.from('1')), hivemind.ask('push.subscribe', Buffer.from('2'))];
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('3')), { kind: 'busy' }, 'they take places');
  await clock.advance(9_999);
  assert.equal(hivemind.inFlight, 2);
  await clock.advance(1);
  assert.deepEqual(await Promise.all(waiting), [{ kind: 'away' }, { kind: 'away' }]);
  await clock.advance(50_000);
  const last = hivemind.ask('push.subscribe', Buffer.from('4'));
  await clock.advance(1);
  assert.equal(hivemind.inFlight, 1, 'it is not away for more than a minute yet');
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('5')), { kind: 'away' });
  await clock.advance(9_999);
  assert.deepEqual(await last, { kind: 'away' });
});

test('a request that was held is answered before a storage server gives up, after 25 s', async (t) => {
  let arrive = (): void => undefined;
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const fake = await fakeHivemind(t, () => arrive());
  const clock = new FakeClock();
  const { hivemind } = connect(t, fake.address, { clock });
  const waiting = hivemind.ask('push.subscribe', Buffer.from('1'));
  await clock.advance(9_000);
  await fake.start();
  await arrived;
  await clock.advance(14_999);
  assert.equal(hivemind.inFlight, 1);
  await clock.advance(1);
  assert.equal(hivemind.inFlight, 0);
  assert.deepEqual(await waiting, { kind: 'timeout' });
});

test('a front-end that stops keeps nobody waiting', async (t) => {
  const fake = await fakeHivemind(t, () => undefined);
  const { hivemind } = connect(t, fake.address);
  const waiting = hivemind.ask('push.subscribe', Buffer.from('1'));
  await hivemind.close();
  assert.deepEqual(await waiting, { kind: 'away' });
});

test('a hivemind that accepts requests and says nothing is given 20 s, and no more requests than the limit', async (t) => {
  let count = 0;
  let gotTwo = (): void => undefined;
  const fake = await fakeHivemind(t, () => {
    if (++count === 2) gotTwo();
  });
  await fake.start();
  const clock = new FakeClock();
  const { hivemind, untilConnected } = connect(t, fake.address, { clock, limit: 2 });
  await untilConnected(true);
  const arrived = new Promise<void>((resolve) => {
    gotTwo = resolve;
  });
  const waiting = [hivemind.ask('push.subscribe', Buffer.from('1')), hivemind.ask('push.subscribe', Buffer.from('2'))];
  await arrived;
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('3')), { kind: 'busy' });
  await clock.advance(19_999);
  assert.equal(hivemind.inFlight, 2);
  await clock.advance(1);
  assert.deepEqual(await Promise.all(waiting), [{ kind: 'timeout' }, { kind: 'timeout' }]);
  assert.equal(hivemind.inFlight, 0);
});

test('something that is not a hivemind does not crash the front-end', async (t) => {
  const fake = await fakeHivemind(t, (_, request) => request.reply());
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('{}')), { kind: 'failed', reason: 'empty reply' });
});
