import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { Subscriptions } from '../../../src/hivemind/subscriptions/subscriptions.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';
import { Code } from '../../../src/session/request.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { startTestHivemind } from '../../support/hivemind.ts';
import { silentLog } from '../../support/log.ts';
import { NO_DEVICES } from '../../support/no-devices.ts';
import { subscribe } from '../../support/requests.ts';
import { TestNotifier } from '../../support/session-world.ts';
import { until } from '../../support/until.ts';

const PHONES = 15;
/** How often each of them subscribes. */
const TIMES = 20;
const ATTACKERS = 520;

/** An element of a request for a new account; signed by it, or with a bad signature. */
function element(good = true): object {
  const token = randomBytes(32).toString('hex');
  const request = subscribe(sessionAccount(randomBytes), token, { key: randomBytes(32) });
  return good ? request : { ...request, signature: randomBytes(64).toString('base64') };
}

const array = (count: number, good: boolean) =>
  Buffer.from(JSON.stringify(Array.from({ length: count }, () => element(good))));

test('beside 520 clients that post arrays of bad signatures every phone is served, and none is told to retry', async (t) => {
  const hivemind = await startTestHivemind(t);
  await new TestNotifier(hivemind).register();
  let on = true;
  t.after(() => {
    on = false;
  });
  const client = hivemind.connect();
  const bodies = Array.from({ length: PHONES }, () => JSON.stringify(element()));

  const attackers = hivemind.connect();
  const body = array(100, false);
  let answered = 0;
  const attacker = async (_: unknown, index: number) => {
    while (on) {
      // The hivemind is closed at the end while some still wait.
      const [reply] = await attackers.request('push.subscribe', [body, `bad ${index}`], 60_000).catch(() => []);
      answered++;
      assert.ok(!reply?.includes('success'));
      // One that is told to retry does so soon.
      if (reply?.[0] !== 0x5b) await sleep(100);
    }
  };
  const attack = Promise.all(Array.from({ length: ATTACKERS }, attacker));
  await until(() => answered >= 100);
  const phone = async (one: string, index: number) => {
    for (let time = 0; time < TIMES; time++) {
      const [reply] = await client.request('push.subscribe', [one, `phone ${index}`], 60_000);
      assert.match(String(reply), /"success":true/);
    }
  };
  await Promise.all(bodies.map(phone));
  on = false;
  await hivemind.stop();
  await attack;
});

/** What an element costs to read and verify, and what the notifier and the database take to answer, in simulated ms. */
const ELEMENT_MS = 2;
const NOTIFIER_MS = 2;
const DATABASE_MS = 3;

/**
 * Subscriptions on a simulated machine: time passes by what is done there, and while nothing is, so that rates compare
 * whatever else this machine has to do. The notifier and the database say yes.
 */
function simulated() {
  const clock = new FakeClock();
  const pause = (ms: number) => new Promise<void>((resolve) => void clock.setTimeout(resolve, ms));
  const token = Buffer.from('t'.repeat(40));
  const remote: Remote = {
    id: 'notifier',
    send: () => true,
    request: () => pause(NOTIFIER_MS).then(() => [Buffer.from('0'), token]),
  };
  const possible = [Date.now()];
  const subscriptions = new Subscriptions({
    clock,
    // Asked for once for each element.
    time: () => {
      clock.stall(ELEMENT_MS);
      return { possible, inDoubt: false };
    },
    store: {
      upsert: () => pause(DATABASE_MS).then(() => 'added'),
      remove: () => pause(DATABASE_MS).then(() => true),
    },
    devices: NO_DEVICES,
    stats: { add: () => {} },
    notifierFor: () => ({ remote, validatesMany: false }),
    isExpected: () => true,
    log: silentLog,
  });
  const ask = (body: Buffer, client: string) => subscriptions.handle('subscribe', body, { client, bytes: body.length });
  /** Lets time pass until it is so. @throws Error if it is not so after ten minutes */
  const passUntil = async (condition: () => boolean) => {
    const end = clock.monotonic() + 600_000;
    while (!condition()) {
      const before = clock.monotonic();
      assert.ok(before < end, `not so after ten simulated minutes: ${condition}`);
      await new Promise((resolve) => setImmediate(resolve));
      clock.run(clock.monotonic() === before ? 1 : 0);
    }
  };
  /** Lets time pass until the clients have come to an end. */
  const through = async (clients: readonly Promise<void>[]) => {
    let isOver = false;
    const all = Promise.all(clients).finally(() => {
      isOver = true;
    });
    await Promise.all([all, passUntil(() => isOver)]);
  };
  return { clock, subscriptions, ask, pause, passUntil, through };
}

