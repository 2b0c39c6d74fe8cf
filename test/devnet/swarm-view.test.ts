import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '../../src/codec/bencode.ts';
import { type Contact, judgeOf } from '../../src/devnet/swarm-view.ts';

const contact: Contact = { publicKey: Buffer.alloc(32, 0xab), host: '203.0.113.7', port: 22020 };
/** At 2^63 of the swarm space. */
const account = Buffer.alloc(33);
account[0] = 5;
account[1] = 0x80;

const swarms = new Map<bigint, readonly Contact[]>([
  [0xbeefn, []],
  [2n ** 63n + 1n, [contact]],
]);

test('an account of another swarm is refused with code 6, its nodes and its swarm, in the bytes of a real server', () => {
  const refusal = judgeOf({ own: 0xbeefn, swarms }).refusal(account)!;
  const text = encode({ ...refusal }).toString('latin1');
  const [, address, ed25519, legacy] =
    /7:address58:(.{52}\.snode).*14:pubkey_ed2551964:([0-9a-f]{64})13:pubkey_legacy64:([0-9a-f]{64})/.exec(text)!;
  assert.equal(
    text,
    "d7:errcodei6e5:error50:Account is not stored by this service node's swarm6:snodesl" +
      `d7:address58:${address}2:ip11:203.0.113.74:port5:2201910:port_httpsi22019e8:port_omqi22020e9:port_quici22020e` +
      `14:pubkey_ed2551964:${ed25519}13:pubkey_legacy64:${legacy}13:pubkey_x2551964:${'ab'.repeat(32)}e` +
      'e5:swarm16:8000000000000001e',
  );
});

test('the swarm is written without leading zeros', () => {
  const refusal = judgeOf({ own: 1n, swarms: new Map([[0xbeefn, []]]) }).refusal(account)!;
  assert.deepEqual({ ...refusal }, { ...refusal, errcode: 6, snodes: [], swarm: 'beef' });
});

test('an account of its own swarm is neither refused nor ended', () => {
  const judge = judgeOf({ own: 2n ** 63n + 1n, swarms });
  assert.equal(judge.refusal(account), undefined);
  assert.equal(judge.ended(account), undefined);
});

test('a server that knows no swarm refuses everything with code 7, and ends nothing', () => {
  const judge = judgeOf({ own: 7n, swarms: new Map() });
  assert.equal(judge.refusal(account)!.errcode, 7);
  assert.equal(judge.informed, false);
});

test('without a view every account is accepted', () => {
  assert.equal(judgeOf(undefined).refusal(account), undefined);
});
