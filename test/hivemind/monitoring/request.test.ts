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

test('a body has at most so many bytes as it was begun with, but one account may have as many as there are', () => {
  const accounts = new FakeAccounts(0);
  const ids = Array.from({ length: 3 }, () => accounts.idOf(accounts.add()));
  const sizes = ids.map((id) => accounts.writeMonitors(id, Buffer.alloc(1_000), 0));
  const all = sizes.reduce((sum, size) => sum + size, 0);
  for (const [limit, added] of [
    [all + 2, ['added', 'added', 'added']],
    [all + 1, ['added', 'added', 'full']],
    [2, ['added', 'full', 'full']],
  ] as const) {
    const builder = new RequestBuilder(accounts, 1_000);
    builder.begin(limit);
    assert.deepEqual([builder.size, builder.count], [1, 0]);
    assert.deepEqual(
      ids.map((id) => builder.add(id, 1, undefined)),
      added,
    );
    const { body } = builder.finish();
    assert.ok(body.length <= Math.max(limit, sizes[0]! + 2));
    assert.match(body.toString(), /^l(li.*e)+e$/);
  }
  for (const [room, added] of [
    [sizes[0]! + 2, 'added'],
    [sizes[0]! + 1, 'too-large'],
  ] as const) {
    const builder = new RequestBuilder(accounts, room);
    builder.begin(1_000);
    assert.equal(builder.add(ids[0]!, 1, undefined), added);
  }
});

test('a request knows its accounts, their versions and the signatures of each, however many there are', () => {
  const accounts = new FakeAccounts(0);
  const ids = Array.from({ length: 700 }, (_, n) => accounts.idOf(accounts.add(n % 2 === 0 ? [[n]] : [[n], [n, -n]])));
  const builder = new RequestBuilder(accounts, 100_000);
  for (const from of [0, 100]) {
    builder.begin(100_000);
    for (const id of ids.slice(from)) assert.equal(builder.add(id, id + 5, new Set([699])), 'added');
    const request = builder.finish();
    assert.deepEqual([...request.ids], ids.slice(from));
    assert.deepEqual(
      [...request.versions],
      ids.slice(from).map((id) => id + 5),
    );
    assert.deepEqual([...request.ends.slice(0, 4)], [1, 3, 4, 6]);
    // Of the last one the first signature is refused, for which one of its two subscriptions has another.
    assert.deepEqual(request.refs.slice(-3), [697, 698, -699]);
  }
  builder.begin(10);
  const { ids: none, refs, body } = builder.finish();
  assert.deepEqual([none.length, refs, body.toString()], [0, [], 'le']);
  builder.begin(10_000);
  assert.equal(builder.add(ids[1]!, 1, new Set([1, -1])), 'nothing');
});
