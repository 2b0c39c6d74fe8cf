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
  const hivemind = { ask: async () => outcome, connected: true, inFlight: 0, close: async () => undefined };
  const answer = await subscription(hivemind, '/subscribe', Buffer.from(body), LIMIT);
  return { status: answer.status, body: String(answer.body), headers: answer.headers };
}

const reply = (text: string): Outcome => ({ kind: 'reply', data: Buffer.from(text) });

test('a reply of the hivemind goes back unchanged, with the status 503 if any of its errors passes', async () => {
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

test('without an answer of the hivemind the client is told to come again, in the form in which it asked', async () => {
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

test('when too many requests wait already, the client is told when to come again', async () => {
  const answer = await answerTo({ kind: 'busy' });
  assert.equal(answer.status, 503);
  assert.equal(answer.headers['retry-after'], '15');
  assert.equal(JSON.parse(answer.body).error, 2);
});

test('other trouble with the hivemind is error 4 in the words of the original', async () => {
  const answer = await answerTo({ kind: 'failed', reason: 'FORBIDDEN' });
  assert.deepEqual(
    [answer.status, answer.body],
    [200, '{"error":4,"message":"An error occured while processing your request"}\n'],
  );
});

test('a hivemind that goes away settles what waits for it, and is found again when it comes back', async (t) => {
  const received: Incoming[] = [];
  let gotOne = (): void => undefined;
  const fake = await fakeHivemind(t, (_, request) => {
    received.push(request);
    gotOne();
  });
  const { hivemind, until } = connect(t, fake.address);
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('early')), { kind: 'away' });
  await fake.start();
  await until(true);

  const arrived = new Promise<void>((resolve) => {
    gotOne = resolve;
  });
  const waiting = hivemind.ask('push.subscribe', Buffer.from('one'));
  await arrived;
  assert.equal(hivemind.inFlight, 1);
  await fake.stop();
  assert.deepEqual(await waiting, { kind: 'away' });
  await until(false);
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('two')), { kind: 'away' });
  assert.equal(hivemind.inFlight, 0);

  gotOne = () => received.at(-1)!.reply('here I am');
  await fake.start();
  await until(true);
  const answer = await hivemind.ask('push.unsubscribe', Buffer.from('three'));
  assert.deepEqual(answer, { kind: 'reply', data: Buffer.from('here I am') });
});

test('a hivemind that takes requests and says nothing is given 20 s, and no more requests than the limit', async (t) => {
  let count = 0;
  let gotTwo = (): void => undefined;
  const fake = await fakeHivemind(t, () => {
    if (++count === 2) gotTwo();
  });
  await fake.start();
  const clock = new FakeClock();
  const { hivemind, until } = connect(t, fake.address, { clock, limit: 2 });
  await until(true);
  const arrived = new Promise<void>((resolve) => {
    gotTwo = resolve;
  });
  const waiting = [hivemind.ask('push.subscribe', Buffer.from('1')), hivemind.ask('push.subscribe', Buffer.from('2'))];
  await arrived;
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('3')), { kind: 'busy' });
  await clock.advance(19_000);
  assert.equal(hivemind.inFlight, 2);
  await clock.advance(2_000);
  assert.deepEqual(await Promise.all(waiting), [{ kind: 'timeout' }, { kind: 'timeout' }]);
  assert.equal(hivemind.inFlight, 0);
});

test('a hivemind that is none is no reason to fall over', async (t) => {
  const fake = await fakeHivemind(t, (_, request) => request.reply());
  await fake.start();
  const { hivemind, until } = connect(t, fake.address);
  await until(true);
  assert.deepEqual(await hivemind.ask('push.subscribe', Buffer.from('{}')), { kind: 'failed', reason: 'empty reply' });
});
