import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../../src/clock.ts';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { Subscriptions } from '../../../src/hivemind/subscriptions/subscribe.ts';
import type { Connection } from '../../../src/oxenmq/peers.ts';
import type { Commands, Remote } from '../../../src/oxenmq/remote.ts';
import { startTestHivemind } from '../../support/hivemind.ts';
import { silentLog } from '../../support/log.ts';
import { subscribe } from '../../support/requests.ts';
import { until } from '../../support/until.ts';

/** An element of a request for a new account; signed by it, or with a bad signature. */
function element(good = true): object {
  const token = randomBytes(32).toString('hex');
  const request = { ...subscribe(sessionAccount(randomBytes), token, { key: randomBytes(32) }), service: 'apns' };
  return good ? request : { ...request, signature: randomBytes(64).toString('base64') };
}

const array = (count: number, good: boolean) =>
  Buffer.from(JSON.stringify(Array.from({ length: count }, () => element(good))));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Takes every device for what its token says. */
const NOTIFIER: Commands = {
  notifier: {
    access: 'none',
    commands: {
      validate: {
        kind: 'request',
        handler: (message) => {
          const { token } = JSON.parse(String(message.parts[1])) as { token: string };
          message.reply('0', token);
        },
      },
    },
  },
};

/** 15 phones that subscribe 20 times each; returns how many a second were served. All must be. */
async function phones(client: Connection, bodies: readonly string[]): Promise<number> {
  const start = performance.now();
  const phone = async (body: string, index: number) => {
    for (let time = 0; time < 20; time++) {
      const [reply] = await client.request('push.subscribe', [body, `phone ${index}`], 60_000);
      assert.match(String(reply), /"success":true/);
    }
  };
  await Promise.all(bodies.map(phone));
  return (bodies.length * 20_000) / (performance.now() - start);
}

test('phones are served as usual beside 520 clients that post arrays of bad signatures', async (t) => {
  const hivemind = await startTestHivemind(t);
  const notifier = hivemind.connect(NOTIFIER);
  const register = () => notifier.send('admin.register_service', 'apns');
  register();
  const pings = setInterval(register, 1_000);
  let on = true;
  t.after(() => {
    on = false;
    clearInterval(pings);
  });
  const client = hivemind.connect();
  const bodies = Array.from({ length: 15 }, () => JSON.stringify(element()));
  for (const body of bodies) {
    await until(async () => (await client.request('push.subscribe', [body]))[0]?.includes('success') === true, 10);
  }
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) rates.push(await phones(client, bodies));
  const usual = rates.sort((a, b) => a - b)[2]!;

  const attackers = hivemind.connect();
  const body = array(100, false);
  let answered = 0;
  const attacker = async (_: unknown, index: number) => {
    while (on) {
      // The hivemind is closed at the end while some still wait.
      const [reply] = await attackers.request('push.subscribe', [body, `bad ${index}`], 60_000).catch(() => []);
      answered++;
      assert.ok(!reply?.includes('success'));
      // One that is told to come again does so soon.
      if (reply?.[0] !== 0x5b) await pause(100);
    }
  };
  const attack = Promise.all(Array.from({ length: 520 }, attacker));
  await until(() => answered >= 100);
  // The machine may be busy with other things now and then: so many tries.
  let best = 0;
  for (let round = 0; round < 20 && best < 0.8 * usual; round++) best = Math.max(best, await phones(client, bodies));
  assert.ok(best >= 0.8 * usual, `${best} a second instead of ${usual}`);
  on = false;
  clearInterval(pings);
  await hivemind.stop();
  await attack;
});

/**
 * Subscriptions with a notifier and a database that say yes. Time runs ten times as fast, so that patience is over
 * sooner.
 */
function fast(): Subscriptions {
  const clock: Clock = { ...systemClock, monotonic: () => performance.now() * 10 };
  const token = Buffer.from('t'.repeat(40));
  const soon = <T>(value: T) => new Promise<T>((resolve) => setImmediate(() => resolve(value)));
  const remote: Remote = { id: 'notifier', send: () => true, request: () => soon([Buffer.from('0'), token]) };
  return new Subscriptions({
    clock,
    store: { upsert: () => soon('added'), remove: () => soon(true) },
    devices: {
      upsert: () => 'added',
      remove: () => true,
      get: () => undefined,
      hasRoom: () => true,
      hasSessionKey: () => false,
    },
    stats: { add: () => {} },
    notifierFor: () => ({ remote, validatesMany: false }),
    isExpected: () => true,
    log: silentLog,
  });
}

test('in a storm of large requests as many are answered completely as without it, and little is done in vain', async () => {
  const body = array(100, true);
  const subscriptions = fast();
  const { results, shed } = subscriptions.counters;
  /** With so many clients, who come again when they are told to: how many requests a second were answered in whole. */
  const run = async (clients: number, ms: number) => {
    const end = performance.now() + ms;
    const before = { ok: results.get('subscribe:ok') ?? 0, shed: shed.wait + shed.room };
    let whole = 0;
    let inTime = 0;
    const client = async (_: unknown, index: number) => {
      while (performance.now() < end) {
        const reply = await subscriptions.handle('subscribe', body, { client: `${index}`, bytes: body.length });
        if (!reply.text.includes('error')) {
          whole++;
          if (performance.now() < end) inTime++;
        } else await pause(200);
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
    return {
      rate: inTime / ms,
      inWhole: (whole * 100) / ((results.get('subscribe:ok') ?? 0) - before.ok),
      shed: shed.wait + shed.room - before.shed,
    };
  };
  // The pace is learnt meanwhile.
  await run(4, 500);
  let best = { rate: 0, inWhole: 0 };
  for (let round = 0; round < 15 && Math.min(best.rate, best.inWhole) < 0.8; round++) {
    const calm = await run(4, 1_000);
    const storm = await run(2_000, 1_500);
    assert.ok(storm.shed > 1_000, 'most are told to come again');
    best = {
      rate: Math.max(best.rate, storm.rate / calm.rate),
      inWhole: Math.max(best.inWhole, storm.inWhole),
    };
  }
  assert.ok(best.rate >= 0.8, `${best.rate} of the usual rate`);
  assert.ok(best.inWhole >= 0.8, `${best.inWhole} of what was done was done for requests that were answered in whole`);
});

test('an answer to rubbish is no longer than the rubbish, except for the few elements that are free', async () => {
  const subscriptions = fast();
  const fill = (text: string, bytes: number) =>
    Buffer.from(
      `[${Array(Math.floor(bytes / (text.length + 1)))
        .fill(text)
        .join(',')}]`,
    );
  for (const text of ['0', '{}', '{"pubkey":"00"}', `{"a":"${'x'.repeat(90)}"}`, `{"pubkey":"${'05'.repeat(33)}"}`]) {
    for (const bytes of [100, 10_000, 100_000, 1_000_000]) {
      const body = fill(text, bytes);
      const { text: reply } = await subscriptions.handle('subscribe', body);
      assert.ok(reply.length <= 1.5 * body.length + 8_000, `${reply.length} bytes for ${body.length} of ${text}`);
    }
  }
});
