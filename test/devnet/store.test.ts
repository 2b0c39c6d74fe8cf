import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { decode, encode } from '../../src/codec/bencode.ts';
import { sessionAccount } from '../../src/devnet/account.ts';
import { startNetwork } from '../../src/devnet/network.ts';
import type { StorageServer } from '../../src/devnet/storage-server.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import { messageHash } from '../../src/session/message-hash.ts';

import { type Notification, parseNotification } from '../../src/session/notification.ts';
import { monitorMessage } from '../../src/session/subscription.ts';
import { encodeMonitor } from '../support/reference.ts';
import { until } from '../support/until.ts';

const DAY = 86_400_000;

/** Two swarms of two servers each, and somebody who has an account in one of them monitored. */
async function start(t: TestContext) {
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 4, swarms: 2 });
  network.oxend.mine();
  const account = sessionAccount(randomBytes);
  const heard: Notification[] = [];
  const peers = new Peers({
    clock: systemClock,
    commands: {
      notify: {
        access: 'none',
        commands: {
          message: {
            kind: 'command',
            handler({ parts }) {
              heard.push(parseNotification(parts[0]!) as Notification);
            },
          },
        },
      },
    },
  });
  t.after(async () => {
    await peers.close();
    await network.stop();
  });
  const connect = ({ publicKey, host, port }: StorageServer): Connection =>
    peers.connect({ protocol: 'tcp', host, port, publicKey });
  const members = network.membersFor(account.id).map((server) => ({ server, connection: connect(server) }));
  for (const { connection } of members) {
    const request = {
      account: account.id,
      sessionEd25519: account.sessionEd25519,
      subaccount: null,
      namespaces: [0],
      wantData: true,
      signedAt: Math.floor(Date.now() / 1000),
    };
    const signature = account.sign(monitorMessage({ ...request, signature: Buffer.alloc(64) }));
    await connection.request('monitor.messages', [encodeMonitor({ ...request, signature })]);
  }
  const stranger = network.servers.find(({ server }) => !members.some((one) => one.server === server))!.server;
  const fields = (more: object = {}) => ({
    pubkey: account.id.toString('hex'),
    timestamp: Date.now(),
    ttl: 600_000,
    data: Buffer.from('hello').toString('base64'),
    ...more,
  });
  const [first] = members;
  assert.ok(first);
  const ask = async (what: object | Buffer, connection = first.connection) =>
    (await connection.request('storage.store', [Buffer.isBuffer(what) ? what : JSON.stringify(what)])).map(String);
  return { network, account, members, first, stranger: connect(stranger), heard, fields, ask };
}

test('a message that anybody stores at one member is announced by every member of the swarm', async (t) => {
  const { account, members, first, heard, fields, ask } = await start(t);
  const [body, ...more] = await ask(fields());
  const hash = messageHash(account.id, 0, Buffer.from('hello')).toString();
  const answer = JSON.parse(body!) as { hash: string; swarm: Record<string, { hash: string; already?: number }> };
  assert.equal(more.length, 0);
  assert.equal(answer.hash, hash);
  assert.equal(Object.keys(answer.swarm).length, 2);
  for (const member of Object.values(answer.swarm)) assert.deepEqual([member.hash, member.already], [hash, undefined]);
  await until(() => heard.length >= members.length);
  for (const { data, namespace, hash: told } of heard) {
    assert.deepEqual([String(data), namespace, String(told)], ['hello', 0, hash]);
  }
  // Stored before: nobody is told again. What is stored after it is all that comes.
  const again = JSON.parse((await ask(fields()))[0]!) as typeof answer;
  assert.deepEqual(
    Object.values(again.swarm).map(({ already }) => already),
    [1],
  );
  const other = encode({
    data: Buffer.from('bytes'),
    expiry: Date.now() + DAY,
    namespace: 10,
    pubkey: account.id.toString('hex'),
    timestamp: Date.now(),
  });
  const reply = decode((await first.connection.request('storage.store', [other]))[0]!);
  assert.ok(reply instanceof Map && reply.has('swarm'), 'what came bencoded is answered so');
  await ask(fields({ data: Buffer.from('the last').toString('base64') }));
  await until(() => heard.length >= 2 * members.length);
  assert.deepEqual(
    heard.slice(members.length).map(({ data }) => String(data)),
    ['the last', 'the last'],
  );
});

test('what a storage server would refuse is refused with its status', async (t) => {
  const { account, first, stranger, heard, fields, ask } = await start(t);
  const status = async (what: object | Buffer, connection?: Connection) => (await ask(what, connection))[0];
  assert.equal(await status(fields({ pubkey: '05ab' })), '400');
  assert.equal(await status(fields({ data: '?' })), '400');
  assert.equal(await status(fields({ data: randomBytes(76_801).toString('base64') })), '400');
  assert.equal(await status(fields({ timestamp: 'now' })), '400');
  assert.equal(await status(Buffer.from('[]')), '400');
  assert.equal(await status(Buffer.from('d3:abe')), '400');
  assert.equal(await status(fields({ ttl: 9_999 })), '403');
  assert.equal(await status(fields({ ttl: 15 * DAY })), '403');
  assert.deepEqual(await ask(fields({ timestamp: Date.now() + 60_000 })), ['406', 'Timestamp error: check your clock']);
  assert.equal(await status(fields({ timestamp: Date.now() - 3_600_000 })), '406');
  assert.equal(await status(fields({ namespace: 2 })), '401');
  const [wrong, where] = await ask(fields(), stranger);
  assert.equal(wrong, '421');
  const { swarm, snodes } = JSON.parse(where!) as { swarm: string; snodes: { port_omq: number }[] };
  assert.match(swarm, /^[0-9a-f]+$/);
  assert.ok(snodes.some(({ port_omq }) => port_omq === first.server.port));
  first.server.behaviour.refuseStore = { status: 500, text: 'disk full' };
  assert.deepEqual(await ask(fields()), ['500', 'disk full']);
  assert.equal(heard.length, 0);
  assert.equal(account.id.length, 33);
});
