import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from '../../src/session/sodium.ts';
import { native } from '../../src/session/sodium-native.ts';
import { type Libsodium, wasm } from '../../src/session/sodium-wasm.ts';
import { fuzz } from '../support/fuzz.ts';

const skip = native ? false : 'sodium-native does not load here';

/** What both builds make of the same: fails if they differ. */
function both<T>(compute: (build: Libsodium) => T): T {
  const result = compute(wasm);
  assert.deepEqual(compute(native!), result);
  return result;
}

const hex = (text: string) => Buffer.from(text, 'hex');

/** 32 bytes, little-endian. */
function littleEndian(number: bigint): Buffer {
  return Buffer.from(number.toString(16).padStart(64, '0'), 'hex').reverse();
}

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const SIGN = 2n ** 255n;

/** The y coordinates of the points of order 1, 2, 4 and 8, in every encoding: with either sign, canonical or not. */
const smallOrder = [
  ...[0n, 1n, P - 1n, P, P + 1n].flatMap((y) => [y, y | SIGN]).map(littleEndian),
  ...[
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  ].flatMap((text) => {
    const [plain, signed] = [hex(text), hex(text)];
    signed[31]! |= 0x80;
    return [plain, signed];
  }),
];

/** Coordinates from p on are not canonical, whatever they are modulo p. */
const notCanonical = Array.from({ length: 19 }, (_, over) => P + BigInt(over)).flatMap((y) => [
  littleEndian(y),
  littleEndian(y | SIGN),
]);

const verify = (signature: Buffer, message: Buffer, key: Buffer) => both((b) => b.verify(signature, message, key));
const toX25519 = (key: Buffer) => both((b) => b.toX25519(key));

describe('both builds of libsodium', { skip }, () => {
  const message = Buffer.from('message');
  const { publicKey, secretKey } = wasm.keyPair(Buffer.alloc(32, 7));
  const signature = wasm.sign(message, secretKey);
  const [r, s] = [signature.subarray(0, 32), signature.subarray(32)];

  it('refuse keys of small order and keys that are not canonical', () => {
    for (const key of [...smallOrder, ...notCanonical]) {
      assert.equal(verify(signature, message, key), false);
      // With S zero a key of small order would verify for whatever R it is equal to.
      for (const forged of [littleEndian(1n), key]) {
        assert.equal(verify(Buffer.concat([forged, Buffer.alloc(32)]), message, key), false);
      }
      toX25519(key);
    }
    for (const key of smallOrder) assert.equal(toX25519(key), undefined);
  });

  it('refuse an R of small order, and an S that is not below the order of the group', () => {
    assert.equal(verify(signature, message, publicKey), true);
    for (const point of smallOrder) assert.equal(verify(Buffer.concat([point, s]), message, publicKey), false);
    const number = BigInt(`0x${Buffer.from(s).reverse().toString('hex')}`);
    for (const other of [number + L, number + 2n * L, L, 2n ** 256n - 1n]) {
      assert.equal(verify(Buffer.concat([r, littleEndian(other)]), message, publicKey), false);
    }
  });

  it('sign, verify and convert alike', () => {
    fuzz(50, (random) => {
      const seed = random.bytes(32);
      const pair = both(({ keyPair }) => keyPair(seed));
      const text = random.bytes(random.below(200));
      const signed = both(({ sign }) => sign(text, pair.secretKey));
      assert.equal(verify(signed, text, pair.publicKey), true);
      assert.ok(toX25519(pair.publicKey));
      const [badSignature, badKey] = [Buffer.from(signed), Buffer.from(pair.publicKey)];
      badSignature[random.below(64)]! ^= 1 << random.below(8);
      badKey[random.below(32)]! ^= 1 << random.below(8);
      assert.equal(verify(badSignature, text, pair.publicKey), false);
      assert.equal(verify(signed, text, badKey), false);
      toX25519(badKey);
      // Half of all bytes are no point.
      toX25519(random.bytes(32));
    });
  });

  it('multiply alike on the curve of X25519, and refuse points of low order', () => {
    fuzz(50, (random) => {
      const [secret, other] = [random.bytes(32), random.bytes(32)];
      const point = both(({ x25519Public }) => x25519Public(other));
      assert.ok(both(({ x25519 }) => x25519(secret, point)));
      // Every 32 bytes are a point here.
      assert.ok(both(({ x25519 }) => x25519(secret, other)));
    });
    const secret = Buffer.alloc(32, 9);
    const eight = [
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
      '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    ].map(hex);
    for (const point of [...[0n, 1n, P - 1n, P, P + 1n].map(littleEndian), ...eight]) {
      for (const bit of [0, 0x80]) {
        const encoded = Buffer.from(point);
        encoded[31]! |= bit;
        assert.equal(
          both(({ x25519 }) => x25519(secret, encoded)),
          undefined,
        );
      }
    }
    for (const point of notCanonical) both(({ x25519 }) => x25519(secret, point));
  });

  it('hash and encrypt alike, whatever the sizes', () => {
    fuzz(300, (random) => {
      const data = random.bytes(random.below(300));
      const [size, length] = [16 + random.below(49), random.below(65)];
      const key = length === 0 ? undefined : random.bytes(length);
      assert.equal(both(({ blake2b }) => blake2b(size, data, key)).length, size);

      const [nonce, secret] = [random.bytes(24), random.bytes(32)];
      const ciphertext = both(({ encrypt }) => encrypt(data, nonce, secret));
      assert.deepEqual(
        both(({ decrypt }) => decrypt(ciphertext, nonce, secret)),
        data,
      );
      ciphertext[random.below(ciphertext.length)]! ^= 1 << random.below(8);
      assert.equal(
        both(({ decrypt }) => decrypt(ciphertext, nonce, secret)),
        undefined,
      );
    });
  });
});

it('the native build runs where it loads', { skip }, () => assert.equal(build, 'native'));

it('every vector passes without it, too', async () => {
  const files = ['sodium', 'subscription', 'request', 'onion', 'payload', 'push', 'message-hash', 'notifier-key'];
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      `--import=${new URL('../support/without-sodium-native.ts', import.meta.url)}`,
      '--test',
      '--test-isolation=none',
      '--test-reporter=tap',
      ...files.map((name) => fileURLToPath(new URL(`${name}.test.ts`, import.meta.url))),
    ],
    { env, maxBuffer: 2 ** 24 },
  );
  assert.match(stdout, /^# fail 0$/m);
  assert.ok(Number(/^# pass (\d+)$/m.exec(stdout)?.[1]) > 200, stdout.slice(-500));
});
