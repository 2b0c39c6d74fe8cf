import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EndpointModules, endpoints } from '../../src/hivemind/endpoints.ts';
import type { Incoming, Remote } from '../../src/oxenmq/remote.ts';

const MEGABYTE = Buffer.alloc(1024 * 1024);
const BUSY = '{"error":5,"message":"The server is busy; try again later"}';

test('the requests that wait for the start-up to end take a bounded amount of memory; who comes then is told to come again', async () => {
  let open = () => {};
  const ready = new Promise<void>((resolve) => (open = resolve));
  const { push } = endpoints({ ready, subscriptions: { handle: async () => 'answer' } } as unknown as EndpointModules);
  const replies: string[] = [];
  const ask = () => {
    const incoming: Incoming = {
      remote: {} as Remote,
      parts: [MEGABYTE],
      reply: (...parts) => void replies.push(String(parts[0])),
    };
    return push!.commands.subscribe!.handler(incoming);
  };
  const held = Array.from({ length: 100 }, ask);
  await Promise.resolve();
  assert.deepEqual(new Set(replies), new Set([BUSY]));
  assert.equal(replies.length, 100 - 63);
  open();
  await Promise.all(held);
  assert.equal(replies.filter((reply) => reply === 'answer').length, 63);
  await ask();
  assert.equal(replies.at(-1), 'answer');
});
