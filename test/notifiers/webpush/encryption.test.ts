import assert from 'node:assert/strict';
import { createECDH, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { decrypt, makeSubscription } from '../../../src/devnet/providers/webpush-checks.ts';
import { encrypt, MAX_BODY, MAX_PLAINTEXT } from '../../../src/notifiers/webpush/encryption.ts';

/** RFC 8291, appendix A. */
const EXAMPLE = {
  plaintext: 'When I grow up, I want to be a watermelon',
  senderPrivate: 'yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw',
  appPrivate: 'q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94',
  appPublic: 'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4',
  auth: 'BTBZMqHH6r4Tts7J_aSIgg',
  salt: 'DGv6ra1nlYgDCS1FRnbzlw',
  body:
    'DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl' +
    '7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN',
};
const bytes = (text: string) => Buffer.from(text, 'base64url');

test("the RFC's own example comes out byte for byte", () => {
  const drawn = [bytes(EXAMPLE.senderPrivate), bytes(EXAMPLE.salt)];
  const random = (length: number) => {
    const next = drawn.shift()!;
    assert.equal(next.length, length);
    return next;
  };
  const recipient = { p256dh: bytes(EXAMPLE.appPublic), auth: bytes(EXAMPLE.auth) };
  const body = encrypt(Buffer.from(EXAMPLE.plaintext), recipient, random);
  assert.equal(body.toString('base64url'), EXAMPLE.body);
});

test("the simulated app reads the RFC's example, and nothing that was changed", () => {
  const keys = createECDH('prime256v1');
  keys.setPrivateKey(bytes(EXAMPLE.appPrivate));
  const app = { keys, auth: bytes(EXAMPLE.auth) };
  const body = bytes(EXAMPLE.body);
  assert.equal(decrypt(body, app)?.toString(), EXAMPLE.plaintext);
  for (let index = 0; index < body.length; index++) {
    const changed = Buffer.from(body);
    changed[index]! ^= 1;
    // Of the record size only that it is large enough matters.
    if (index < 16 || index >= 20) assert.equal(decrypt(changed, app), undefined, `byte ${index}`);
  }
  assert.equal(decrypt(body, { ...app, auth: Buffer.alloc(16) }), undefined);
  assert.equal(decrypt(body.subarray(0, 90), app), undefined);
});

test('the longest plaintext fills the body, and every message has a key and a salt of its own', () => {
  const app = makeSubscription('x', randomBytes);
  const recipient = { p256dh: app.keys.getPublicKey(), auth: app.auth };
  const plaintext = randomBytes(MAX_PLAINTEXT);
  const body = encrypt(plaintext, recipient, randomBytes);
  assert.equal(body.length, MAX_BODY);
  assert.deepEqual(decrypt(body, app), plaintext);
  const again = encrypt(plaintext, recipient, randomBytes);
  assert.notDeepEqual(again.subarray(0, 16), body.subarray(0, 16));
  assert.notDeepEqual(again.subarray(21, 86), body.subarray(21, 86));
});
