import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JsonError, parseJson } from '../../src/codec/json.ts';
import {
  Code,
  checkOwnedUnsubscription,
  parseSubscribe,
  parseUnsubscribe,
  RequestError,
} from '../../src/session/request.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

const file = vectors<{
  now: number;
  cases: {
    name: string;
    cmd: 'push.subscribe' | 'push.unsubscribe';
    request: string | null;
    reply: string[];
    validate_requests_seen?: number;
  }[];
}>('hivemind-replies.json');

const now = file.now + 5;
const known = { service: (name: string) => name === 'cap' || name === 'cap2' };

interface Reply {
  error?: number;
  message?: string;
  success?: boolean;
}

/** What we answer to one element as long as no notifier has to be asked; undefined if one has. */
function answer(cmd: string, element: unknown): Reply | undefined {
  try {
    if (cmd === 'push.subscribe') parseSubscribe(element, now, known);
    else parseUnsubscribe(element, known);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof RequestError);
    return { error: error.code, message: error.message };
  }
}

/**
 * Where the original answers with a text of its JSON library, or one that does not say which bytes are wrong, ours has
 * code 1 and a sentence that names the field.
 */
const SENTENCES: Readonly<Record<string, string>> = {
  'empty object': "Invalid or missing 'pubkey': expected a string",
  'array of empty object': "Invalid or missing 'pubkey': expected a string",
  'array element not an object': 'Invalid request: expected an object',
  'array with null': 'Invalid request: expected an object',
  'nested array': 'Invalid request: expected an object',
  'array ok + error': "Invalid or missing 'pubkey': expected a string",
  'missing pubkey': "Invalid or missing 'pubkey': expected a string",
  'missing session_ed25519': "Invalid or missing 'session_ed25519': expected a string",
  'pubkey number': "Invalid or missing 'pubkey': expected a string",
  'missing namespaces': "Invalid or missing 'namespaces': expected an array of numbers",
  'namespaces strings': "Invalid or missing 'namespaces': expected an array of numbers",
  'namespaces not an array': "Invalid or missing 'namespaces': expected an array of numbers",
  'missing data': "Invalid or missing 'data': expected true or false",
  'data 1': "Invalid or missing 'data': expected true or false",
  'data null': "Invalid or missing 'data': expected true or false",
  'missing sig_ts': "Invalid or missing 'sig_ts': expected a number",
  'sig_ts string': "Invalid or missing 'sig_ts': expected a number",
  'missing signature': "Invalid or missing 'signature': expected a string",
  'missing enc_key': "Invalid or missing 'enc_key': expected a string",
  'missing service': "Invalid or missing 'service': expected a string",
  'service number': "Invalid or missing 'service': expected a string",
  'missing service_info': "Invalid or missing 'service_info': expected a value",
  'subaccount and sig null': "Invalid or missing 'subaccount': expected a string",
  'pubkey too short': "Invalid or missing 'pubkey': expected 33 bytes, as hex or base64",
  'signature wrong size': "Invalid or missing 'signature': expected 64 bytes, as hex or base64",
  'enc_key bad': "Invalid or missing 'enc_key': expected 32 bytes, as hex or base64",
  array: "Invalid or missing 'pubkey': expected a string",
};

/** The vectors leave these requests out: they are about the notifier's answer, or there was none. */
const LEFT_OUT: readonly string[] = ['service data 99999', 'service data 100000', 'no data part'];

