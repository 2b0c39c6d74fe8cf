import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readJwt } from '../../../src/devnet/providers/jwt.ts';
import { Vapid } from '../../../src/notifiers/webpush/vapid.ts';
import { readVapidKey, vapidPublicKey } from '../../../src/settings/vapid-key.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { folder } from '../support.ts';

const HOUR = 3_600_000;

function setUp(wall = 1_700_000_000_000) {
  const clock = new FakeClock();
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const vapid = new Vapid(privateKey, 'mailto:push@example.org', clock, () => wall);
  const read = (header: string) => {
    const [, token = '', key] = /^vapid t=([\w.-]+), k=([\w-]+)$/.exec(header) ?? [];
    assert.equal(key, vapidPublicKey(privateKey));
    return readJwt(token, createPublicKey(privateKey))!;
  };
  return { clock, vapid, read };
}

test('a token says for whom it is, until when, and who asks, signed by the key that stands beside it', () => {
  const { vapid, read } = setUp();
  const { header, claims } = read(vapid.authorization('https://push.example.org:8443'));
  assert.deepEqual(header, { typ: 'JWT', alg: 'ES256' });
  assert.deepEqual(claims, {
    aud: 'https://push.example.org:8443',
    exp: 1_700_000_000 + 12 * 3_600,
    sub: 'mailto:push@example.org',
  });
});

test('each origin has a token of its own, which is used for hours', async () => {
  const { clock, vapid } = setUp();
  const [one, other] = ['https://one.example', 'https://other.example'];
  const first = vapid.authorization(one);
  assert.notEqual(vapid.authorization(other), first);
  await clock.advance(6 * HOUR - 1);
  assert.equal(vapid.authorization(one), first);
  await clock.advance(1);
  const second = vapid.authorization(one);
  assert.notEqual(second, first);
  // What is not accepted is replaced; one that has been already, is not again.
  vapid.discard(one, first);
  assert.equal(vapid.authorization(one), second);
  vapid.discard(one, second);
  assert.notEqual(vapid.authorization(one), second);
});

test('beyond a thousand origins the oldest token is forgotten', () => {
  const { vapid } = setUp();
  const first = vapid.authorization('https://0.example');
  const second = vapid.authorization('https://1.example');
  for (let index = 2; index <= 1_000; index++) vapid.authorization(`https://${index}.example`);
  assert.equal(vapid.authorization('https://1.example'), second);
  assert.notEqual(vapid.authorization('https://0.example'), first);
});

test('an invalid key is explained in a sentence', async (t) => {
  const path = await folder(t);
  assert.throws(() => readVapidKey(join(path, 'none')), /does not exist: create it with "spns keygen --vapid"/);
  const write = async (text: string | Buffer) => {
    await writeFile(join(path, 'key'), text);
    return () => readVapidKey(join(path, 'key'));
  };
  assert.throws(await write('a'.repeat(64)), /holds no private key: it must be a PEM file/);
  for (const other of [generateKeyPairSync('ed25519'), generateKeyPairSync('ec', { namedCurve: 'P-384' })]) {
    const pem = other.privateKey.export({ type: 'pkcs8', format: 'pem' });
    assert.throws(await write(pem), /must be on the curve P-256/);
  }
});
