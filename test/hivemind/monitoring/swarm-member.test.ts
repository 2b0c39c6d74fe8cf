import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Channel, MAX_BODY, SwarmMember } from '../../../src/hivemind/monitoring/swarm-member.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1_000;

/** A member whose waits are what they are on average. */
function setUp() {
  const clock = new FakeClock();
  const now = () => Math.floor(clock.monotonic() / SECOND);
  const member = new SwarmMember({ clock, now, jitter: () => 0.5, interval: 60, rank: 0, suspect: () => {} });
  const channel: Channel = { request: () => {}, close: () => {} };
  member.up(channel);
  /** Seconds until it may be asked again. */
  const rest = () => {
    let seconds = 0;
    for (; member.isResting && seconds < 1_000; seconds++) clock.run(SECOND);
    return seconds;
  };
  return { clock, member, channel, rest };
}

test('a server that was never connected has nothing in flight, no swarm and no failures', () => {
  const clock = new FakeClock();
  const member = new SwarmMember({ clock, now: () => 1, jitter: () => 0, interval: 60, rank: 7, suspect: () => {} });
  const { isUp, bulkInFlight, urgentInFlight, failures, limit, isResting, isSilent, swarm, rank } = member;
  assert.deepEqual(
    { isUp, bulkInFlight, urgentInFlight, failures, limit, isResting, isSilent, swarm, rank },
    {
      isUp: false,
      bulkInFlight: false,
      urgentInFlight: 0,
      failures: 0,
      limit: 0,
      isResting: false,
      isSilent: false,
      swarm: undefined,
      rank: 7,
    },
  );
});

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
  const { clock, member, channel, rest } = setUp();
  const rests: number[] = [];
  for (let n = 0; n < 10; n++) {
    member.down();
    member.up(channel);
    rests.push(rest());
  }
  assert.deepEqual(rests, [0, 0, 0, 2, 4, 8, 16, 32, 60, 0], 'the last one held for a minute');
  clock.run(60 * SECOND);
  member.up(channel);
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

test('a server that says that accounts are elsewhere is asked again in seconds, each time later, for all of them together', () => {
  const clock = new FakeClock();
  const now = () => 1_000 + Math.floor(clock.monotonic() / SECOND);
  const state = { suspected: 0 };
  const suspect = () => {
    state.suspected++;
  };
  const member = new SwarmMember({ clock, now, jitter: () => 0.5, interval: 60, rank: 0, suspect });
  member.schedule.begin(2, 2);
  const { walk } = member.schedule;
  /** Seconds until what is elsewhere is asked for again. */
  const dispute = () => {
    walk.restart();
    walk.begin(now());
    walk.end(Number.POSITIVE_INFINITY);
    member.elsewhere(0, 'error 6');
    const before = state.suspected;
    clock.run(SECOND);
    member.elsewhere(1, 'error 6');
    assert.equal(state.suspected, before, 'one doubt for all of a dispute');
    let seconds = 1;
    for (; !walk.hasWorkAt(now()); seconds++) clock.run(SECOND);
    return seconds;
  };
  assert.deepEqual(Array.from({ length: 9 }, dispute), [4, 8, 16, 32, 64, 128, 256, 300, 300]);
  assert.equal(state.suspected, 9);
  clock.run(600 * SECOND);
  assert.equal(dispute(), 300, 'ten minutes of peace are not enough');
  clock.run(601 * SECOND);
  assert.equal(dispute(), 4);
});

test('an ended monitor counts if it was confirmed, and is disputed unless a request is on its way', () => {
  const clock = new FakeClock();
  const state = { suspected: 0 };
  const suspect = () => {
    state.suspected++;
  };
  const member = new SwarmMember({ clock, now: () => 1_000, jitter: () => 0.5, interval: 60, rank: 0, suspect });
  const { schedule } = member;
  schedule.begin(2, 2);
  assert.equal(member.ended(0), false);
  schedule.confirmed(0, 1_000);
  schedule.asked(0);
  assert.deepEqual([member.ended(0), schedule.isConfirmed(0), schedule.isInFlight(0)], [true, false, true]);
  assert.equal(state.suspected, 0);
  schedule.confirmed(1, 1_000);
  assert.deepEqual([member.ended(1), schedule.isConfirmed(1), state.suspected], [true, false, 1]);
  assert.equal(schedule.figures.lastError, 'ended the monitor of an account of its swarm');
});

