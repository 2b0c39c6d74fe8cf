import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AccessToken, TokenError } from '../../../src/notifiers/runtime/access-token.ts';
import { misconfigured, retry } from '../../../src/notifiers/runtime/backend.ts';
import type { Reply } from '../../../src/notifiers/runtime/http.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** A provider that gives `token-1`, `token-2` … for that long, or another answer. */
function setUp(expiresIn: unknown = 3600) {
  const clock = new FakeClock();
  const state = { asked: 0, reply: undefined as Partial<Reply> | Error | undefined };
  const ask = async (): Promise<Reply> => {
    state.asked++;
    if (state.reply instanceof Error) throw state.reply;
    const text = JSON.stringify({ access_token: `token-${state.asked}`, expires_in: expiresIn });
    return { status: 200, headers: {}, text, ...state.reply };
  };
  const token = new AccessToken(ask, clock);
  const outcome = async () => {
    const error: unknown = await token.get().catch((error: unknown) => error);
    assert.ok(error instanceof TokenError);
    return error.outcome;
  };
  return { clock, state, token, outcome };
}

for (const [expiresIn, used] of [
  [3600, 55 * MINUTE],
  ['3600', 55 * MINUTE],
  [601, 301 * SECOND],
  [599, 299.5 * SECOND],
  [121, 60.5 * SECOND],
  [1, MINUTE],
  [10_000_000, 24 * 60 * MINUTE - 5 * MINUTE],
] as const) {
  test(`a token that is valid for ${JSON.stringify(expiresIn)} s is used for ${used / SECOND} s`, async () => {
    const { clock, token } = setUp(expiresIn);
    assert.equal(await token.get(), 'token-1');
    await clock.advance(used - 1);
    assert.equal(await token.get(), 'token-1');
    await clock.advance(1);
    assert.equal(await token.get(), 'token-2');
  });
}

test('everybody who waits shares one request, and those who come after a failure ask anew', async () => {
  const { state, token, outcome } = setUp();
  state.reply = new Error('no answer in time');
  const failed = [outcome(), outcome()];
  for (const result of await Promise.all(failed)) assert.deepEqual(result, retry('OAuth: no answer in time'));
  assert.equal(state.asked, 1);
  state.reply = undefined;
  assert.deepEqual(await Promise.all([token.get(), token.get()]), ['token-2', 'token-2']);
});

test('a token that is not accepted is given up, unless it has been replaced already', async () => {
  const { token } = setUp();
  assert.equal(await token.get(), 'token-1');
  token.discard('token-0');
  assert.equal(await token.get(), 'token-1');
  token.discard('token-1');
  assert.equal(await token.get(), 'token-2');
  token.discard('token-1');
  assert.equal(await token.get(), 'token-2');
});

test('an answer without a token is retried if the problem may pass, and otherwise reported as a wrong configuration', async () => {
  const { state, outcome } = setUp();
  const good = { access_token: 'x', expires_in: 3600 };
  const answers: [Partial<Reply>, unknown][] = [
    [{ status: 499, text: '{"error":"invalid_grant"}' }, misconfigured('OAuth: 499 invalid_grant')],
    [{ status: 400, text: '{"error":1101}' }, misconfigured('OAuth: 400 1101')],
    [{ status: 400, text: JSON.stringify({ error: 'e'.repeat(60) }) }, misconfigured(`OAuth: 400 ${'e'.repeat(60)}`)],
    [{ status: 400, text: JSON.stringify({ error: 'e'.repeat(61) }) }, misconfigured('OAuth: 400')],
    [{ status: 400, text: '{"error":"the secret is hunter2"}' }, misconfigured('OAuth: 400')],
    [{ status: 201, text: JSON.stringify(good) }, misconfigured('OAuth: 201')],
    [{ status: 500, text: 'oops' }, retry('OAuth: 500')],
    [{ status: 503, headers: { 'retry-after': '7' } }, retry('OAuth: 503', 7000, 'everyone')],
    [{ status: 429 }, retry('OAuth: 429')],
    [{ text: '[]' }, retry('OAuth: 200')],
    [{ text: JSON.stringify({ ...good, access_token: 7 }) }, retry('OAuth: 200')],
    [{ text: JSON.stringify({ ...good, access_token: 'two\nlines' }) }, retry('OAuth: 200')],
    [{ text: JSON.stringify({ ...good, access_token: 'x'.repeat(8193) }) }, retry('OAuth: 200')],
    [{ text: JSON.stringify({ ...good, expires_in: 0 }) }, retry('OAuth: 200')],
    [{ text: JSON.stringify({ ...good, expires_in: 'soon' }) }, retry('OAuth: 200')],
  ];
  for (const [reply, expected] of answers) {
    state.reply = reply;
    assert.deepEqual(await outcome(), expected, JSON.stringify(reply).slice(0, 100));
  }
});
