import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { test } from 'node:test';
import { decode, type Encodable, encode } from '../../src/codec/bencode.ts';
import { type Account, groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { checkMonitor, readMonitorRequest } from '../../src/devnet/monitor-request.ts';

const NOW = 1_700_000_000;

async function vectors(name: string) {
  return JSON.parse(await fs.readFile(new URL(`../vectors/${name}.json`, import.meta.url), 'utf8'));
}

/** The keys of a good request of `account`, with those in `changes` in their place. */
function monitor(account: Account, changes: Record<string, Encodable | undefined> = {}, time = NOW) {
  const message = `MONITOR${account.id.toString('hex')}${time}10,2`;
  return {
    P: account.sessionEd25519 ?? undefined,
    S: account.subaccount?.signature,
    T: account.subaccount?.tag,
    d: 1,
    n: [0, 2],
    p: account.sessionEd25519 ? undefined : account.id,
    s: account.sign(Buffer.from(message)),
    t: time,
    ...changes,
  };
}

const check = (value: Encodable, verify?: boolean) => checkMonitor(decode(encode(value)), NOW, verify);

test('what the original hivemind sent is understood', async () => {
  const { now, live } = await vectors('monitor-request');
  for (const { name, subscription, requests_hex } of live) {
    for (const hex of requests_hex) {
      const request = readMonitorRequest(Buffer.from(hex, 'hex'));
      assert.ok('elements' in request, name);
      for (const element of request.elements) {
        const result = checkMonitor(element, now);
        assert.ok('account' in result, `${name}: ${JSON.stringify(result)}`);
        if (request.elements.length > 1) continue;
        assert.equal(result.account.toString('hex'), subscription.pubkey, name);
        assert.deepEqual(result.namespaces, subscription.namespaces, name);
        assert.equal(result.wantData, subscription.data, name);
      }
    }
  }
});

test('signatures are judged as the hivemind judges them', async () => {
  const { now, cases } = await vectors('signatures');
  const hex = (text: string | undefined) => (text === undefined ? undefined : Buffer.from(text, 'hex'));
  const ascending = (list: number[]) => list.every((one, i) => i === 0 || one > list[i - 1]!);
  for (const one of cases) {
    if (one.op !== 'subscribe' || !ascending(one.namespaces) || one.namespaces.length === 0) continue;
    // Those are about what the hivemind is told besides: a storage server has the account from its Ed25519 key alone.
    if (/mismatch|convert|may only be used/.test(one.error ?? '') && !/subaccount/.test(one.error ?? '')) continue;
    // A storage server goes by the same 14 days and 24 hours, but takes the last second of either.
    if (/timestamp/.test(one.error ?? '')) continue;
    const result = checkMonitor(
      decode(
        encode({
          P: hex(one.session_ed25519),
          S: hex(one.subaccount_sig),
          T: hex(one.subaccount),
          d: one.data ? 1 : undefined,
          n: one.namespaces,
          p: one.session_ed25519 === undefined ? hex(one.pubkey) : undefined,
          s: hex(one.signature),
          t: one.sig_ts,
        }),
      ),
      now,
    );
    assert.equal('account' in result, one.verdict === 'ok', `${one.name}: ${JSON.stringify(result)}`);
  }
});

test('each fault has the code and the text of a real storage server', () => {
  const ada = sessionAccount(randomBytes);
  const group = groupAccount(randomBytes);
  const member = groupMember(group, randomBytes);
  const readless = groupMember(group, randomBytes);
  readless.subaccount!.tag[1] = 2;
  const day = 86_400;
  const cases: [string, Encodable, number, RegExp][] = [
    ['no dict', 5, 1, /^Invalid arguments: /],
    ['neither p nor P', monitor(ada, { P: undefined }), 1, /^Invalid arguments: /],
    ['both p and P', monitor(ada, { p: group.id }), 1, /^Invalid arguments: /],
    ['no namespaces', monitor(ada, { n: [] }), 1, /^Invalid arguments: /],
    ['no list of namespaces', monitor(ada, { n: 1 }), 1, /^Invalid arguments: /],
    ['no time', monitor(ada, { t: undefined }), 1, /^Invalid arguments: /],
    ['P too short', monitor(ada, { P: Buffer.alloc(31) }), 2, /^Provided P= Session Ed25519 pubkey must be 32 bytes$/],
    ['P no key', monitor(ada, { P: Buffer.alloc(32, 2) }), 2, /^Invalid P= ed25519 public key$/],
    ['p too short', monitor(group, { p: Buffer.alloc(32) }), 2, /^Provided p= pubkey must be 33 bytes$/],
    ['S too short', monitor(member, { S: Buffer.alloc(63) }), 2, /^Provided S subaccount signature must be 64 bytes$/],
    ['T too short', monitor(member, { T: Buffer.alloc(35) }), 2, /^Provided T subaccount token must be 36 bytes$/],
    ['descending', monitor(ada, { n: [2, 0] }), 3, /^Invalid n= namespace list: namespaces must be ascending$/],
    ['repeated', monitor(ada, { n: [0, 0] }), 3, /^Invalid n= namespace list: namespaces must be ascending$/],
    ['too old', monitor(ada, {}, NOW - 14 * day - 1), 4, /^Invalid t= signature timestamp: timestamp is too old$/],
    ['too new', monitor(ada, {}, NOW + day + 1), 4, /^Invalid t= signature timestamp: timestamp is in the future$/],
    ['signature too short', monitor(ada, { s: Buffer.alloc(63) }), 5, /^Provided s= signature must be 64 bytes$/],
    ['signature of other namespaces', monitor(ada, { n: [0] }), 5, /^Signature verification failed$/],
    ['signature for no data', monitor(ada, { d: undefined }), 5, /^Signature verification failed$/],
    ['subaccount that may not read', monitor(readless), 5, /^Subaccount verification failed: /],
    ['subaccount of another group', monitor({ ...member, id: groupAccount(randomBytes).id }), 5, /^Subaccount verif/],
  ];
  for (const [name, value, code, text] of cases) {
    const result = check(value);
    assert.ok('errcode' in result, name);
    assert.equal(result.errcode, code, name);
    assert.match(result.error, text, name);
  }
  for (const account of [ada, group, member]) {
    assert.deepEqual(check(monitor(account)), { account: account.id, namespaces: [0, 2], wantData: true });
  }
  assert.ok('account' in check(monitor(ada, { s: Buffer.alloc(64) }), false), 'unless nothing is verified');
});

test('a body that is neither list nor dict, or is truncated, is refused as a whole', () => {
  for (const body of [undefined, Buffer.alloc(0), Buffer.from('i5e'), Buffer.from('3:abc')]) {
    assert.deepEqual(readMonitorRequest(body), {
      errcode: 1,
      error: 'Invalid arguments: monitor request takes a single bencoded dict or list parameter',
    });
  }
  assert.deepEqual(readMonitorRequest(Buffer.from('ld1:n')), {
    errcode: 1,
    error: 'Invalid arguments: Failed to parse monitor.messages data value',
  });
});