test('replies count for the handshake and the swarm that they were asked under', () => {
  const { member } = setUp();
  const replies: (() => void)[] = [];
  const channel: Channel = {
    request: (_body, done) => replies.push(() => done(Buffer.from('le'), undefined)),
    close: () => {},
  };
  const late: boolean[] = [];
  const ask = (isUrgent: boolean) =>
    member.request(Buffer.from('x'), isUrgent, (_reply, _failure, isLate) => late.push(isLate));
  const inFlight = () => [member.bulkInFlight, member.urgentInFlight];
  member.up(channel);
  ask(false);
  ask(true);
  ask(true);
  assert.deepEqual(inFlight(), [true, 2]);
  replies[1]!();
  assert.deepEqual(inFlight(), [true, 1]);
  replies[0]!();
  assert.deepEqual(inFlight(), [false, 1]);
  const swarm = { id: 7n, number: 0, accounts: new Uint32Array(8), count: 3, members: [] };
  for (const change of [() => member.up(channel), () => member.enter(swarm), () => member.leave()]) {
    ask(false);
    ask(true);
    const { epoch } = member;
    change();
    assert.equal(member.epoch, epoch + 1);
    assert.deepEqual(inFlight(), [false, 0]);
    ask(false);
    ask(true);
    for (const reply of replies.slice(-4, -2)) reply();
    assert.deepEqual(inFlight(), [true, 1], 'late ones are not of those');
    for (const reply of replies.slice(-2)) reply();
    assert.deepEqual(inFlight(), [false, 0]);
    assert.deepEqual(late.slice(-4), [true, true, false, false]);
  }
  assert.deepEqual([member.swarm, member.schedule.count], [undefined, 0]);
  member.down();
  assert.equal(member.isUp, false);
  assert.throws(() => ask(false), /not connected/);
});

test('nothing left to ask makes no server silent, unless something urgent waits for its answer', () => {
  const { member, rest } = setUp();
  for (let n = 0; n < 3; n++) {
    member.failed('no answer', 1_000, false, false);
    rest();
  }
  assert.equal(member.isSilent, true);
  member.request(Buffer.from('x'), true, () => {});
  member.idle();
  assert.equal(member.isSilent, true);
  member.leave();
  member.idle();
  assert.deepEqual([member.isSilent, member.failures], [false, 0]);
  member.failed('no answer', 1_000, false, false);
  member.down();
  assert.deepEqual([member.isSilent, member.isFresh], [false, false]);
});

test('a server is fresh when it is connected and has nothing unconfirmed', () => {
  const { member, channel } = setUp();
  member.schedule.begin(1, 1);
  assert.equal(member.isFresh, false);
  member.schedule.confirmed(0, 1);
  assert.equal(member.isFresh, true);
  member.down();
  assert.equal(member.isFresh, false);
  member.up(channel);
  assert.equal(member.isFresh, false, 'it may have forgotten everything');
});

test('a swarm that a server was in before counts for 65 minutes', () => {
  const { clock, member } = setUp();
  const formers = () => member.formers.map(({ id, until }) => [id, until - clock.monotonic()]);
  member.listedIn(1n);
  assert.deepEqual([member.swarmId, formers()], [1n, []]);
  member.movedTo(2n);
  const lifetime = 65 * 60 * SECOND;
  assert.deepEqual([member.swarmId, formers()], [2n, [[1n, lifetime]]]);
  clock.run(SECOND);
  member.movedTo(1n);
  member.movedTo(2n);
  assert.deepEqual(formers(), [
    [2n, lifetime],
    [1n, lifetime],
  ]);
  clock.run(lifetime);
  member.movedTo(3n);
  assert.deepEqual(formers(), [
    [1n, 0],
    [2n, lifetime],
  ]);
  clock.run(1);
  member.movedTo(4n);
  assert.deepEqual(
    formers().map(([id]) => id),
    [2n, 3n],
  );
});
