import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Agent, createServer } from 'node:https';
import { type TestContext, test } from 'node:test';
import { serverCertificate } from '../../../src/devnet/providers/certificates.ts';
import { listen } from '../../../src/devnet/providers/listen.ts';
import { LONGEST_ANSWER } from '../../../src/notifiers/runtime/body.ts';
import { jsonObject, post, trouble } from '../../../src/notifiers/runtime/http.ts';
import { until } from '../../support/until.ts';

test('only a JSON object counts: no list, no null, no other value, and no text that is not JSON', () => {
  assert.deepEqual(jsonObject('{"a":{"b":1}}'), { a: { b: 1 } });
  for (const text of ['null', '[]', '[{}]', '1', '"{}"', 'true', '', '{', 'a'])
    assert.equal(jsonObject(text), undefined);
});

test('a problem is named by its code, without addresses', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED 192.0.2.1:443'), { code: 'ECONNREFUSED' });
  assert.equal(trouble(refused), 'connection trouble (ECONNREFUSED)');
  assert.equal(trouble(new Error('192.0.2.1')), 'connection trouble');
  assert.equal(trouble(new Error('no answer in time')), 'no answer in time');
});

/** A provider that answers as the test likes, and how to write to it. */
async function provider(
  t: TestContext,
  answer: (response: ServerResponse, request: IncomingMessage, body: Buffer) => void,
) {
  const { cert, key, ca } = serverCertificate();
  const state = { connections: 0 };
  const server = createServer({ cert, key }, async (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => answer(response, request, Buffer.concat(chunks)));
  });
  server.on('secureConnection', () => state.connections++);
  const port = await listen(server);
  const agent = new Agent({ ca, keepAlive: true });
  t.after(() => {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  });
  const write = (body: string | Buffer = 'ü', timeout = 30_000) =>
    post(`https://127.0.0.1:${port}/path`, { agent, headers: { 'x-of-ours': 'yes' }, body, timeout });
  return { state, write };
}

test('a request is sent with its headers and its length, and the answer comes whole, over one connection', async (t) => {
  const { state, write } = await provider(t, (response, { method, url, headers }, body) => {
    response.writeHead(201, { 'x-of-theirs': 'yes' });
    response.end(JSON.stringify([method, url, headers['x-of-ours'], headers['content-length'], body.toString()]));
  });
  for (const body of ['ü', Buffer.from('ü')]) {
    const { status, headers, text } = await write(body);
    assert.deepEqual([status, headers['x-of-theirs']], [201, 'yes']);
    assert.deepEqual(JSON.parse(text), ['POST', '/path', 'yes', '2', 'ü']);
  }
  assert.equal(state.connections, 1);
});

test('an answer without end is cut, and its connection closed', async (t) => {
  let closed = 0;
  const { state, write } = await provider(t, (response) => {
    response.writeHead(200);
    response.on('close', () => closed++);
    const pour = () => {
      while (!response.destroyed && response.write(Buffer.alloc(30_000, 'x')));
    };
    response.on('drain', pour);
    pour();
  });
  for (let n = 1; n <= 2; n++) {
    assert.equal((await write()).text, 'x'.repeat(LONGEST_ANSWER));
    await until(() => closed === n);
    assert.equal(state.connections, n);
  }
});

test('an answer that is cut off, or does not come in time, is none', async (t) => {
  const cut = await provider(t, (response) => {
    response.writeHead(200, { 'content-length': '10' });
    response.write('half', () => response.destroy());
  });
  await assert.rejects(cut.write(), (error: Error) => /^connection trouble/.test(trouble(error)));
  const silent = await provider(t, () => {});
  await assert.rejects(silent.write('', 50), { message: 'no answer in time' });
  const slow = await provider(t, (response) => void response.write('half'));
  await assert.rejects(slow.write('', 50), { message: /no answer in time|aborted/ });
});
