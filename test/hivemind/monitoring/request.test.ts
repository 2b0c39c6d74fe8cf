import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestBuilder } from '../../../src/hivemind/monitoring/request.ts';
import { FakeAccounts } from './support/fake-accounts.ts';

test('an account that does not fit beside others waits for the next request, and one that fits none is told apart', () => {
  const accounts = new FakeAccounts(100);
  const small = accounts.idOf(accounts.add());
  const large = accounts.idOf(accounts.add(Array.from({ length: 50 }, (_, n) => [n])));
  const builder = new RequestBuilder(accounts, 2_000);
  builder.begin(2_000);
  assert.equal(builder.add(large, 1, undefined), 'too-large');
  assert.equal(builder.count, 0);
  assert.equal(builder.add(small, 1, undefined), 'added');
  assert.equal(builder.add(large, 1, undefined), 'full');
  assert.deepEqual([...builder.finish().ids], [small]);
});
