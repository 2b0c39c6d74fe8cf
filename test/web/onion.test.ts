import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { test } from 'node:test';
import { encryptOnion } from '../../src/session/onion.ts';
import { connect, fakeHivemind, serve } from './fake-hivemind.ts';

interface V4Case {
  name: string;
  plaintext_hex?: string | null;
  plaintext_text: string;
  reply_text?: string;
  original_exception?: string;
  forwarded?: [string, number][];
}

const vectors = JSON.parse(await fs.readFile(new URL('../vectors/onionreq.json', import.meta.url), 'utf8')) as {
  server_privkey: string;
  server_pubkey: string;
  v4: V4Case[];
  requests: { name: string; body_hex: string; payload_hex: string }[];
  variants: { name: string; body_hex: string; outcome: string }[];
};
const secretKey = Buffer.from(vectors.server_privkey, 'hex');
const publicKey = Buffer.from(vectors.server_pubkey, 'hex');

/** Where ours differs on purpose: the original dies of the recursion, ours does not know the path in there. */
const RECURSION = 'recursive /oxen/v4/lsrpc';

function plaintextOf({ name, plaintext_hex }: V4Case): Buffer {
  if (plaintext_hex != null) return Buffer.from(plaintext_hex, 'hex');
  const size = Number(/^body (\d+)$/.exec(name)![1]);
  const meta = '{"method":"POST","endpoint":"/subscribe","headers":{"Content-Type":"application/json"}}';
  return Buffer.from(`l${meta.length}:${meta}${size}:${' '.repeat(size)}e`);
}

async function post(url: string, body: Uint8Array): Promise<{ status: number; body: Buffer; type: string | null }> {
  const response = await fetch(`${url}/oxen/v4/lsrpc`, { method: 'POST', body: Buffer.from(body) });
  return {
    status: response.status,
    body: Buffer.from(await response.arrayBuffer()),
    type: response.headers.get('content-type'),
  };
}

/** The hivemind of the vectors: tells how long the body was. */
async function echo(t: { after(work: () => Promise<void>): void }) {
  const fake = await fakeHivemind(t, (_, request) => request.reply(`{"echo":${request.parts[0]!.length}}`));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  return { ...fake, ...(await serve(t, hivemind, secretKey)) };
}

