import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MisfitShare } from '../../../src/hivemind/notifications/misfit-share.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MINUTE = 60_000;

function setUp(misfits: number, fits: number) {
  const clock = new FakeClock();
  const share = new MisfitShare(clock);
  for (let n = 0; n < misfits; n++) share.add(true);
  for (let n = 0; n < fits; n++) share.add(false);
  return { clock, share };
}

test('twenty that do not fit are alarming if they are a fifth of all', () => {
  assert.equal(new MisfitShare(new FakeClock()).alarming, undefined);
  assert.equal(setUp(19, 0).share.alarming, undefined);
  assert.equal(setUp(20, 0).share.alarming, 1);
  assert.equal(setUp(20, 80).share.alarming, 0.2);
  assert.equal(setUp(20, 81).share.alarming, undefined);
});

test('messages count for five to ten minutes', async () => {
  const { clock, share } = setUp(20, 20);
  await clock.advance(5 * MINUTE - 1);
  assert.equal(share.alarming, 0.5);
  await clock.advance(1);
  share.add(true);
  assert.equal(share.alarming, 21 / 41);
  await clock.advance(5 * MINUTE - 1);
  assert.equal(share.alarming, 21 / 41);
  await clock.advance(1);
  assert.equal(share.alarming, undefined);
  for (let n = 0; n < 19; n++) share.add(true);
  assert.equal(share.alarming, 1, 'the one of the five minutes before counts with these');
});

test('after ten minutes without any message none counts', async () => {
  for (const [ms, alarming] of [
    [10 * MINUTE - 1, 1],
    [10 * MINUTE, undefined],
  ] as const) {
    const { clock, share } = setUp(20, 0);
    await clock.advance(ms);
    assert.equal(share.alarming, alarming);
  }
});
