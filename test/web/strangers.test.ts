import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { Registry } from 'prom-client';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import type { Hivemind, Outcome } from '../../src/web/hivemind.ts';
import { webMetrics } from '../../src/web/metrics.ts';
import { listenToStrangers } from '../../src/web/strangers.ts';
import { addressOf, Happenings, openPeers } from '../oxenmq/support.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/until.ts';

interface Asked {
  readonly command: string;
  readonly size: number;
  readonly client: string | undefined;
  answer(data: string): void;
}

/** An open listener before a hivemind that answers when it is told to, and a client that is connected. */
async function world(t: TestContext) {
  const asked = new Happenings<Asked>();
  const strays: string[] = [];
  const hivemind: Hivemind = {
    ask: (command, body, client) => {
      const { promise, resolve } = Promise.withResolvers<Outcome>();
      const answer = (data: string) => resolve({ kind: 'reply', data: Buffer.from(data) });
      asked.add({ command, size: body.length, client, answer });
      return promise;
    },
    connected: true,
    problem: undefined,
    missing: [],
    inFlight: 0,
    close: async () => undefined,
  };
  const registry = new Registry();
  const clock = new FakeClock();
  const secret = randomBytes(32);
  const strangers = await listenToStrangers({
    clock,
    random: randomBytes,
    metrics: webMetrics(registry, hivemind),
    hivemind,
    address: 'tcp://127.0.0.1:0',
    secret,
    bodyLimit: 100,
    maxConnections: 2,
    stray: (reason) => strays.push(reason),
  });
  t.after(() => strangers.close());
  assert.deepEqual(strangers.publicKey, keyPairFromSecret(secret).publicKey);
  const connect = async () => {
    const { peers, events } = openPeers(t);
    const connection = peers.connect(addressOf(strangers.endpoint, strangers.publicKey));
    await events.first(({ event }) => event === 'hello');
    return { connection, events };
  };
  const shown = async (line: string) => (await registry.metrics()).split('\n').includes(line);
  return { clock, asked, strays, connect, shown };
}

test('anybody may subscribe and unsubscribe, and is answered what the hivemind answers', async (t) => {
  const { clock, asked, connect, shown } = await world(t);
  const { connection } = await connect();
  for (const command of ['subscribe', 'unsubscribe']) {
    const answer = connection.request(`push.${command}`, ['x'.repeat(100)]);
    const one = await asked.first((request) => request.command === `push.${command}`);
    assert.deepEqual([one.size, one.client], [100, '127.0.0.1']);
    clock.stall(2_500);
    one.answer(`"${command}"`);
    assert.deepEqual((await answer).map(String), [`"${command}"`]);
    assert.ok(await shown(`spns_web_requests_total{via="curve",route="${command}",status="200"} 1`));
    assert.ok(await shown(`spns_web_request_duration_seconds_sum{route="${command}"} 2.5`));
  }
  assert.ok(await shown('spns_web_connections{listener="curve"} 1'));
  const [text] = await connection.request('push.subscribe', ['x'.repeat(101)]);
  assert.equal(String(text), '{"error":1,"message":"Invalid request: request too large"}\n');
  await assert.rejects(connection.request('push.hiveminds', []), /UNKNOWNCOMMAND/);
  const nothing = connection.request('push.subscribe', []);
  (await asked.first(({ size }) => size === 0)).answer('"nothing"');
  assert.deepEqual((await nothing).map(String), ['"nothing"']);
});

test('of one client 16 requests may wait, and the next is read when one of them is answered', async (t) => {
  const { asked, connect } = await world(t);
  const { connection } = await connect();
  const answers = Array.from({ length: 17 }, (_, n) => connection.request('push.subscribe', ['x'.repeat(n)]));
  const other = await connect();
  await asked.when((all) => all[15]);
  const answered = other.connection.request('push.unsubscribe', ['{}']);
  (await asked.first(({ command }) => command === 'push.unsubscribe')).answer('"other"');
  assert.deepEqual((await answered).map(String), ['"other"']);
  assert.equal(asked.all.length, 17, 'sixteen of one, and one of the other');
  for (const { answer } of [...asked.all]) answer('"done"');
  await asked.when((all) => all[17]);
  for (const { answer } of asked.all) answer('"done"');
  for (const answer of answers) assert.deepEqual((await answer).map(String), ['"done"']);
});

test('who sends a message of more than a megabyte is cut off', async (t) => {
  const { strays, connect } = await world(t);
  const { connection } = await connect();
  const size = 1024 * 1024;
  const [text] = await connection.request('push.subscribe', [Buffer.alloc(size - 200)]);
  assert.match(String(text), /too large/);
  connection.request('push.subscribe', [Buffer.alloc(size + 1)]).catch(() => undefined);
  await until(() => strays.length > 0);
  assert.match(strays[0]!, /a client was cut off: .*too (?:long|large)/);
});
