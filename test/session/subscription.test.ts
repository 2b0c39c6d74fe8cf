import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkSessionEd25519 } from '../../src/session/account.ts';
import { RequestError } from '../../src/session/errors.ts';
import {
  checkOwnedSubscription,
  checkOwnedUnsubscription,
  isStale,
  monitorMessage,
  type Subscription,
  unsubscribeMessage,
} from '../../src/session/subscription.ts';
import { fuzz } from '../support/fuzz.ts';
import { covers, isSame } from '../support/reference.ts';
import { vectors } from '../support/vectors.ts';

interface Case {
  name: string;
  op: 'subscribe' | 'unsubscribe';
  pubkey: string;
  sig_ts: number;
  session_ed25519?: string;
  namespaces?: number[];
  data?: boolean;
  signature: string;
  subaccount?: string;
  subaccount_sig?: string;
  message: string;
  verdict: 'ok' | 'error';
  error: string | null;
}

const signatures = vectors<{ now: number; cases: Case[] }>('signatures.json');

const hex = (text: string) => Buffer.from(text, 'hex');

function subscription(vector: Case): Subscription {
  const { subaccount, subaccount_sig, session_ed25519 } = vector;
  return {
    account: hex(vector.pubkey),
    sessionEd25519: session_ed25519 === undefined ? null : hex(session_ed25519),
    subaccount: subaccount === undefined ? null : { tag: hex(subaccount), signature: hex(subaccount_sig!) },
    namespaces: vector.namespaces ?? [],
    wantData: vector.data ?? false,
    signedAt: vector.sig_ts,
    signature: hex(vector.signature),
  };
}

/** All that is checked of a request, in the original's order. */
function check(op: Case['op'], request: Subscription, now: number): void {
  if (request.sessionEd25519) checkSessionEd25519(request.account, request.sessionEd25519);
  if (op === 'subscribe') checkOwnedSubscription(request, now);
  else checkOwnedUnsubscription(request, now);
}

describe('the verdict on a signed request', () => {
  it('is checked in every case of the vectors', () => assert.equal(signatures.cases.length, 56));

  for (const vector of signatures.cases) {
    it(`${vector.verdict}: ${vector.name}`, () => {
      const verify = () => check(vector.op, subscription(vector), signatures.now);
      if (vector.verdict === 'ok') {
        verify();
        const { account, signedAt } = subscription(vector);
        const message =
          vector.op === 'subscribe' ? monitorMessage(subscription(vector)) : unsubscribeMessage(account, signedAt);
        assert.equal(message.toString(), vector.message);
      } else {
        assert.throws(verify, (error) => {
          assert.ok(error instanceof RequestError);
          assert.deepEqual([error.code, error.message], [4, vector.error]);
          return true;
        });
      }
    });
  }

  it('refuses more namespaces than any app has, before it looks at the signature', () => {
    const { namespaces: _, ...rest } = subscription(signatures.cases.find(({ verdict }) => verdict === 'ok')!);
    const checkWith = (count: number) => {
      const namespaces = Array.from({ length: count }, (_, index) => index);
      check('subscribe', { ...rest, namespaces }, signatures.now);
    };
    assert.throws(() => checkWith(257), { code: 4, message: 'Subscription: more than 256 namespaces' });
    assert.throws(() => checkWith(256), { code: 4, message: /verification failed/ });
  });

  it('refuses a subaccount without flags, as one that may not read', () => {
    const vector = signatures.cases.find(({ verdict, subaccount }) => verdict === 'ok' && subaccount !== undefined)!;
    const intact = subscription(vector);
    const subaccount = { ...intact.subaccount!, tag: intact.subaccount!.tag.subarray(0, 1) };
    assert.throws(() => check('subscribe', { ...intact, subaccount }, signatures.now), /not have read permission/);
  });

  it('fails with any single bit of what was signed changed', () => {
    const good = signatures.cases.filter(({ verdict, op }) => verdict === 'ok' && op === 'subscribe');
    fuzz(150, (random) => {
      const { account, sessionEd25519, subaccount, signature, ...rest } = subscription(
        good[random.below(good.length)]!,
      );
      const flipped = (bytes: Buffer) => {
        const copy = Buffer.from(bytes);
        copy[random.below(copy.length)]! ^= 1 << random.below(8);
        return copy;
      };
      const intact = { account, sessionEd25519, subaccount, signature, ...rest };
      const damaged = [
        { ...intact, account: flipped(account) },
        { ...intact, signature: flipped(signature) },
        { ...intact, signedAt: rest.signedAt + 1 },
        { ...intact, wantData: !rest.wantData },
        { ...intact, namespaces: [...rest.namespaces, 32767].slice(rest.namespaces.at(-1) === 32767 ? 1 : 0) },
        ...(sessionEd25519 ? [{ ...intact, sessionEd25519: flipped(sessionEd25519) }] : []),
        ...(subaccount ? [{ ...intact, subaccount: { ...subaccount, tag: flipped(subaccount.tag) } }] : []),
        ...(subaccount ? [{ ...intact, subaccount: { ...subaccount, signature: flipped(subaccount.signature) } }] : []),
      ];
      check('subscribe', intact, signatures.now);
      const chosen = damaged[random.below(damaged.length)]!;
      assert.throws(() => check('subscribe', chosen, signatures.now), RequestError);
    });
  });
});

