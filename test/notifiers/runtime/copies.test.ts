import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mulberry32 } from '../../../src/mulberry32.ts';
import { accepted, gone, refused } from '../../../src/notifiers/runtime/backend.ts';
import { Copies, type GivenPush, type Giver } from '../../../src/notifiers/runtime/copies.ts';
import type { End } from '../../../src/notifiers/runtime/sender.ts';
import { FakeClock } from '../support.ts';

const HOUR = 3_600_000;
const giver = (link: string, id = 1): Giver<string> => ({ link, id, wantsAnswer: false });

function setUp() {
  const clock = new FakeClock();
  const copies = new Copies<string>(clock, HOUR);
  /** What becomes of a push that comes: a new one is sent. */
  const come = (fingerprint: string | null, doubt = 0, from = giver('a'), proven: string | null = null) => {
    const marks = { fingerprint, doubt, proven };
    const known = copies.find(marks, from);
    if (known !== undefined) return known;
    const delivery = { id: 'device', data: null, payload: Buffer.alloc(0), expiry: 0, urgent: true, returnable: true };
    const push: GivenPush<string> = { ...delivery, givers: [from], ...marks };
    copies.add(push);
    return push;
  };
  const first = (fingerprint: string, doubt = 0) => {
    const push = come(fingerprint, doubt);
    assert.ok(typeof push === 'object');
    return push;
  };
  return { clock, copies, come, first };
}

test('a copy joins the first while that is on its way, and gets its verdict afterwards', () => {
  const ends: [End, string][] = [
    [accepted, 'accepted'],
    [refused('x'), 'refused'],
    [gone('x', 0), 'refused'],
    [{ kind: 'given-up', reason: 'expired' }, 'refused'],
  ];
  const { copies, come, first } = setUp();
  ends.forEach(([end, verdict], n) => {
    const push = first(`number ${n}`);
    const second = giver('b', 7);
    assert.equal(come(`number ${n}`, 0, second), 'joined');
    assert.deepEqual(push.givers, [giver('a'), second]);
    copies.end(push, end);
    assert.equal(come(`number ${n}`), verdict);
  });
  assert.equal(copies.remembered, ends.length);
});

test('what was handed back is forgotten, and sent when it comes again', () => {
  const { copies, come, first } = setUp();
  copies.end(first('push   1'), { kind: 'handed-back' });
  assert.equal(copies.remembered, 0);
  assert.ok(typeof come('push   1') === 'object');
});

test('pushes of a hivemind that is alone are never copies', () => {
  const { copies, come } = setUp();
  for (let n = 0; n < 3; n++) {
    const push = come(null);
    assert.ok(typeof push === 'object');
    copies.end(push, accepted);
  }
  assert.equal(copies.remembered, 0);
});

test('less doubt makes a push of its own, whatever became of the other, and then counts for all', () => {
  const { copies, come, first } = setUp();
  const doubtful = first('push   1', 2);
  const better = first('push   1', 1);
  assert.equal(come('push   1', 2, giver('b')), 'joined');
  assert.equal(come('push   1', 1, giver('b')), 'joined');
  assert.deepEqual([doubtful.givers.length, better.givers.length], [1, 3]);
  copies.end(better, refused('x'));
  // The end of the one before does not make it the one that counts.
  copies.end(doubtful, accepted);
  assert.equal(come('push   1', 1), 'refused');
  assert.equal(come('push   1', 2), 'refused');
  const best = first('push   1', 0);
  copies.end(best, accepted);
  for (const doubt of [0, 1, 2]) assert.equal(come('push   1', doubt), 'accepted');
});

test('what one hivemind gave without doubt need not go again on the doubtful copy that another one had', () => {
  const { copies, come, first } = setUp();
  const doubtful = (of: string) => come(`doubtful ${of}`, 2, giver('b'), `proven ${of}`);
  const push = first('proven 1');
  assert.equal(doubtful('1'), 'joined');
  assert.deepEqual(push.givers, [giver('a'), giver('b')]);
  copies.end(push, accepted);
  assert.equal(doubtful('1'), 'accepted');
  assert.ok(typeof doubtful('2') === 'object');
  // The other way round a lie would keep the message away.
  assert.ok(typeof come('proven 2') === 'object');
});

test('an end is remembered for as long as a copy may come, and not for ever', async () => {
  const { clock, copies, come, first } = setUp();
  copies.end(first('push   1'), accepted);
  await clock.advance(HOUR - 1);
  assert.equal(come('push   1'), 'accepted');
  await clock.advance(HOUR + 1);
  copies.end(first('push   1'), accepted);
  copies.lifetime = 2 * HOUR;
  await clock.advance(2 * HOUR - 1);
  assert.equal(come('push   1'), 'accepted');
  await clock.advance(2 * HOUR + 1);
  assert.ok(typeof come('push   1') === 'object');
});

test('a hundred thousand ends with random fingerprints are told apart, each with its own verdict', () => {
  const { copies, come, first } = setUp();
  const next = mulberry32(17);
  const fingerprints = Array.from({ length: 100_000 }, () => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(next(), 0);
    bytes.writeUInt32LE(next(), 4);
    return bytes.toString('latin1');
  });
  fingerprints.forEach((fingerprint, n) => {
    copies.end(first(fingerprint), n % 3 === 0 ? refused('x') : accepted);
  });
  fingerprints.forEach((fingerprint, n) => {
    assert.equal(come(fingerprint), n % 3 === 0 ? 'refused' : 'accepted');
  });
});

test('ends of fingerprints that differ in one byte, or by their doubt, are told apart', () => {
  const { copies, come, first } = setUp();
  copies.end(first('abcdefgh'), accepted);
  for (let at = 0; at < 8; at++) {
    const other = `${'abcdefgh'.slice(0, at)}x${'abcdefgh'.slice(at + 1)}`;
    assert.ok(typeof come(other) === 'object', other);
  }
  for (const end of [accepted, refused('x')]) {
    const { copies, come, first } = setUp();
    copies.end(first('push   1', 1), end);
    assert.ok(typeof come('push   1', 0) === 'object', 'what is less doubtful is no copy of it');
  }
});
