import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLimit, type LimitedConnection, networkOf } from '../src/connection-limit.ts';

function connections(limit: ConnectionLimit) {
  const closed: string[] = [];
  const open = (name: string, network: string, lastActive: number): LimitedConnection => {
    const connection: LimitedConnection = {
      network,
      lastActive,
      bytes: 0,
      busy: false,
      close: () => closed.push(name),
    };
    if (!limit.admit(connection)) closed.push(`${name} itself`);
    return connection;
  };
  return { open, closed };
}

test('the network with the most connections loses the one that has been idle longest', () => {
  const limit = new ConnectionLimit({ maxConnections: 4, maxBytes: 1000 });
  const { open, closed } = connections(limit);
  open('old and alone', 'a', 1);
  open('b2', 'b', 3);
  open('b1', 'b', 2);
  open('b3', 'b', 4);
  open('c1', 'c', 5);
  open('d1', 'd', 6);
  assert.deepEqual(closed, ['b1', 'b2']);
  open('e1', 'e', 7);
  assert.deepEqual(closed, ['b1', 'b2', 'old and alone']);
  assert.deepEqual([limit.size, limit.crowdedOut], [4, 3]);
});

test('room for a newcomer is found without counting through every network', () => {
  const limit = new ConnectionLimit({ maxConnections: 100, maxBytes: 1000 });
  let asked = 0;
  const open = (name: string) => {
    const connection = {
      get network() {
        asked++;
        return name;
      },
      lastActive: 1,
      bytes: 0,
      busy: false,
      close: () => {},
    };
    limit.admit(connection);
  };
  for (let i = 0; i < 100; i++) open(`network ${i}`);
  asked = 0;
  open('one more');
  assert.equal(limit.crowdedOut, 1);
  assert.ok(asked <= 2, `${asked} were asked for their network`);
});

test('a connection with a request in progress is never closed; when all have one, the newcomer is', () => {
  const limit = new ConnectionLimit({ maxConnections: 2, maxBytes: 1000 });
  const { open, closed } = connections(limit);
  open('one', 'a', 1).busy = true;
  const two = open('two', 'a', 2);
  two.busy = true;
  open('three', 'b', 3);
  assert.deepEqual(closed, ['three itself']);
  limit.release(two);
  open('four', 'b', 4);
  assert.deepEqual(closed, ['three itself']);
});

test('over the limit of bytes those that hold most are closed until there is room', () => {
  const limit = new ConnectionLimit({ maxConnections: 10, maxBytes: 1000 });
  const { open, closed } = connections(limit);
  const [small, busy, large, larger] = ['small', 'busy', 'large', 'larger'].map((name, i) => open(name, name, i));
  limit.hold(small!, 10);
  limit.hold(busy!, 400);
  busy!.busy = true;
  limit.hold(large!, 200);
  limit.hold(larger!, 300);
  assert.deepEqual(closed, []);
  limit.hold(larger!, 450);
  assert.deepEqual(closed, ['larger']);
  limit.hold(busy!, 900);
  assert.deepEqual(closed, ['larger', 'large']);
  assert.equal(limit.bytes, 910);
  limit.hold(busy!, 0);
  limit.release(small!);
  assert.equal(limit.bytes, 0);
});

test('an IPv6 network is a /64, and a mapped IPv4 address counts as IPv4', () => {
  assert.equal(networkOf('192.0.2.7'), '192.0.2.7');
  assert.equal(networkOf('::ffff:192.0.2.7'), '192.0.2.7');
  assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2');
  assert.equal(networkOf('2001:db8:1:2::9'), '2001:db8:1:2');
  assert.equal(networkOf('2001:db8::9'), '2001:db8:0:0');
  assert.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0');
  assert.equal(networkOf('::1'), '0:0:0:0');
  assert.equal(networkOf(undefined), '');
});