test('every v4 request of the vectors gets the answer of the original, or the one that the original meant', async (t) => {
  const { url, asked, registry } = await echo(t);
  let malformed = 0;
  for (const one of vectors.v4) {
    for (const encryption of ['xchacha20', 'aes-gcm'] as const) {
      asked.length = 0;
      const request = encryptOnion(plaintextOf(one), publicKey, encryption);
      const answer = await post(url, request.body);
      assert.equal(answer.status, 200, one.name);
      const reply = request.open(answer.body).toString();
      if (one.name === RECURSION) {
        assert.match(reply, /^l70:{"code": 404, /, one.name);
      } else if (one.original_exception) {
        malformed++;
        assert.equal(
          reply,
          'l71:{"code": 400, "headers": {"content-type": "text/plain; charset=utf-8"}}24:Invalid v4 onion requeste',
          one.name,
        );
      } else {
        assert.equal(reply, one.reply_text, one.name);
      }
      const forwarded = asked.map(({ command, body }) => [command, body.length]);
      assert.deepEqual(forwarded, one.forwarded ?? [], one.name);
    }
  }
  const metrics = await registry.metrics();
  assert.match(metrics, new RegExp(`spns_web_onion_failures_total{reason="malformed"} ${malformed}\\n`));
  assert.match(metrics, /spns_web_requests_total{via="onion",route="subscribe",status="405"} 2\n/);
});

test('requests made by libsession are understood', async (t) => {
  const { url } = await echo(t);
  for (const { name, body_hex } of vectors.requests) {
    const answer = await post(url, Buffer.from(body_hex, 'hex'));
    assert.equal(answer.status, 200, name);
  }
});

test('everything that does not decrypt gets one and the same answer', async (t) => {
  const { url, asked, faults, registry } = await echo(t);
  const good = encryptOnion(Buffer.from('l2:{}e'), publicKey, 'xchacha20').body;
  const flipped = Buffer.from(good);
  flipped[20]! ^= 1;
  const bad: [string, Uint8Array][] = [
    ['nothing', Buffer.alloc(0)],
    ['three bytes', good.subarray(0, 3)],
    ['cut', good.subarray(0, good.length - 1)],
    ['a changed bit', flipped],
    ['for another server', encryptOnion(Buffer.from('l2:{}e'), x25519Of(), 'aes-gcm').body],
    ['noise', randomBytes(1000)],
    ['ten megabytes of noise', randomBytes(10 * 1024 * 1024)],
    ['more metadata than anybody has', Buffer.concat([good, Buffer.alloc(20_000, ' ')])],
    ['more than ten megabytes', Buffer.alloc(10 * 1024 * 1024 + 1)],
    ...vectors.variants
      .filter(({ outcome }) => outcome !== 'ok')
      .map(({ name, body_hex }): [string, Uint8Array] => [name, Buffer.from(body_hex, 'hex')]),
  ];
  for (const [name, body] of bad) {
    const answer = await post(url, body);
    assert.equal(answer.status, 400, name);
    assert.equal(answer.type, 'text/plain; charset=utf-8', name);
    assert.equal(answer.body.toString(), 'Invalid onion request\n', name);
  }
  assert.deepEqual(asked, []);
  assert.deepEqual(faults, []);
  assert.match(await registry.metrics(), /spns_web_onion_failures_total{reason="undecryptable"} \d\d/);
});

test('metadata inside that would take up our time is malformed', async (t) => {
  const { url, asked } = await echo(t);
  const meta = `{"method":"POST","endpoint":"/subscribe","x":[${'1234567890123456789,'.repeat(1000)}1]}`;
  for (const zeros of ['', '0'.repeat(40)]) {
    const request = encryptOnion(Buffer.from(`l${zeros}${meta.length}:${meta}2:{}e`), publicKey, 'xchacha20');
    assert.match(request.open((await post(url, request.body)).body).toString(), /^l71:{"code": 400,/);
  }
  assert.deepEqual(asked, []);
});

test('metadata of 16 KiB is read, outside and inside, and not a byte more', async (t) => {
  const { url, asked } = await echo(t);
  const inner = (size: number) => {
    const meta = '{"method":"POST","endpoint":"/subscribe"}'.padEnd(size, ' ');
    return Buffer.from(`l${meta.length}:${meta}2:{}e`);
  };
  const code = async (plaintext: Buffer) => {
    const request = encryptOnion(plaintext, publicKey, 'xchacha20');
    return /"code": (\d+)/.exec(request.open((await post(url, request.body)).body).toString())?.[1];
  };
  assert.equal(await code(inner(16_384)), '200');
  assert.equal(await code(inner(16_385)), '400');
  assert.equal(await code(Buffer.from(String(inner(100)).replace('l', `l${'0'.repeat(17)}`))), '200', '20 digits');
  assert.equal(await code(Buffer.from(String(inner(100)).replace('l', `l${'0'.repeat(18)}`))), '400', '21 digits');
  assert.equal(asked.length, 2);

  const { body } = encryptOnion(inner(100), publicKey, 'xchacha20');
  const meta = body.length - 4 - body.readUInt32LE(0);
  const padded = (size: number) => Buffer.concat([body, Buffer.alloc(size - meta, ' ')]);
  assert.equal((await post(url, padded(16_384))).status, 200);
  assert.equal((await post(url, padded(16_385))).status, 400);
});

test('what is decrypted has two megabytes at most, and the time that a request took is told', async (t) => {
  const { url, registry } = await echo(t);
  const sized = (size: number) => {
    const overhead = encryptOnion(Buffer.alloc(0), publicKey, 'aes-gcm').body.length;
    return encryptOnion(Buffer.alloc(size - overhead), publicKey, 'aes-gcm').body;
  };
  const limit = 2 * 1024 * 1024;
  assert.equal(sized(limit).length, limit);
  assert.equal((await post(url, sized(limit))).status, 200);
  assert.equal((await post(url, sized(limit + 1))).status, 400);
  const failures = (reason: string) => `spns_web_onion_failures_total{reason="${reason}"} 1\n`;
  const metrics = await registry.metrics();
  for (const reason of ['malformed', 'undecryptable']) assert.ok(metrics.includes(failures(reason)), reason);
  const meta = '{"method":"POST","endpoint":"/subscribe"}';
  await post(url, encryptOnion(Buffer.from(`l${meta.length}:${meta}2:{}e`), publicKey, 'aes-gcm').body);
  assert.match(await registry.metrics(), /spns_web_request_duration_seconds_bucket\{le="10",route="subscribe"\} 1\n/);
});

function x25519Of(): Buffer {
  // Any 32 bytes are a public key.
  return randomBytes(32);
}

test('a temporary inner failure is an inner 503 within an outer 200', async (t) => {
  const body = '[{"success":true},{"error":3,"message":"apns notification service timed out"}]';
  const fake = await fakeHivemind(t, (_, request) => request.reply(body));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const { url } = await serve(t, hivemind, secretKey);
  const meta = '{"method":"POST","endpoint":"/subscribe"}';
  const request = encryptOnion(Buffer.from(`l${meta.length}:${meta}2:[]e`), publicKey, 'aes-gcm');
  const answer = await post(url, request.body);
  assert.equal(answer.status, 200);
  assert.equal(
    request.open(answer.body).toString(),
    `l83:{"code": 503, "headers": {"content-type": "application/json", "retry-after": "15"}}${body.length}:${body}e`,
  );
});

test('an onion request too long to be of use is refused without being decrypted, and one with too large a body is told so', async (t) => {
  const { url, registry } = await echo(t);
  const meta = '{"method":"POST","endpoint":"/subscribe"}';
  const sized = (size: number) =>
    encryptOnion(Buffer.from(`l${meta.length}:${meta}${size}:${' '.repeat(size)}e`), publicKey, 'xchacha20');
  const { body, open } = sized(1024 * 1024);
  const told = await post(url, body);
  assert.equal(told.status, 200);
  assert.match(open(told.body).toString(), /request too large/);
  assert.equal((await post(url, sized(2 * 1024 * 1024).body)).status, 400);
  assert.match(await registry.metrics(), /spns_web_onion_failures_total\{reason="undecryptable"\} 1/);
});
