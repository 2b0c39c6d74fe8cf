import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BencodeError, encode } from '../../src/codec/bencode.ts';
import { JsonError } from '../../src/codec/json.ts';
import type { Notification } from '../../src/session/notification.ts';
import { isFalseAlarm, isShown, MAX_BODY, openPayload, sealPayload } from '../../src/session/payload.ts';
import { xchachaDecrypt, xchachaEncrypt } from '../../src/session/sodium.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

interface Case {
  name: string;
  enc_key: string;
  nonce: string;
  account: string;
  hash_hex: string;
  namespace: number;
  timestamp_ms: string;
  expiry_ms: string;
  data_hex: string | null;
  max_msg_size: number;
  plaintext_hex?: string;
  plaintext_len?: number;
  payload_hex?: string;
  json_form_payload_hex?: string;
  original_error?: string;
}

const { cases } = vectors<{ cases: Case[] }>('payload.json');

const hex = (text: string) => Buffer.from(text, 'hex');

function number(text: string): number | bigint {
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
}

function notification(vector: Case): Notification {
  return {
    account: hex(vector.account),
    hash: hex(vector.hash_hex),
    namespace: vector.namespace,
    timestamp: number(vector.timestamp_ms),
    expiry: number(vector.expiry_ms),
    data: vector.data_hex === null ? null : hex(vector.data_hex),
  };
}

/** Where ours differs from the original, on purpose: what the plaintext begins with instead. */
const DIFFERENT: Readonly<Record<string, RegExp>> = {
  // The original writes "n": null.
  'negative namespace with body': /^l185:\{.*"n": -11, "t": 1700000000000, "z": 1701000000000, "l": 5\}5:helloe\0*$/,
  // The original fails on these and the notification is lost.
  'negative namespace without body':
    /^ld1:#43:H{43}1:@66:[0-9a-f]{66}1:ni-11e1:ti1700000000000e1:zi1701000000000eee\0*$/,
  'too big, negative namespace': /^ld1:#43:H{43}1:@66:[0-9a-f]{66}1:Bi1e1:li2501e1:ni-11e1:ti\d+e1:zi\d+eee\0*$/,
  'hash not utf-8': /^l\d+:\{"@": "[0-9a-f]{66}", "#": "(\\ufffd){43}", "n": 0, .*"l": 5\}5:helloe\0*$/,
};

describe('sealPayload', () => {
  const differed: string[] = [];

  for (const vector of cases) {
    it(`seals: ${vector.name}`, () => {
      assert.equal(vector.max_msg_size, MAX_BODY);
      const key = hex(vector.enc_key);
      const payload = sealPayload(notification(vector), key, hex(vector.nonce));
      assert.equal(payload.subarray(0, 24).toString('hex'), vector.nonce);
      if (payload.toString('hex') !== vector.payload_hex) {
        differed.push(vector.name);
        const plaintext = xchachaDecrypt(payload.subarray(24), payload.subarray(0, 24), key)!;
        assert.equal(plaintext.length % 256, 0);
        assert.match(plaintext.toString('latin1'), DIFFERENT[vector.name]!);
        // With a body, the documented form is what we send.
        if (vector.data_hex?.length === 10 && vector.json_form_payload_hex) {
          assert.equal(payload.toString('hex'), vector.json_form_payload_hex);
        }
      }
    });

    it(`is opened again: ${vector.name}`, () => {
      const sent = notification(vector);
      const { metadata, data } = openPayload(
        sealPayload(sent, hex(vector.enc_key), hex(vector.nonce)),
        hex(vector.enc_key),
      );
      const tooBig = sent.data !== null && sent.data.length > MAX_BODY;
      assert.deepEqual(metadata, {
        account: vector.account,
        hash: sent.hash.toString(),
        namespace: sent.namespace,
        timestamp: sent.timestamp,
        expiry: sent.expiry,
        length: sent.data?.length || undefined,
        tooBig,
      });
      assert.deepEqual(data, sent.data?.length && !tooBig ? sent.data : null);
    });
  }

  it('differs from the original in the named cases and in no others', () => {
    assert.equal(cases.length, 28);
    assert.deepEqual(differed.sort(), Object.keys(DIFFERENT).sort());
  });

  it('escapes a hash as Python does', () => {
    const hash = Buffer.from('"\\/\b\t\u007f\u0000é😀~ '.padEnd(40, 'x'));
    const key = Buffer.alloc(32, 1);
    const payload = sealPayload({ ...notification(cases[0]!), hash }, key, Buffer.alloc(24));
    const plaintext = xchachaDecrypt(payload.subarray(24), payload.subarray(0, 24), key)!.toString('latin1');
    assert.ok(plaintext.includes('"\\"\\\\/\\b\\t\\u007f\\u0000\\u00e9\\ud83d\\ude00~ x'));
    assert.equal(openPayload(payload, key).metadata.hash, hash.toString());
  });

  it('refuses a key or a nonce of a wrong size', () => {
    assert.throws(() => sealPayload(notification(cases[0]!), Buffer.alloc(31), Buffer.alloc(24)), RangeError);
    assert.throws(() => sealPayload(notification(cases[0]!), Buffer.alloc(32), Buffer.alloc(12)), RangeError);
  });
});

