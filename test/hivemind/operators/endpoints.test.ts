import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EndpointModules, endpoints } from '../../../src/hivemind/operators/endpoints.ts';
import type { Sender } from '../../../src/hivemind/subscriptions/subscribe.ts';
import type { Incoming, Remote } from '../../../src/oxenmq/remote.ts';

test('who speaks for clients of its own names them, and is told whether to come again; without a name it is a client itself', async () => {
  const senders: Sender[] = [];
  const handle = async (_kind: string, _body: unknown, sender: Sender) => {
    senders.push(sender);
    return { text: 'answer', passing: senders.length === 1 };
  };
  const replies: string[][] = [];
  const { push } = endpoints({ subscriptions: { handle } } as unknown as EndpointModules);
  for (const parts of [['{}', 'phone'], ['{}'], ['{}', '']]) {
    const incoming: Incoming = {
      remote: { id: 'front-end' } as Remote,
      parts: parts.map((part) => Buffer.from(part)),
      reply: (...answer) => void replies.push(answer.map(String)),
    };
    await push!.commands.subscribe!.handler(incoming);
  }
  assert.deepEqual(
    senders.map(({ client }) => client),
    ['phone', 'front-end', 'front-end'],
  );
  assert.deepEqual(
    senders.map(({ bytes }) => bytes),
    [7, 2, 2],
  );
  assert.deepEqual(replies, [['answer', 'passing'], ['answer'], ['answer', 'final']]);
});
