import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  decryptOnion,
  deriveOnionKey,
  encodeV4Request,
  encodeV4Response,
  encryptOnion,
  MAX_ONION_SIZE,
  type OnionEncryption,
  OnionError,
  onionKeys,
  parseV4Request,
  parseV4Response,
} from '../../src/session/onion.ts';
import { x25519, x25519Public, xchachaEncrypt } from '../../src/session/sodium.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

const file = vectors<{
  server_privkey: string;
  server_pubkey: string;
  max_body_size: number;
  key_derivation: {
    enc: OnionEncryption;
    client_privkey: string;
    client_pubkey: string;
    server_pubkey: string;
    shared_secret: string;
    symmetric_key: string;
  }[];
  requests: {
    name: string;
    enc: OnionEncryption;
    client_pubkey: string;
    client_privkey: string;
    body_hex: string;
    json: string;
    payload_hex: string;
    reply_plain_hex: string;
    reply_encrypted_hex: string;
  }[];
  variants: { name: string; body_hex: string; outcome: 'ok' | 'error'; payload_hex?: string }[];
  size_limit: { total_size: number; outcome: 'ok' | 'error' }[];
  v4: {
    name: string;
    plaintext_hex?: string;
    plaintext_text: string;
    reply_text?: string;
    forwarded: [string, number][];
    original_exception?: string;
  }[];
}>('onionreq.json');

const hex = (text: string) => Buffer.from(text, 'hex');
const serverSecret = hex(file.server_privkey);
const serverPublic = hex(file.server_pubkey);
const keys = onionKeys(serverSecret);

describe('deriveOnionKey', () => {
  for (const vector of file.key_derivation) {
    it(`derives the key for ${vector.enc}, on both sides`, () => {
      const clientPublic = hex(vector.client_pubkey);
      assert.deepEqual(x25519Public(hex(vector.client_privkey)), clientPublic);
      assert.deepEqual(x25519Public(serverSecret), hex(vector.server_pubkey));
      const shared = hex(vector.shared_secret);
      assert.deepEqual(x25519(serverSecret, clientPublic), shared);
      assert.deepEqual(x25519(hex(vector.client_privkey), serverPublic), shared);
      assert.equal(
        deriveOnionKey(vector.enc, shared, clientPublic, serverPublic).toString('hex'),
        vector.symmetric_key,
      );
    });
  }
});

describe('decryptOnion', () => {
  it('is checked against every case of the vectors', () => {
    assert.deepEqual(
      [file.key_derivation, file.requests, file.variants, file.size_limit].map(({ length }) => length),
      [2, 18, 55, 2],
    );
  });

  for (const vector of file.requests) {
    it(`reads the request: ${vector.name}`, () => {
      const request = decryptOnion(hex(vector.body_hex), keys);
      assert.deepEqual(request.plaintext, hex(vector.payload_hex));

      // The client of the vectors opens our reply and theirs; the same client's request is one that we can read.
      const random = [hex(vector.client_privkey), randomBytes(24)];
      const client = encryptOnion(request.plaintext, serverPublic, vector.enc, (bytes) =>
        random.shift()!.subarray(0, bytes),
      );
      const reply = hex(vector.reply_plain_hex);
      assert.deepEqual(client.open(hex(vector.reply_encrypted_hex)), reply);
      assert.deepEqual(client.open(request.reply(reply)), reply);
      assert.deepEqual(decryptOnion(client.body, keys).plaintext, request.plaintext);
    });
  }

  for (const { name, body_hex, outcome, payload_hex } of file.variants) {
    it(`${outcome === 'ok' ? 'reads' : 'refuses'} the variant: ${name}`, () => {
      if (outcome === 'ok') assert.equal(decryptOnion(hex(body_hex), keys).plaintext.toString('hex'), payload_hex);
      else assert.throws(() => decryptOnion(hex(body_hex), keys), OnionError);
    });
  }

  it('takes the ephemeral key verbatim, too, which is 32 bytes of UTF-8', () => {
    for (const text of ['k'.repeat(32), 'ü'.repeat(16)]) {
      const clientPublic = Buffer.from(text);
      const key = deriveOnionKey('xchacha20', x25519(serverSecret, clientPublic)!, clientPublic, serverPublic);
      const nonce = randomBytes(24);
      const ciphertext = Buffer.concat([nonce, xchachaEncrypt(Buffer.from('hello'), nonce, key)]);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(ciphertext.length);
      const meta = Buffer.from(JSON.stringify({ ephemeral_key: text, enc_type: 'xchacha20' }));
      assert.equal(decryptOnion(Buffer.concat([length, ciphertext, meta]), keys).plaintext.toString(), 'hello');
    }
  });

  for (const { total_size, outcome } of file.size_limit) {
    it(`${outcome === 'ok' ? 'reads' : 'refuses'} a request of ${total_size} bytes`, () => {
      const overhead = encryptOnion(Buffer.alloc(0), serverPublic, 'aes-gcm').body.length;
      const { body } = encryptOnion(Buffer.alloc(total_size - overhead), serverPublic, 'aes-gcm');
      assert.equal(body.length, total_size);
      if (outcome === 'ok') decryptOnion(body, keys);
      else assert.throws(() => decryptOnion(body, keys), /too big/);
    });
  }

  it('has the limit of the vectors', () => assert.equal(MAX_ONION_SIZE, file.max_body_size));

  it('never uses a nonce twice', () => {
    for (const encryption of ['aes-gcm', 'xchacha20'] as const) {
      const request = decryptOnion(encryptOnion(Buffer.from('x'), serverPublic, encryption).body, keys);
      assert.notDeepEqual(request.reply(Buffer.from('y')), request.reply(Buffer.from('y')));
    }
  });

  it('refuses a request for another key, and one whose server key is of low order cannot be made', () => {
    const { body } = encryptOnion(Buffer.from('x'), x25519Public(randomBytes(32)), 'xchacha20');
    assert.throws(() => decryptOnion(body, keys), OnionError);
    assert.throws(() => encryptOnion(Buffer.from('x'), Buffer.alloc(32), 'aes-gcm'), OnionError);
  });

  it('refuses damaged requests with an OnionError and never otherwise', () => {
    const bodies = (['aes-gcm', 'xchacha20'] as const).map(
      (enc) => encryptOnion(randomBytes(40), serverPublic, enc).body,
    );
    for (const body of bodies) {
      for (let length = 0; length < body.length; length++) {
        assert.throws(() => decryptOnion(body.subarray(0, length), keys), OnionError);
      }
    }
    fuzz(1_500, (random) => {
      try {
        decryptOnion(random.damage(bodies[random.below(2)]!), keys);
      } catch (error) {
        assert.ok(error instanceof OnionError);
      }
    });
  });
});