describe('the answers of the original, up to where the notifier is asked', () => {
  const used = new Set<string>();

  for (const { name, cmd, request, reply, validate_requests_seen: asked } of file.cases) {
    if (request === null) continue;
    it(`${cmd}: ${name}`, () => {
      const expected: Reply | Reply[] = JSON.parse(reply[0]!);
      let value: unknown;
      try {
        value = parseJson(request);
      } catch (error) {
        assert.ok(error instanceof JsonError);
        assert.deepEqual(expected, { error: 1, message: 'Invalid JSON' });
        return;
      }
      if (typeof value !== 'object' || value === null) {
        assert.deepEqual(expected, { error: 1, message: 'Invalid JSON: expected object or array of objects' });
        return;
      }
      const elements = Array.isArray(value) ? value : [value];
      const replies = Array.isArray(expected) ? expected : [expected];
      assert.equal(elements.length, replies.length);
      let passed = 0;
      for (const [index, element] of elements.entries()) {
        const ours = answer(cmd, element);
        const theirs = replies[index]!;
        if (ours === undefined) {
          passed++;
          // What the original says after the notifier's answer, and the signature of an unsubscription, is not ours to
          // say.
          if (cmd === 'push.unsubscribe') verifyAfterwards(element, theirs);
        } else if (theirs.message && /^\[json\.exception|^Invalid value: expected bytes/.test(theirs.message)) {
          used.add(name);
          assert.deepEqual(ours, { error: Code.BAD_INPUT, message: SENTENCES[name] });
        } else {
          assert.deepEqual(ours, theirs);
        }
      }
      // The original asks the notifier twice for each subscription, once for each unsubscription.
      if (asked !== undefined) assert.equal(passed, cmd === 'push.subscribe' ? asked / 2 : asked);
    });
  }

  it('are all compared, except those whose request is left out of the vectors', () => {
    assert.equal(file.cases.length, 90);
    const left = file.cases.filter(({ request }) => request === null);
    assert.deepEqual(
      left.map(({ name }) => name),
      LEFT_OUT,
    );
  });

  it('differ from ours in the named cases and in no others', () => {
    assert.deepEqual([...used].sort(), Object.keys(SENTENCES).sort());
  });
});

function verifyAfterwards(element: unknown, expected: Reply): void {
  const request = parseUnsubscribe(element, known);
  if (JSON.stringify(request.serviceInfo).includes('reply')) return; // the notifier refused it
  if (expected.success) checkOwnedUnsubscription(request, now);
  else {
    assert.throws(
      () => checkOwnedUnsubscription(request, now),
      (error) => error instanceof RequestError && error.code === expected.error && error.message === expected.message,
    );
  }
}

const added = JSON.parse(file.cases.find(({ name }) => name === 'added')!.request!) as Record<string, unknown>;
const group = JSON.parse(file.cases.find(({ name }) => name === 'group with subaccount')!.request!) as Record<
  string,
  unknown
>;

it('errors have the codes that clients know', () => {
  assert.deepEqual(Code, {
    OK: 0,
    BAD_INPUT: 1,
    SERVICE_NOT_AVAILABLE: 2,
    SERVICE_TIMEOUT: 3,
    ERROR: 4,
    INTERNAL_ERROR: 5,
  });
});

describe('parseSubscribe', () => {
  it('returns everything that the request holds', () => {
    const request = parseSubscribe(group, now, known);
    assert.equal(request.account.toString('hex'), group.pubkey);
    assert.equal(request.sessionEd25519, null);
    assert.equal(request.subaccount?.tag.toString('hex'), group.subaccount);
    assert.equal(request.subaccount?.signature.toString('base64'), group.subaccount_sig);
    assert.deepEqual(request.namespaces, [11]);
    assert.equal(request.wantData, true);
    assert.equal(request.signedAt, file.now);
    assert.equal(request.service, 'cap');
    assert.deepEqual(request.serviceInfo, group.service_info);
    assert.equal(request.encKey.toString('hex'), group.enc_key);
    assert.equal(parseSubscribe(added, now, known).sessionEd25519?.toString('hex'), added.session_ed25519);
  });

  const fields: [name: string, expected: string, of: Record<string, unknown>, wrong: unknown[]][] = [
    ['pubkey', 'a string', added, [null, 5, true, [], {}]],
    ['session_ed25519', 'a string', added, [null, 5, true, [], {}]],
    ['subaccount', 'a string', group, [null, 5, true, [], {}]],
    ['subaccount_sig', 'a string', group, [null, 5, true, [], {}]],
    ['signature', 'a string', added, [null, 5, true, [], {}]],
    ['sig_ts', 'a number', added, [null, '5', true, [], {}]],
    ['service', 'a string', added, [null, 5, true, [], {}]],
    ['enc_key', 'a string', added, [null, 5, true, [], {}]],
    ['namespaces', 'an array of numbers', added, [null, 5, 'x', {}, [null], ['0'], [[]], [{}]]],
    ['data', 'true or false', added, [null, 1, 'true', [], {}]],
  ];
  for (const [name, expected, of, wrong] of fields) {
    it(`names ${name} when it is of a wrong type`, () => {
      for (const value of wrong) {
        assert.deepEqual(answer('push.subscribe', { ...of, [name]: value }), {
          error: 1,
          message: `Invalid or missing '${name}': expected ${expected}`,
        });
      }
    });
  }

  it('accepts any service_info, even null', () => {
    for (const service_info of [null, 0, '', [], {}]) {
      assert.deepEqual(parseSubscribe({ ...added, service_info }, now, known).serviceInfo, service_info);
    }
  });

  it('refuses bytes of a wrong size, naming the field and the size', () => {
    for (const [name, size] of Object.entries({ pubkey: 33, session_ed25519: 32, signature: 64, enc_key: 32 })) {
      assert.throws(
        () => parseSubscribe({ ...added, [name]: 'ab' }, now, known),
        (error) => {
          assert.ok(error instanceof RequestError);
          assert.deepEqual(
            [error.code, error.message],
            [1, `Invalid or missing '${name}': expected ${size} bytes, as hex or base64`],
          );
          return true;
        },
      );
    }
  });

  it('computes nothing for a key that is known to belong to the account, and trusts no other', () => {
    const asked: string[][] = [];
    const owner = (account: Buffer, key: Buffer) => {
      asked.push([account.toString('hex'), key.toString('hex')]);
      return true;
    };
    const other = { ...added, pubkey: `05${'ab'.repeat(32)}` };
    // It is not the account's, and the signature, which is over another account, is what is wrong with it then.
    const texts = [{ ...known, owner }, { ...known, owner: () => false }, known].map((what) => {
      try {
        return parseSubscribe(other, now, what);
      } catch (error) {
        return (error as Error).message;
      }
    });
    const mismatch = 'account_id/session_ed25519 mismatch: session_ed25519 does not convert to given account_id';
    assert.deepEqual(texts, ['Signature verification failed', mismatch, mismatch]);
    assert.deepEqual(asked, [[other.pubkey, added.session_ed25519]]);
  });

  it('wraps namespaces and times of any size', () => {
    const namespaces = (text: string) => parseJson(text) as number[];
    // The signature covers [0]: what wraps to that passes.
    for (const text of ['[65536]', '[-65536]', '[18446744073709486080]', '[0.5]', '[-0.9]', '[false]', '[1e30]']) {
      assert.deepEqual(parseSubscribe({ ...added, namespaces: namespaces(text) }, now, known).namespaces, [0], text);
    }
    const time = (text: string) => answer('push.subscribe', { ...added, sig_ts: parseJson(text) })?.message;
    assert.equal(time('9223372036854775807'), 'Subscription: sig_ts timestamp is too far in the future');
    assert.equal(time('18446744073709551615'), 'Subscription: sig_ts timestamp is too old');
    assert.equal(time('1e300'), 'Subscription: sig_ts timestamp is too far in the future');
    assert.equal(time('-0.5'), 'Subscription: signature timestamp is missing');
  });

  it('answers damaged requests with a RequestError and nothing else', () => {
    const texts = [added, group].map((request) => Buffer.from(JSON.stringify(request)));
    fuzz(3_000, (random) => {
      const damaged = random.damage(texts[random.below(2)]!);
      let value: unknown;
      try {
        value = parseJson(damaged);
      } catch {
        return;
      }
      answer('push.subscribe', value);
      answer('push.unsubscribe', value);
    });
  });
});
