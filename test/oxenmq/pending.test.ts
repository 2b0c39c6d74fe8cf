import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pending } from '../../src/oxenmq/pending.ts';
import { FakeClock } from '../support/fake-clock.ts';

test('a request ends once, by whatever comes first, and leaves no timer', async () => {
  const clock = new FakeClock();
  const pending = new Pending(clock);
  const answered = pending.add('a.b', 1000);
  const refused = pending.add('a.b', 1000);
  const late = pending.add('a.b', 1000);
  const failed = pending.add('a.c', 5000);
  assert.equal(pending.size, 4);
  for (const { tag } of [answered, refused, late, failed]) assert.equal(tag.length, 15);
  assert.equal(pending.settle(answered.tag, [Buffer.from('x')]), true);
  assert.equal(pending.settle(answered.tag, []), false);
  assert.deepEqual(await answered.reply, [Buffer.from('x')]);
  assert.equal(pending.refuse(refused.tag, 'FORBIDDEN'), true);
  await assert.rejects(refused.reply, { name: 'OxenmqError', code: 'FORBIDDEN' });
  const timedOut = assert.rejects(late.reply, { code: 'TIMEOUT', message: 'no reply to a.b within 1000 ms' });
  await clock.advance(1000);
  await timedOut;
  assert.equal(pending.settle(late.tag, []), false);
  pending.failAll('CLOSED', 'closed');
  await assert.rejects(failed.reply, { code: 'CLOSED', message: 'closed' });
  assert.equal(pending.size, 0);
  assert.equal(clock.pending, 0);
});

test('a refusal by name ends the oldest request of that name', async () => {
  const pending = new Pending(new FakeClock());
  pending.add('a.x', 1000).reply.catch(() => {});
  const [first, second] = [pending.add('a.b', 1000), pending.add('a.b', 1000)];
  assert.equal(pending.refuseOldest('a.b', 'UNKNOWNCOMMAND'), true);
  await assert.rejects(first.reply, { code: 'UNKNOWNCOMMAND' });
  assert.equal(pending.refuseOldest('a.c', 'UNKNOWNCOMMAND'), false);
  pending.settle(second.tag, []);
  assert.deepEqual(await second.reply, []);
});

test('no two requests have the same tag, however many there are', () => {
  const pending = new Pending(new FakeClock());
  const tags = Array.from({ length: 1_000 }, () => {
    const { tag, reply } = pending.add('a.b', 1_000);
    reply.catch(() => {});
    return tag;
  });
  // One that was handed out stays as it was while others are drawn.
  assert.equal(new Set(tags.map((tag) => tag.toString('hex'))).size, 1_000);
  for (const tag of tags) assert.equal(tag.length, 15);
  assert.equal(pending.size, 1_000);
  pending.failAll('CLOSED', 'closed');
});
