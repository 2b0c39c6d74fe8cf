import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServerRecords } from '../../../src/hivemind/notifications/server-records.ts';
import { logTo } from '../../support/log.ts';

test("a server's first offence, the tenth and so on are logged, each kind by itself; being alone is none", () => {
  const lines: string[] = [];
  const records = new ServerRecords<{ name: string }>({
    nameOf: ({ name }) => name,
    log: logTo((text) => lines.push(text)),
  });
  const [one, two] = [{ name: 'one' }, { name: 'two' }];
  assert.deepEqual(records.of(one), { limited: 0, unheld: 0, contradicted: 0, alone: 0 });
  for (let n = 0; n < 100; n++) records.count(one, 'contradicted');
  records.count(one, 'limited');
  for (let n = 0; n < 11; n++) records.count(two, 'unheld');
  for (let n = 0; n < 3; n++) records.count(two, 'alone');
  assert.deepEqual(lines, [
    ...[1, 10, 100].map((n) => `storage server one contradicts the others of its swarm: ${n} so far`),
    'storage server one sends more messages of one account than it may: 1 so far',
    ...[1, 10].map((n) => `storage server two sends more messages that no other confirms than can wait: ${n} so far`),
  ]);
  assert.deepEqual(records.of(one), { limited: 1, unheld: 0, contradicted: 100, alone: 0 });
  assert.deepEqual(records.of(two), { limited: 0, unheld: 11, contradicted: 0, alone: 3 });
  assert.equal(records.limits(one), records.limits(one));
  assert.notEqual(records.limits(one), records.limits(two));
});
