import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { type EndpointModules, endpoints } from '../../../src/hivemind/operators/endpoints.ts';
import type { RequestOrigin } from '../../../src/hivemind/subscriptions/subscriptions.ts';
import type { Incoming, Remote } from '../../../src/oxenmq/remote.ts';
import { decodeMembers, MAX_MEMBERS } from '../../../src/session/members.ts';
import { encodeRegistration } from '../../../src/session/notifier-protocol.ts';

test('a caller that speaks for clients of its own names them, and is told whether to retry; without a name it is a client itself', async () => {
  const senders: RequestOrigin[] = [];
  const handle = async (_kind: string, _body: unknown, sender: RequestOrigin) => {
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

describe('with several hiveminds', () => {
  const members = [
    { name: 'a', address: 'ipc:///run/a.sock', pushAddress: 'ipc:///run/a-push.sock' },
    { name: 'b', address: 'tcp://10.0.0.2:22029', pushAddress: '' },
  ];
  const nobody = async (): Promise<Buffer[]> => assert.fail('nobody is to be asked');
  const outbox = { register: () => {} };
  const log = { warn: (text: string) => assert.fail(text) };

  async function ask(modules: Partial<EndpointModules>, category: string, command: string, part: Buffer) {
    const replies: Buffer[][] = [];
    const incoming: Incoming = {
      remote: { id: 'asker' } as Remote,
      parts: [part],
      reply: (...answer) => void replies.push(answer.map((one) => Buffer.from(one))),
    };
    const offered = endpoints({ outbox, log, ...modules } as unknown as EndpointModules);
    await offered[category]!.commands[command]!.handler(incoming);
    assert.equal(replies.length, 1);
    return replies[0]!;
  }
  const registration = encodeRegistration({ service: 'apns', instance: Buffer.alloc(16), window: 1 });

  it('a notifier that registers, and a front-end that asks, learn of all that can be reached', async () => {
    const cluster = { own: 'a', members: () => members, ask: nobody };
    const [ok, list] = await ask({ cluster }, 'admin', 'register_notifier', registration);
    assert.equal(String(ok), 'OK');
    assert.deepEqual(decodeMembers(list!), {
      own: 'a',
      members: [
        { name: 'a', address: 'ipc:///run/a.sock' },
        { name: 'b', address: 'tcp://10.0.0.2:22029' },
      ],
    });
    const [forWeb] = await ask({ cluster }, 'push', 'hiveminds', Buffer.alloc(0));
    assert.deepEqual(decodeMembers(forWeb!), {
      own: 'a',
      members: [{ name: 'a', address: 'ipc:///run/a-push.sock' }],
    });
    assert.equal(endpoints({ cluster } as unknown as EndpointModules).push!.access, 'none');
  });

  it('the list can be read, however many there are', async () => {
    const many = Array.from({ length: MAX_MEMBERS + 1 }, (_, n) => ({ ...members[0]!, name: `m${n}` }));
    const [, list] = await ask(
      { cluster: { own: 'a', members: () => many, ask: nobody } },
      'admin',
      'register_notifier',
      registration,
    );
    assert.equal(decodeMembers(list!).members.length, MAX_MEMBERS);
  });

  it('an operator gets the figures of all at once, and why some did not answer', async () => {
    const asked: string[] = [];
    const cluster = {
      own: 'a',
      members: () => [...members, { name: 'c', address: '', pushAddress: '' }],
      ask: async (name: string, command: string) => {
        asked.push(`${name} ${command}`);
        if (name === 'c') throw new Error('it is not connected');
        return [Buffer.from('{"uptime":7}')];
      },
    };
    const [body] = await ask(
      { cluster, getStats: () => ({ uptime: 5 }) },
      'admin',
      'ask_members',
      Buffer.from('get_stats'),
    );
    assert.deepEqual(JSON.parse(String(body)), {
      a: { answer: { uptime: 5 } },
      b: { answer: { uptime: 7 } },
      c: { trouble: 'it is not connected' },
    });
    assert.deepEqual(asked, ['b admin.get_stats', 'c admin.get_stats']);
    await assert.rejects(ask({ cluster }, 'admin', 'ask_members', Buffer.from('expire')), /not one of get_stats/);
  });

  it('a hivemind that is alone answers as it always did', async () => {
    assert.deepEqual((await ask({}, 'admin', 'register_notifier', registration)).map(String), ['OK']);
    assert.deepEqual(await ask({}, 'push', 'hiveminds', Buffer.alloc(0)), []);
    assert.deepEqual((await ask({}, 'admin', 'ask_members', Buffer.from('get_stats'))).map(String), ['null']);
  });
});
