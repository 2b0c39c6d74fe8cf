import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentRequests } from '../../../src/hivemind/monitoring/recent-requests.ts';
import type { Request } from '../../../src/hivemind/monitoring/request.ts';
import type { Swarm } from '../../../src/hivemind/monitoring/swarm-member.ts';

function request(bytes = 10): Request {
  const none = new Uint32Array(0);
  return {
    body: Buffer.alloc(bytes),
    ids: none,
    versions: none,
    ends: none,
    offsets: none,
    refs: [],
    isModel: true,
  };
}

function swarm(number: number): Swarm {
  return { id: BigInt(number), number, accounts: new Uint32Array(0), count: 0, members: [] };
}

test('of each swarm the latest 32 requests are kept, in the order of when they were last sent', () => {
  const recent = new RecentRequests();
  const [one, other] = [swarm(1), swarm(2)];
  const requests = Array.from({ length: 33 }, () => request());
  for (const sent of requests.slice(0, 32)) recent.add(one, sent);
  assert.deepEqual(recent.of(one), requests.slice(0, 32));
  recent.add(one, requests[0]!);
  assert.deepEqual(recent.of(one), [...requests.slice(1, 32), requests[0]]);
  recent.add(one, requests[32]!);
  assert.deepEqual(recent.of(one), [...requests.slice(2, 32), requests[0], requests[32]]);
  assert.deepEqual(recent.of(other), []);
});

test('no more than 32 MiB are kept: those of the swarm that was sent nothing for the longest time go first', () => {
  const recent = new RecentRequests();
  const swarms = [1, 2, 3].map(swarm) as [Swarm, Swarm, Swarm];
  const MIB = 1024 * 1024;
  const again = request(8 * MIB);
  recent.add(swarms[0], again);
  recent.add(swarms[1], request(16 * MIB));
  recent.add(swarms[0], again);
  recent.add(swarms[2], request(8 * MIB));
  assert.deepEqual(
    swarms.map((one) => recent.of(one).length),
    [1, 1, 1],
    'that many fit',
  );
  recent.add(swarms[2], request(1));
  assert.deepEqual(
    swarms.map((one) => recent.of(one).length),
    [1, 0, 2],
  );
  recent.add(swarms[2], request(40 * MIB));
  assert.deepEqual(
    swarms.map((one) => recent.of(one).length),
    [0, 0, 3],
    'but for the one that was just sent',
  );
  recent.drop(swarms[2]);
  assert.deepEqual(recent.of(swarms[2]), []);
  recent.add(swarms[0], request(16 * MIB));
  recent.add(swarms[1], request(16 * MIB));
  assert.deepEqual(recent.of(swarms[0]).length, 1, 'there is room again');
  recent.clear();
  for (const one of swarms.slice(0, 2)) assert.deepEqual(recent.of(one), []);
  recent.add(swarms[0], request(16 * MIB));
  recent.add(swarms[1], request(16 * MIB));
  assert.deepEqual(recent.of(swarms[0]).length, 1);
});

test('a request that is kept no longer makes room', () => {
  const recent = new RecentRequests();
  const [one, other] = [swarm(1), swarm(2)];
  const MIB = 1024 * 1024;
  recent.add(other, request(16 * MIB));
  for (let n = 0; n < 80; n++) recent.add(one, request(MIB / 2));
  assert.deepEqual([recent.of(one).length, recent.of(other).length], [32, 1]);
});
