import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { createPhone, onionRequest } from '../../src/devnet/phone.ts';
import { decryptOnion, encodeV4Response, onionKeys, parseV4Request, type V4Request } from '../../src/session/onion.ts';
import { sealPayload } from '../../src/session/payload.ts';
import { checkOwnedUnsubscription, parseSubscribe, parseUnsubscribe } from '../../src/session/request.ts';
import { x25519Public } from '../../src/session/sodium.ts';

const now = () => Date.now();
const nowSeconds = () => Math.floor(Date.now() / 1000);

/** A front-end that keeps what it is asked and answers with `code` and `body`. */
async function frontEnd(t: TestContext, code = 200, body = '{"success":true}') {
  const keys = onionKeys(randomBytes(32));
  const requests: V4Request[] = [];
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const onion = decryptOnion(Buffer.concat(chunks), keys);
      requests.push(parseV4Request(onion.plaintext));
      response.end(onion.reply(encodeV4Response({ code, headers: {}, body: Buffer.from(body) })));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, publicKey: keys.publicKey, requests };
}

test('an iPhone subscribes its account as an object that the hivemind accepts', async (t) => {
  const front = await frontEnd(t);
  const account = sessionAccount(randomBytes);
  const serviceInfo = { token: randomBytes(32).toString('hex') };
  const phone = createPhone({
    name: 'a',
    platform: 'ios',
    service: 'apns',
    serviceInfo,
    accounts: [account],
    random: randomBytes,
    now,
  });
  assert.deepEqual(await phone.subscribe(front), { code: 200, headers: {}, body: { success: true } });
  const [request] = front.requests;
  assert.deepEqual([request!.method, request!.endpoint], ['POST', '/subscribe']);
  const parsed = parseSubscribe(JSON.parse(request!.body.toString()), nowSeconds(), {
    service: (name) => name === 'apns',
  });
  assert.deepEqual(parsed.account, account.id);
  assert.deepEqual(parsed.namespaces, [0, 2, 3, 4, 5]);
  assert.deepEqual(parsed.serviceInfo, serviceInfo);

  const notification = {
    account: account.id,
    hash: Buffer.from('h'.repeat(43)),
    namespace: -11,
    timestamp: 1_700_000_000_123,
    expiry: 1_701_209_600_123,
    data: Buffer.from('good morning'),
  };
  assert.deepEqual(phone.open(sealPayload(notification, parsed.encKey, randomBytes(24))), {
    account: account.id.toString('hex'),
    hash: 'h'.repeat(43),
    namespace: -11,
    timestamp: 1_700_000_000_123,
    data: Buffer.from('good morning'),
  });
  assert.throws(() => phone.open(sealPayload(notification, randomBytes(32), randomBytes(24))));
});

test('an Android phone sends an array, of its own account and of a group that it may only read for', async (t) => {
  const front = await frontEnd(t, 503, '[{"error":3},{"error":3}]');
  const own = sessionAccount(randomBytes);
  const member = groupMember(groupAccount(randomBytes), randomBytes);
  const phone = createPhone({
    name: 'b',
    platform: 'android',
    service: 'firebase',
    serviceInfo: { token: 'fcm' },
    accounts: [own, member],
    random: randomBytes,
    now,
  });
  assert.deepEqual(await phone.subscribe(front), { code: 503, headers: {}, body: [{ error: 3 }, { error: 3 }] });
  await phone.unsubscribe(front);
  const [subscribe, unsubscribe] = front.requests.map(({ body }) => JSON.parse(body.toString()));
  const parsed = subscribe.map((element: unknown) => parseSubscribe(element, nowSeconds(), { service: () => true }));
  assert.deepEqual(
    parsed.map((one: { account: Buffer }) => one.account),
    [own.id, member.id],
  );
  assert.deepEqual(parsed[1].subaccount, member.subaccount);
  assert.equal(front.requests[1]!.endpoint, '/unsubscribe');
  for (const element of unsubscribe) {
    checkOwnedUnsubscription(parseUnsubscribe(element, { service: () => true }), nowSeconds());
  }
});

test('what is not an answer to an onion request is an error', async (t) => {
  const server = http.createServer((_, response) => response.writeHead(400).end('Invalid onion request'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const front = { url, publicKey: x25519Public(randomBytes(32)) };
  await assert.rejects(onionRequest(front, 'aes-gcm', '/subscribe', '{}'), /answered HTTP 400/);
});