it('a request is stale if it was signed more than a minute before what is stored', () => {
  assert.deepEqual(
    [1_100, 1_000, 940, 939, 0].map((signedAt) => isStale(signedAt, 1_000)),
    [false, false, false, true, true],
  );
});

describe('the time of an unsubscription', () => {
  const vector = signatures.cases.find(({ op, verdict }) => op === 'unsubscribe' && verdict === 'ok')!;

  it('may be off by 24 hours in either direction', () => {
    checkOwnedUnsubscription(subscription(vector), vector.sig_ts + 86_400);
    checkOwnedUnsubscription(subscription(vector), vector.sig_ts - 86_400);
  });

  it('is refused beyond that, without telling the client why, but telling us', () => {
    for (const offset of [86_401, -86_401]) {
      assert.throws(
        () => checkOwnedUnsubscription(subscription(vector), vector.sig_ts + offset),
        (error) => {
          assert.ok(error instanceof RequestError);
          assert.deepEqual([error.code, error.message], [4, 'An error occured while processing your request']);
          assert.match(String(error.cause), /24 hours/);
          return true;
        },
      );
    }
  });
});

interface Side {
  namespaces: number[];
  data: boolean;
  sig_ts: number;
  subaccount: string | null;
  subaccount_sig?: string;
}

describe('covers and isSame', () => {
  const file = vectors<{
    cases: {
      a: Side;
      b: Side;
      intended: { a_covers_b: boolean; b_covers_a: boolean; is_same: boolean };
      original: { a_is_newer: boolean; b_is_newer: boolean };
    }[];
  }>('covers.json');

  const side = ({ namespaces, data, sig_ts, subaccount, subaccount_sig }: Side): Subscription => ({
    account: Buffer.alloc(33, 3),
    sessionEd25519: null,
    subaccount: subaccount === null ? null : { tag: hex(subaccount), signature: hex(subaccount_sig ?? '') },
    namespaces,
    wantData: data,
    signedAt: sig_ts,
    signature: Buffer.alloc(64),
  });

  it('are checked in every case of the vectors', () => assert.equal(file.cases.length, 30));

  for (const [index, vector] of file.cases.entries()) {
    it(`judge pair ${index} as intended`, () => {
      const a = side(vector.a);
      const b = side(vector.b);
      assert.equal(covers(a, b), vector.intended.a_covers_b);
      assert.equal(covers(b, a), vector.intended.b_covers_a);
      assert.equal(isSame(a, b), vector.intended.is_same);
      assert.equal(isSame(b, a), vector.intended.is_same);
      assert.equal(a.signedAt > b.signedAt, vector.original.a_is_newer);
      assert.equal(b.signedAt > a.signedAt, vector.original.b_is_newer);
    });
  }
});
