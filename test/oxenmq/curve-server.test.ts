import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { CURVE_OVERHEAD, CurveServer } from '../../src/oxenmq/curve-server.ts';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import { encodeCommand } from '../../src/oxenmq/zmtp.ts';
import { CurveClient } from './curve-client.ts';

const keys = randomKeyPair();
const METADATA = Buffer.from('metadata');

/** A server that has had HELLO, and a client that has read its WELCOME. */
function welcomed() {
  const server = new CurveServer(keys, randomBytes);
  const client = new CurveClient(keys.publicKey);
  const { answer, clientKey } = server.handshake(client.hello(), METADATA);
  assert.equal(clientKey, undefined);
  client.welcomed(answer);
  return { server, client };
}

/** Both after the handshake. @param number of the client's INITIATE */
function connected(number = 1n) {
  const { server, client } = welcomed();
  server.handshake(client.initiate({ number }), METADATA);
  return { server, client };
}

const broken = (message: string) => ({ name: 'ProtocolError', message });

test('a client that proves its key gets our metadata, and our numbers begin at 1', () => {
  const { server, client } = welcomed();
  const { answer, clientKey } = server.handshake(client.initiate({ metadata: Buffer.from('of the client') }), METADATA);
  assert.deepEqual(clientKey, client.keys.publicKey);
  assert.deepEqual(client.ready(answer), { number: 1n, plain: METADATA });
});

test('a client may send no metadata', () => {
  const { server, client } = welcomed();
  assert.deepEqual(server.handshake(client.initiate(), METADATA).clientKey, client.keys.publicKey);
});

test('parts go both ways with their flags, at the overhead that we reckon with', () => {
  const { server, client } = connected();
  let number = 1n;
  for (const [flags, command, more] of [
    [0, false, false],
    [1, false, true],
    [2, true, false],
  ] as const) {
    for (const size of [0, 1, 1000]) {
      const body = randomBytes(size);
      const received = server.decrypt(client.message(++number, flags, body));
      assert.deepEqual(received, { command, more, body });
      const sent = server.encrypt({ command, more, body });
      assert.equal(sent.length, size + CURVE_OVERHEAD);
      assert.deepEqual(client.opened(sent), { number, plain: Buffer.concat([Buffer.from([flags]), body]) });
    }
  }
});

describe('what is refused of HELLO', () => {
  const hello = (client: CurveClient) => client.hello();
  for (const [what, make, message] of [
    ['another version', (c) => changed(hello(c), 6, 2), 'no HELLO of CURVE 1.0'],
    ['another minor version', (c) => changed(hello(c), 7, 1), 'no HELLO of CURVE 1.0'],
    ['a byte too few', (c) => hello(c).subarray(0, -1), 'no HELLO of CURVE 1.0'],
    ['a byte too many', (c) => Buffer.concat([hello(c), Buffer.alloc(1)]), 'no HELLO of CURVE 1.0'],
    [
      'a box for another server',
      () => new CurveClient(randomKeyPair().publicKey).hello(),
      'its message cannot be decrypted',
    ],
    ['a changed box', (c) => turned(hello(c), 199), 'its message cannot be decrypted'],
    ['a key of small order', (c) => zeroed(hello(c), 80, 112), 'its message cannot be decrypted'],
    ['another command', () => encodeCommand('READY', Buffer.alloc(194)), 'HELLO was expected'],
    ['INITIATE instead', () => encodeCommand('INITIATE', Buffer.alloc(300)), 'HELLO was expected'],
  ] as readonly [string, (client: CurveClient) => Buffer, string][]) {
    test(what, () => {
      const server = new CurveServer(keys, randomBytes);
      assert.throws(() => server.handshake(make(new CurveClient(keys.publicKey)), METADATA), broken(message));
    });
  }
});

describe('what is refused of INITIATE', () => {
  const SHORTEST = 9 + 96 + 8 + 16 + 128;
  for (const [what, make, message] of [
    ['a byte too few', (c) => c.initiate().subarray(0, SHORTEST - 1), 'INITIATE is too short'],
    ['nothing in it', () => encodeCommand('INITIATE', Buffer.alloc(0)), 'INITIATE is too short'],
    ['another cookie', (c) => c.initiate({ cookie: Buffer.alloc(96) }), 'wrong cookie'],
    ['a changed box', (c) => turned(c.initiate(), SHORTEST - 1), 'its message cannot be decrypted'],
    [
      'a vouch for another connection',
      (c) => c.initiate({ vouched: Buffer.concat([randomKeyPair().publicKey, keys.publicKey]) }),
      'the vouch is for another connection',
    ],
    [
      'a vouch for another server',
      (c) => c.initiate({ vouched: Buffer.concat([c.transient.publicKey, randomKeyPair().publicKey]) }),
      'the vouch is for another connection',
    ],
    [
      'a vouch by another key than it claims',
      (c) => c.initiate({ content: (bytes) => Buffer.concat([randomKeyPair().publicKey, bytes.subarray(32)]) }),
      'its message cannot be decrypted',
    ],
    ['HELLO again', (c) => c.hello(), 'INITIATE was expected'],
  ] as readonly [string, (client: CurveClient) => Buffer, string][]) {
    test(what, () => {
      const { server, client } = welcomed();
      assert.throws(() => server.handshake(make(client), METADATA), broken(message));
    });
  }
});

describe('what is refused of MESSAGE', () => {
  test('anything before the handshake is over', () => {
    const { server, client } = welcomed();
    assert.throws(() => server.decrypt(client.message(2n, 0, METADATA)), broken('the handshake is not finished'));
    assert.throws(
      () => server.encrypt({ command: false, more: false, body: METADATA }),
      broken('the handshake is not finished'),
    );
  });

  test('a number that is not higher than the last, from that of INITIATE on', () => {
    const { server, client } = connected(5n);
    const repeated = broken('a repeated MESSAGE');
    for (const number of [4n, 5n])
      assert.throws(() => server.decrypt(client.message(number, 0, METADATA)), repeated, `${number}`);
    const seventh = client.message(7n, 0, METADATA);
    server.decrypt(seventh);
    assert.throws(() => server.decrypt(seventh), repeated);
    assert.throws(() => server.decrypt(client.message(6n, 0, METADATA)), repeated);
    assert.deepEqual(server.decrypt(client.message(8n, 0, METADATA)).body, METADATA);
  });

  test('another command, one without flags, and a changed box', () => {
    const { server, client } = connected();
    assert.throws(() => server.decrypt(encodeCommand('READY', Buffer.alloc(100))), broken('no MESSAGE'));
    assert.throws(() => server.decrypt(encodeCommand('MESSAGE', Buffer.alloc(24))), broken('no MESSAGE'));
    assert.throws(() => server.decrypt(encodeCommand('MESSAGE', Buffer.alloc(0))), broken('no MESSAGE'));
    assert.throws(
      () => server.decrypt(turned(client.message(2n, 0, METADATA), 20)),
      broken('its message cannot be decrypted'),
    );
  });

  test('a handshake after the handshake', () => {
    const { server, client } = connected();
    assert.throws(() => server.handshake(client.hello(), METADATA), broken('MESSAGE was expected'));
  });
});

function changed(bytes: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = value;
  return copy;
}

/** With one bit turned. */
function turned(bytes: Buffer, at: number): Buffer {
  return changed(bytes, at, bytes[at]! ^ 1);
}

function zeroed(bytes: Buffer, from: number, to: number): Buffer {
  return Buffer.from(bytes).fill(0, from, to);
}