describe('the v4 layer', () => {
  it('is checked against every case of the vectors', () => assert.equal(file.v4.length, 36));

  for (const vector of file.v4) {
    const size = /(\d+)-byte body of spaces/.exec(vector.plaintext_text)?.[1];
    const normal = hex(file.v4[0]!.plaintext_hex!);
    const plaintext =
      size === undefined
        ? hex(vector.plaintext_hex!)
        : encodeV4Request({ ...parseV4Request(normal), body: Buffer.alloc(Number(size), ' ') });

    if (vector.reply_text === undefined) {
      it(`refuses: ${vector.name}`, () => {
        assert.ok(vector.original_exception);
        assert.throws(() => parseV4Request(plaintext), OnionError);
      });
      continue;
    }
    it(`reads: ${vector.name}`, () => {
      const request = parseV4Request(plaintext);
      assert.match(request.method, /^(GET|POST|post)$/);
      assert.ok(request.endpoint.startsWith('/'));
      for (const [, length] of vector.forwarded) assert.equal(request.body.length, length);
      assert.deepEqual(parseV4Request(encodeV4Request(request)), request);
    });
    it(`writes the reply to: ${vector.name}`, () => {
      const reply = Buffer.from(vector.reply_text!);
      const response = parseV4Response(reply);
      const headers = { ...response.headers, 'Content-Length': String(response.body.length) };
      assert.deepEqual(encodeV4Response({ ...response, headers }), reply);
    });
  }

  it('reads header names in lower case', () => {
    const request = parseV4Request(
      encodeV4Request({ method: 'POST', endpoint: '/', headers: { 'X-A': 'b', __proto__: 'c' } }),
    );
    assert.deepEqual(request.headers, { 'x-a': 'b' });
    assert.deepEqual(request.body, Buffer.alloc(0));
  });

  it('writes headers in ASCII', () => {
    assert.equal(
      encodeV4Response({ code: 200, headers: { A: 'ü"\u007f' }, body: Buffer.alloc(0) }).toString(),
      'l49:{"code": 200, "headers": {"a": "\\u00fc\\"\\u007f"}}0:e',
    );
  });

  it('refuses a response that a client could not read', () => {
    for (const text of [
      'l12:{"code":200}e',
      'l14:{"code":"200"}0:e',
      'l14:{"code":200.5}0:e',
      'l2:{}0:e',
      'l2:[]0:e',
      '',
    ]) {
      assert.throws(() => parseV4Response(Buffer.from(text)), OnionError, text);
    }
    assert.throws(
      () => parseV4Request(Buffer.from('l53:{"method":"POST","endpoint":"/","headers":{"a":null}}e')),
      OnionError,
    );
  });

  it('takes one stray byte for no body, an empty string for an empty one, and refuses anything else', () => {
    const answer = (rest: string) => parseV4Response(Buffer.from(`l25:{"code":200,"headers":{}}${rest}e`));
    assert.deepEqual(answer('0:').body, Buffer.alloc(0));
    for (const rest of ['', 'x', 'xx', '1:', '0:x', '0:0:']) assert.throws(() => answer(rest), OnionError, rest);
    const request = (rest: string) => parseV4Request(Buffer.from(`l32:{"method":"POST","endpoint":"/"}${rest}e`));
    for (const rest of ['', 'x', '0:']) assert.deepEqual(request(rest).body, Buffer.alloc(0), rest);
    for (const rest of ['xx', '1:', '0:x']) assert.throws(() => request(rest), OnionError, rest);
  });

  it('reads or refuses damaged plaintexts, and throws nothing but OnionError', () => {
    const intact = hex(file.v4[0]!.plaintext_hex!);
    for (let length = 0; length < intact.length; length++) {
      assert.throws(() => parseV4Request(intact.subarray(0, length)), OnionError);
    }
    fuzz(3_000, (random) => {
      const damaged = random.damage(intact);
      for (const parse of [parseV4Request, parseV4Response]) {
        try {
          parse(damaged);
        } catch (error) {
          assert.ok(error instanceof OnionError);
        }
      }
    });
  });
});
