import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { accountFromEd25519, checkSessionEd25519, verificationKey } from '../../src/session/account.ts';
import { RequestError } from '../../src/session/errors.ts';
import {
  blake2b,
  ed25519KeyPair,
  ed25519Sign,
  ed25519Verify,
  edToX25519Public,
  x25519,
  x25519Public,
  xchachaDecrypt,
  xchachaEncrypt,
} from '../../src/session/sodium.ts';

const hex = (text: string) => Buffer.from(text, 'hex');
const message = Buffer.from('message');

describe('Ed25519', () => {
  const pair = ed25519KeyPair(Buffer.alloc(32, 7));
  const signature = ed25519Sign(message, pair.secretKey);

  it('verifies its own signatures and no others', () => {
    assert.equal(ed25519Verify(signature, message, pair.publicKey), true);
    assert.equal(ed25519Verify(signature, Buffer.from('massage'), pair.publicKey), false);
    assert.equal(ed25519Verify(signature, message, ed25519KeyPair(Buffer.alloc(32, 8)).publicKey), false);
  });

  it('takes seeds and secret keys of their size alone', () => {
    for (const size of [31, 33]) assert.throws(() => ed25519KeyPair(Buffer.alloc(size)), RangeError);
    for (const size of [63, 65]) assert.throws(() => ed25519Sign(message, Buffer.alloc(size)), RangeError);
  });

  it('returns false for wrong sizes instead of throwing', () => {
    for (const size of [0, 63, 65]) assert.equal(ed25519Verify(Buffer.alloc(size), message, pair.publicKey), false);
    for (const size of [0, 31, 33]) assert.equal(ed25519Verify(signature, message, Buffer.alloc(size)), false);
    assert.equal(edToX25519Public(Buffer.alloc(31)), undefined);
  });

  it('refuses keys of small order, with which anything would verify', () => {
    const forged = Buffer.concat([hex(`01${'00'.repeat(31)}`), Buffer.alloc(32)]);
    assert.equal(ed25519Verify(forged, message, hex(`01${'00'.repeat(31)}`)), false);
    assert.equal(edToX25519Public(hex(`01${'00'.repeat(31)}`)), undefined);
  });
});

describe('X25519', () => {
  it('gives both sides the same secret (RFC 7748, section 6.1)', () => {
    const alice = hex('77076d0a7318a57d3c16c17251b26645c6db8d2f5c1a5c5f5a9b1d6f5d9e2f5a');
    const bob = hex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb');
    assert.deepEqual(x25519(alice, x25519Public(bob)), x25519(bob, x25519Public(alice)));
    assert.equal(x25519Public(bob).toString('hex'), 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
  });

  it('notices when the bytes of a secret key have been overwritten', () => {
    const secret = randomBytes(32);
    const other = x25519Public(randomBytes(32));
    const before = x25519(secret, other);
    randomBytes(32).copy(secret);
    assert.notDeepEqual(x25519(secret, other), before);
  });

  it('refuses points of low order and wrong sizes', () => {
    const secret = randomBytes(32);
    for (const point of [
      '00'.repeat(32),
      `01${'00'.repeat(31)}`,
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    ]) {
      assert.equal(x25519(secret, hex(point)), undefined);
    }
    assert.equal(x25519(secret, Buffer.alloc(31, 9)), undefined);
    assert.throws(() => x25519Public(Buffer.alloc(31)), RangeError);
    assert.throws(() => x25519(Buffer.alloc(31), x25519Public(secret)), RangeError);
  });
});

describe('BLAKE2b and XChaCha20-Poly1305', () => {
  it('hash as libsodium does', () => {
    assert.equal(
      blake2b(32, Buffer.alloc(0)).toString('hex'),
      '0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8',
    );
    assert.notDeepEqual(blake2b(32, message, Buffer.from('key')), blake2b(32, message));
    assert.equal(blake2b(64, message).length, 64);
  });

  it('decrypt what they encrypted and nothing else', () => {
    const key = randomBytes(32);
    const nonce = randomBytes(24);
    const ciphertext = xchachaEncrypt(message, nonce, key);
    assert.equal(ciphertext.length, message.length + 16);
    assert.deepEqual(xchachaDecrypt(ciphertext, nonce, key), message);
    assert.equal(xchachaDecrypt(ciphertext.subarray(1), nonce, key), undefined);
    assert.equal(xchachaDecrypt(Buffer.alloc(15), nonce, key), undefined);
    assert.equal(xchachaDecrypt(ciphertext, nonce, randomBytes(32)), undefined);
    for (const call of [xchachaEncrypt, xchachaDecrypt]) {
      assert.throws(() => call(ciphertext, Buffer.alloc(12), key), RangeError);
      assert.throws(() => call(ciphertext, nonce, Buffer.alloc(31)), RangeError);
    }
  });
});

describe('account ids', () => {
  const { publicKey } = ed25519KeyPair(Buffer.alloc(32, 7));
  const account = accountFromEd25519(publicKey);

  it('are made from an Ed25519 key and accept only that', () => {
    assert.equal(account.length, 33);
    assert.equal(account[0], 5);
    checkSessionEd25519(account, publicKey);
    const other = ed25519KeyPair(Buffer.alloc(32, 8)).publicKey;
    assert.throws(() => checkSessionEd25519(account, other), /account_id\/session_ed25519 mismatch/);
    assert.throws(() => checkSessionEd25519(account, Buffer.alloc(32)), RequestError);
  });

  it('name the key that verifies for them', () => {
    assert.equal(verificationKey(account, publicKey), publicKey);
    assert.deepEqual(verificationKey(account, null), account.subarray(1));
  });
});