test('phones are served at the usual rate beside 520 clients that post arrays of bad signatures', async (t) => {
  const { clock, subscriptions, ask, pause, passUntil, through } = simulated();
  const bodies = Array.from({ length: PHONES }, () => Buffer.from(JSON.stringify(element())));
  const phone = async (body: Buffer, index: number) => {
    for (let time = 0; time < TIMES; time++) {
      assert.match((await ask(body, `phone ${index}`)).text, /"success":true/);
    }
  };
  /** How long the phones take, in simulated ms. */
  const phones = async () => {
    const from = clock.monotonic();
    await through(bodies.map(phone));
    return clock.monotonic() - from;
  };
  const usual = await phones();

  const body = array(100, false);
  let on = true;
  t.after(() => {
    on = false;
  });
  const attacker = async (_: unknown, index: number) => {
    while (on) {
      const { text } = await ask(body, `bad ${index}`);
      assert.ok(!text.includes('success'));
      // One that is told to retry does so soon.
      if (!text.startsWith('[')) await pause(100);
    }
  };
  const attack = Array.from({ length: ATTACKERS }, attacker);
  const bad = () => subscriptions.counters.results.get(`subscribe:code_${Code.ERROR}`) ?? 0;
  await passUntil(() => bad() >= 5 * ATTACKERS);
  const before = bad();
  const beside = await phones();
  // While all have something to do, small requests have 16 of 20 turns.
  assert.ok(beside <= usual / 0.8, `${beside} ms instead of ${usual}`);
  assert.ok(bad() > before, 'the attack goes on');
  on = false;
  // Nobody waits for the rest any more.
  clock.stall(10_000);
  await through(attack);
});

test('in a storm of large requests as many are answered completely as without it, and little is done in vain', async () => {
  const body = array(100, true);
  const { clock, subscriptions, ask, pause, through } = simulated();
  const { results, shed } = subscriptions.counters;
  /**
   * With so many clients, who retry when they are told to: how many requests were answered in whole within so many
   * simulated ms, and for which part of the elements that was.
   */
  const run = async (clients: number, ms: number) => {
    const end = clock.monotonic() + ms;
    const before = { ok: results.get('subscribe:ok') ?? 0, shed: shed.wait };
    let whole = 0;
    let inTime = 0;
    const client = async (_: unknown, index: number) => {
      while (clock.monotonic() < end) {
        const { text } = await ask(body, `${index}`);
        if (!text.includes('error')) {
          whole++;
          if (clock.monotonic() < end) inTime++;
        } else await pause(2_000);
      }
    };
    await through(Array.from({ length: clients }, client));
    return {
      inTime,
      inWhole: (whole * 100) / ((results.get('subscribe:ok') ?? 0) - before.ok),
      shed: shed.wait - before.shed,
    };
  };
  // The pace is learnt meanwhile.
  await run(4, 2_000);
  const calm = await run(4, 5_000);
  const storm = await run(2_000, 15_000);
  assert.ok(storm.shed > 1_000, 'most are told to retry');
  assert.ok(
    storm.inTime >= 0.8 * 3 * calm.inTime,
    `${storm.inTime} in 15 s, and ${calm.inTime} in 5 s without a storm`,
  );
  assert.ok(
    storm.inWhole >= 0.8,
    `${storm.inWhole} of what was done was done for requests that were answered in whole`,
  );
});

test('an answer to rubbish is no longer than the rubbish, except for the few elements that are free', async () => {
  const { subscriptions } = simulated();
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
