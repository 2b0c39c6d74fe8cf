import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Request, RequestBuilder } from '../../../src/hivemind/monitoring/request.ts';
import { FakeAccounts, readRequest } from './support/fake-accounts.ts';
import { seeded } from './support/fake-network.ts';

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

test('what is copied from earlier requests is what would have been written, whichever accounts are asked for', () => {
  const random = seeded(1);
  const below = (limit: number) => Math.floor(random() * limit);
  const accounts = new FakeAccounts(3);
  for (let n = 0; n < 60; n++) accounts.add(n % 5 === 0 ? [[n], [n + 1000, n + 2000]] : [[n]]);
  const versions = new Map(accounts.numbers.map((number) => [accounts.idOf(number), 1]));
  const copying = new RequestBuilder(accounts, 4_000);
  const writing = new RequestBuilder(accounts, 4_000);
  const models: Request[] = [];
  let shared = 0;
  for (let round = 0; round < 2_000; round++) {
    // What is asked for an account changes with its version.
    if (below(40) === 0) {
      const number = below(60);
      accounts.change(number);
      versions.set(accounts.idOf(number), versions.get(accounts.idOf(number))! + 1);
    }
    const limit = [300, 1_000, 4_000][below(3)]!;
    copying.begin(limit, models);
    writing.begin(limit);
    if (below(20) === 0) copying.dropModels();
    const [from, step] = [below(20) * below(2), 1 + below(2) * below(2)];
    for (let id = from; id < 60; id += step) {
      const refused = below(200) === 0 ? new Set([id, id + 1000]) : undefined;
      const version = versions.get(id)!;
      const added = copying.add(id, version, refused);
      assert.equal(added, writing.add(id, version, refused));
      assert.deepEqual([copying.count, copying.size], [writing.count, writing.size]);
      if (added === 'full') break;
    }
    const request = copying.finish();
    const { isModel, ...written } = writing.finish();
    assert.deepEqual({ ...request, isModel }, { ...written, isModel });
    assert.ok(isModel || request.ids.length === 0 || !request.isModel, 'what a refused signature is in is no model');
    if (models.includes(request)) shared++;
    else if (request.isModel) models.unshift(request);
    models.length = Math.min(models.length, 4);
  }
  assert.ok(shared > 30, `${shared} were the same request as before`);
});

test('an account is not copied from a request of another version, nor after its models were dropped', () => {
  const accounts = new FakeAccounts(0);
  const ids = [accounts.idOf(accounts.add()), accounts.idOf(accounts.add())];
  const builder = new RequestBuilder(accounts, 1_000);
  const build = (version: number, models: Request[], between = () => {}) => {
    builder.begin(1_000, models);
    builder.add(ids[0]!, 1, undefined);
    between();
    builder.add(ids[1]!, version, undefined);
    return builder.finish();
  };
  const model = build(1, []);
  assert.equal(build(1, [model]), model);
  builder.begin(1_000, [model]);
  builder.add(ids[1]!, 1, undefined);
  assert.deepEqual([model.isModel, builder.finish().isModel], [true, false], 'of copies alone no more are made');
  accounts.change(1, [[7]], false);
  assert.equal(readRequest(build(1, [model]).body)[1]?.ref, 1000, 'as long as nobody says that it has changed');
  assert.equal(readRequest(build(2, [model]).body)[1]?.ref, 7);
  const dropped = build(1, [model], () => builder.dropModels());
  assert.deepEqual(
    readRequest(dropped.body).map(({ ref }) => ref),
    [0, 7],
  );
});

test('accounts that are in none of the earlier requests are soon no longer searched for', () => {
  const accounts = new FakeAccounts(0);
  const ids = Array.from({ length: 40 }, () => accounts.idOf(accounts.add()));
  const builder = new RequestBuilder(accounts, 10_000);
  builder.begin(10_000);
  for (const id of ids.slice(30)) builder.add(id, 1, undefined);
  const model = builder.finish();
  let searches = 0;
  const indexOf = (id: number) => {
    searches++;
    return model.ids.indexOf(id);
  };
  builder.begin(10_000, [{ ...model, ids: Object.assign(Uint32Array.from(model.ids), { indexOf }) }]);
  for (const id of ids) builder.add(id, 1, undefined);
  assert.equal(searches, 4);
  assert.equal(builder.finish().ids.length, 40);
});
