import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FeedPosition } from '../../../src/hivemind/store/feed-position.ts';

const position = (text: string) => FeedPosition.parse(text);

test('a position is written as PostgreSQL writes its snapshots', () => {
  for (const text of ['1:1:', '750:755:750,753', '12345678901234567890:12345678901234567890:']) {
    assert.equal(String(position(text)), text);
  }
  for (const text of ['', '1:1', '1:1:x', 'a:b:'])
    assert.throws(() => position(text), /The database did not send a snapshot/);
});

test('a partial position counts as ended what it says has ended, up to there', () => {
  assert.equal(String(position('10:20:10,15').upTo(20n)), '10:20:10,15');
  assert.equal(String(position('10:20:10,15').upTo(15n)), '10:15:10');
  assert.equal(String(position('10:20:10,15').upTo(10n)), '10:10:');
});

test('two positions have in common what both count as ended', () => {
  const ended = ({ xmax, xip }: FeedPosition) =>
    Array.from({ length: 40 }, (_, n) => BigInt(n)).filter((xid) => xid < xmax && !xip.includes(xid));
  for (const [a, b, met] of [
    ['5:20:5,7', '7:20:7,11', '5:20:5,7,11'],
    ['5:10:5', '12:20:12', '5:10:5'],
    ['5:10:5', '10:20:10', '5:10:5'],
    ['5:30:5,25', '9:20:9', '5:20:5,9'],
    ['1:1:', '9:20:9', '1:1:'],
  ] as const) {
    const [one, other] = [position(a), position(b)];
    const both = ended(one).filter((xid) => ended(other).includes(xid));
    assert.deepEqual(ended(one.meet(other)), both, `${a} and ${b}`);
    assert.deepEqual([one.meet(other), other.meet(one)].map(String), [met, met]);
  }
});