describe('openPayload', () => {
  const key = Buffer.alloc(32, 1);
  const nonce = Buffer.alloc(24, 2);

  it('opens what the original sent', () => {
    for (const vector of cases) {
      // With a namespace of null no app can do anything.
      if (vector.payload_hex && vector.namespace >= 0) openPayload(hex(vector.payload_hex), hex(vector.enc_key));
    }
  });

  it('refuses what is shorter than a nonce, or nothing but one', () => {
    for (const size of [0, 23, 24, 25, 39]) assert.throws(() => openPayload(Buffer.alloc(size), key), BencodeError);
  });

  it('opens it only with its key, and only whole', () => {
    const payload = sealPayload(notification(cases[0]!), key, nonce);
    assert.throws(() => openPayload(payload, Buffer.alloc(32)), BencodeError);
    for (let length = 0; length < payload.length; length += 7) {
      assert.throws(() => openPayload(payload.subarray(0, length), key), BencodeError);
    }
  });

  it('reads or refuses whatever was sealed', () => {
    const plaintexts: Buffer[] = ['le', 'i5e', '', 'd1:@1:xe', 'l2:{}e', 'l1:{e', 'l4:nulle', 'li5ee', 'l2:{}i5ee'].map(
      (text) => Buffer.from(text),
    );
    plaintexts.push(encode([{ '#': 'x', n: 'y' }]));
    const open = (plaintext: Buffer) => {
      try {
        openPayload(Buffer.concat([nonce, xchachaEncrypt(plaintext, nonce, key)]), key);
      } catch (error) {
        assert.ok(error instanceof BencodeError || error instanceof JsonError);
      }
    };
    for (const plaintext of plaintexts) open(plaintext);
    fuzz(1_000, (random) => open(random.damage(hex(cases[0]!.plaintext_hex!).subarray(0, 200))));
  });
});

const BODIES = {
  none: null,
  empty: Buffer.alloc(0),
  one: Buffer.alloc(1),
  most: Buffer.alloc(MAX_BODY),
  more: Buffer.alloc(MAX_BODY + 1),
};

it('is worth waking a phone for if the app will show it: a message to a person or a group, with its body', () => {
  for (let namespace = -32_768; namespace <= 32_767; namespace++) {
    const shown = Object.entries(BODIES).flatMap(([name, data]) => (isShown({ namespace, data }) ? [name] : []));
    assert.deepEqual(shown, namespace === 0 || namespace === 11 ? ['one', 'most'] : [], String(namespace));
  }
});

it('is a false alarm if it is a notice of settings without the settings, and nothing else is', () => {
  const settings = [2, 3, 4, 5, 12, 13, 14, -11];
  for (let namespace = -32_768; namespace <= 32_767; namespace++) {
    const alarms = Object.entries(BODIES).flatMap(([name, data]) => (isFalseAlarm({ namespace, data }) ? [name] : []));
    assert.deepEqual(alarms, settings.includes(namespace) ? ['none', 'empty', 'more'] : [], String(namespace));
  }
});
