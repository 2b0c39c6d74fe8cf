import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Link, MAX_BODY, Member } from '../../../src/hivemind/monitoring/member.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1_000;

/** A member whose waits are what they are on average. */
function setUp() {
  const clock = new FakeClock();
  const now = () => Math.floor(clock.monotonic() / SECOND);
  const member = new Member({ clock, now, jitter: () => 0.5, interval: 60, rank: 0, suspect: () => {} });
  const link: Link = { request: () => {}, close: () => {} };
  member.up(link);
  /** Seconds until it may be asked again. */
  const rest = () => {
    let seconds = 0;
    for (; member.isResting && seconds < 1_000; seconds++) clock.run(SECOND);
    return seconds;
  };
  return { clock, member, link, rest };
}

test('a server that does not answer is asked at ever longer intervals, of a minute at most, until it answers', () => {
  const { member, rest } = setUp();
  const rests: number[] = [];
  for (let n = 0; n < 8; n++) {
    member.failed('no answer', 1_000, false, false);
    rests.push(rest());
  }
  assert.deepEqual(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
  member.failed('no answer', 1_000, false, false);
  member.answered(false);
  assert.deepEqual([member.isResting, member.failures], [false, 0]);
  member.failed('no answer', 1_000, false, false);
  assert.equal(rest(), 1);
});

test('requests that fail together are one failure; after three in a row the server counts as silent', () => {
  const { member, rest } = setUp();
  for (let n = 0; n < 5; n++) member.failed('no answer', 1_000, true, false);
  assert.deepEqual([member.failures, member.isSilent], [1, false]);
  for (let n = 0; n < 2; n++) {
    rest();
    member.failed('no answer', 1_000, true, false);
  }
  assert.deepEqual([member.failures, member.isSilent], [3, true]);
});

test('a connection that breaks again and again has its first handshakes acted on at once, later ones after a while', () => {
  const { clock, member, link, rest } = setUp();
  const rests: number[] = [];
  for (let n = 0; n < 10; n++) {
    member.down();
    member.up(link);
    rests.push(rest());
  }
  assert.deepEqual(rests, [0, 0, 0, 2, 4, 8, 16, 32, 60, 0], 'the last one held for a minute');
  clock.run(60 * SECOND);
  member.up(link);
  assert.equal(rest(), 0);
});

test('bodies grow fourfold with each good answer, and shrink with what failed or was rejected', () => {
  const { member } = setUp();
  const limits: number[] = [member.limit];
  const then = (what: () => void) => {
    what();
    limits.push(member.limit);
  };
  then(() => member.answered(true));
  then(() => member.answered(false));
  then(() => member.answered(false));
  then(() => member.answered(false));
  assert.deepEqual(limits.splice(0), [262_144, 262_144, 1_048_576, 4_194_304, MAX_BODY]);
  then(() => member.failed('no answer', 1_000_000, false, false));
  then(() => member.failed('no answer', 500, true, false));
  then(() => member.failed('rejected', 1_001, false, true));
  then(() => member.failed('no answer', 501, false, false));
  assert.deepEqual(limits, [250_000, 62_500, 501, 1_024]);
});
