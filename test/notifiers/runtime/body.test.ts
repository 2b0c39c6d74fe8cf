import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Body, LONGEST_ANSWER } from '../../../src/notifiers/runtime/body.ts';

test('an answer is kept whole as long as it is not too long, and otherwise cut to the byte', () => {
  const chunk = Buffer.from(Array.from({ length: 30_000 }, (_, n) => n % 251));
  const body = new Body();
  for (let n = 0; n < 3; n++) assert.equal(body.add(chunk), true);
  const rest = chunk.subarray(0, LONGEST_ANSWER - 90_000);
  assert.equal(body.add(rest), true, 'just fits');
  const whole = Buffer.concat([chunk, chunk, chunk, rest]);
  assert.deepEqual(body.bytes(), whole);
  assert.equal(body.add(chunk), false);
  assert.deepEqual(body.bytes(), whole);

  const cut = new Body();
  cut.add(chunk);
  assert.equal(cut.add(Buffer.concat([chunk, chunk, chunk])), false);
  assert.deepEqual(cut.bytes(), Buffer.concat([chunk, chunk, chunk, rest]));
});
