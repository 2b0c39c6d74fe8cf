import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import type { Listener } from '../../src/oxenmq/listener.ts';
import type { Connection } from '../../src/oxenmq/peers.ts';
import type { Commands, Remote } from '../../src/oxenmq/remote.ts';
import { ownAddress } from '../support/loopback.ts';
import { addressOf, Happenings, openListener, openPeers, temporaryDirectory } from './support.ts';

const echo: Commands = {
  test: {
    access: 'none',
    commands: {
      echo: { kind: 'request', handler: (message) => message.reply(...message.parts) },
      callback: { kind: 'command', handler: ({ remote, parts }) => void remote.send('back.call', ...parts) },
    },
  },
};

test('peers and listeners talk in both directions, over tcp and ipc, plain and encrypted', async (t) => {
  const keys = randomKeyPair();
  const directory = await temporaryDirectory(t);
  const listeners = await Promise.all([
    openListener(t, { commands: echo }),
    openListener(t, { commands: echo, keys }),
    openListener(t, { commands: echo, address: `ipc://${directory}/a` }),
    openListener(t, { commands: echo, address: `ipc://${directory}/b`, keys }),
  ]);
  const called = new Happenings<string>();
  const { peers } = openPeers(t, {
    commands: {
      back: {
        access: 'basic',
        commands: { call: { kind: 'command', handler: ({ parts }) => called.add(String(parts[0])) } },
      },
    },
  });
  for (const [i, listener] of listeners.entries()) {
    const connection = peers.connect(addressOf(listener.endpoint, i % 2 ? keys.publicKey : undefined));
    const large = Buffer.alloc(1_000_000, i);
    assert.deepEqual(await connection.request('test.echo', [large, '']), [large, Buffer.alloc(0)]);
    connection.send('test.callback', String(i));
    await called.first((text) => text === String(i));
  }
});

test('300 connections with five keys share one instance', async (t) => {
  const nodes = await Promise.all(
    Array.from({ length: 5 }, async () => {
      const keys = randomKeyPair();
      return { keys, listener: await openListener(t, { commands: echo, keys }) };
    }),
  );
  const { peers, events } = openPeers(t, { helloTimeout: 60_000 });
  const connections: Connection[] = [];
  for (let i = 0; i < 300; i++) {
    const { keys, listener } = nodes[i % nodes.length]!;
    // Every connection as somebody else: a server tells its clients apart by their routing ids.
    const options = { label: `node ${i}`, routingId: Buffer.from(`us ${i}`), data: i };
    connections.push(peers.connect(addressOf(listener.endpoint, keys.publicKey), options));
  }
  await events.when((all) => (all.filter((e) => e.event === 'hello').length === 300 ? true : undefined));
  const replies = await Promise.all(connections.map((c, i) => c.request('test.echo', [String(i)], 60_000)));
  replies.forEach((parts, i) => {
    assert.deepEqual(parts.map(String), [String(i)]);
  });
  // Every second one is closed; the others do not notice.
  for (let i = 0; i < 300; i += 2) connections[i]!.close();
  await Promise.all(connections.filter((_, i) => i % 2).map((c) => c.request('test.echo', [], 60_000)));
  assert.equal(peers.size, 150);
  assert.equal(peers.counters.disconnects + peers.counters.failures, 0);
});

test('a listener that restarts on its address is connected to again, and has forgotten everybody', async (t) => {
  const keys = randomKeyPair();
  const seen = new Happenings<Remote>();
  const commands: Commands = {
    test: { access: 'none', commands: { subscribe: { kind: 'command', handler: ({ remote }) => seen.add(remote) } } },
  };
  const first = await openListener(t, { address: ownAddress(), commands, keys });
  const handshakes = new Happenings<string>();
  const { peers } = openPeers(t, {
    on: {
      handshake: (connection) => {
        handshakes.add(connection.id);
        assert.equal(connection.send('test.subscribe'), true);
      },
    },
  });
  peers.connect(addressOf(first.endpoint, keys.publicKey));
  await seen.first(() => true);
  await first.close();
  let listener: Listener = first;
  for (let round = 2; round <= 3; round++) {
    listener = await openListener(t, { address: first.endpoint, commands, keys });
    await seen.when((all) => (all.length === round ? true : undefined));
    if (round < 3) await listener.close();
  }
  assert.equal(handshakes.all.length, 3);
  assert.equal(new Set(seen.all).size, 3);
});

test('when peers close, the listener learns of each', async (t) => {
  const gone = new Happenings<Remote>();
  const listener = await openListener(t, { commands: echo, on: { disconnect: (remote) => gone.add(remote) } });
  const { peers } = openPeers(t);
  const connections = ['a', 'b', 'c'].map((id) =>
    peers.connect(addressOf(listener.endpoint), { routingId: Buffer.from(id) }),
  );
  await Promise.all(connections.map((c) => c.request('test.echo', [])));
  connections[1]!.close();
  assert.equal((await gone.first(() => true)).id, 'b');
  await peers.close();
  await gone.when((all) => (all.length === 3 ? true : undefined));
  assert.equal(listener.size, 0);
});
