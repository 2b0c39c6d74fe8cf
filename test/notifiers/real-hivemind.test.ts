import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { type Account, sessionAccount } from '../../src/devnet/account.ts';
import { startNetwork } from '../../src/devnet/network.ts';
import {
  type ApnsAnswer,
  type FakeApns,
  type FakeApnsOptions,
  startFakeApns,
} from '../../src/devnet/providers/apns.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import type { FakeProvider } from '../../src/devnet/providers/script.ts';
import type { ServiceReport } from '../../src/hivemind/operators/report.ts';
import type { Connection } from '../../src/oxenmq/peers.ts';
import { openPayload } from '../../src/session/payload.ts';
import { decodePush, type Push } from '../../src/session/push.ts';
import { startTestHivemind, type TestHivemind } from '../support/hivemind.ts';
import { createDatabase } from '../support/postgres.ts';
import { seconds, subscribe } from '../support/requests.ts';
import { message, monitored } from '../support/session-world.ts';
import { until } from '../support/until.ts';
import { FakeHivemind } from './fake-hivemind.ts';
import { type NotifierProcess, startProcess, writeConfig } from './process.ts';
import { folder } from './support.ts';

/** With what every phone decrypts here. */
const KEY = Buffer.alloc(32, 9);

type Report = Pick<
  ServiceReport,
  | 'notifiers'
  | 'subscriptions'
  | 'queued'
  | 'in_flight'
  | 'accepted'
  | 'refused'
  | 'redelivered'
  | 'dropped'
  | 'gone'
  | 'breaker_open'
>;

interface Phone {
  readonly account: Account;
  readonly token: string;
}

/** A whole network with a real hivemind; notifiers are started by the test. */
class Suite {
  readonly service: string;
  readonly path: string;
  readonly address: string;
  hivemind!: TestHivemind;
  client!: Connection;
  readonly #t: TestContext;
  readonly #network: Awaited<ReturnType<typeof startNetwork>>;
  readonly #settings: Record<string, string | number>;
  #configs = 0;

  private constructor(t: TestContext, service: string, path: string, network: Suite['network'], settings: object) {
    this.#t = t;
    this.service = service;
    this.path = path;
    this.address = `ipc://${path}/hm.sock`;
    this.#network = network;
    this.#settings = {
      oxend_rpc: network.oxend.address,
      allow_private_nodes: 'yes',
      listen: this.address,
      ...settings,
    };
  }

  get network() {
    return this.#network;
  }

  static async start(t: TestContext, service: string, settings: Record<string, string | number> = {}) {
    const path = await folder(t);
    const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 2, swarms: 1 });
    t.after(() => network.stop());
    const suite = new Suite(t, service, path, network, settings);
    await suite.startHivemind(await createDatabase(t));
    return suite;
  }

  async startHivemind(database: string): Promise<void> {
    this.hivemind = await startTestHivemind(this.#t, { database, settings: this.#settings });
    this.client = this.hivemind.connect({}, this.address);
  }

  /** Starts a notifier process. */
  async notifier(provider: FakeProvider, keys: Record<string, string> = {}): Promise<NotifierProcess> {
    const path = join(this.path, `n${++this.#configs}`);
    await mkdir(path);
    const settings = { ...(await provider.settings(path)), ...keys };
    const config = await writeConfig(path, this.service, { endpoint: this.address }, settings);
    return startProcess(this.#t, config, this.service);
  }

  async report(): Promise<Report> {
    const [body] = await this.client.request('admin.get_services', []);
    const reports: (Report & { service: string })[] = JSON.parse(body!.toString());
    const none = { notifiers: 0, subscriptions: 0, queued: 0, in_flight: 0, accepted: 0, refused: 0, redelivered: 0 };
    const nothing: Report = { ...none, dropped: {}, gone: 0, breaker_open: false };
    return reports.find(({ service }) => service === this.service) ?? nothing;
  }

  /** Resolves with the report for which `condition` holds: polled, since nothing tells of it. */
  async until(condition: (report: Report) => boolean): Promise<Report> {
    let report: Report | undefined;
    await until(
      async () => {
        report = await this.report();
        return condition(report);
      },
      10,
      () => `${condition}, but ${JSON.stringify(report)}`,
    );
    return report ?? (await this.report());
  }

  /** Subscribes so many phones, each with an account of its own, and waits until storage servers monitor them all. */
  async phones(count: number, at = seconds()): Promise<Phone[]> {
    const phones = Array.from({ length: count }, () => ({
      account: sessionAccount(randomBytes),
      token: randomBytes(32).toString('hex'),
    }));
    for (let start = 0; start < count; start += 100) await this.subscribe(phones.slice(start, start + 100), at);
    for (const { account } of phones) await monitored(this, account);
    return phones;
  }

  async subscribe(phones: readonly Phone[], at = seconds()): Promise<void> {
    const elements = phones.map(({ account, token }) => ({
      ...subscribe(account, token, { key: KEY, at }),
      service: this.service,
    }));
    const [reply] = await this.client.request('push.subscribe', [JSON.stringify(elements)]);
    for (const { success } of JSON.parse(reply!.toString())) assert.ok(success, reply!.toString());
  }

  /** Somebody writes to each of the phones. */
  async write(phones: readonly Phone[], text: string): Promise<void> {
    for (const { account } of phones) {
      const sent = message(account, text);
      // A storage server's pipe holds 1,000 messages, and what it cannot send it drops.
      await until(() => this.#network.deliver(sent) > 0, 0);
    }
  }
}

/** How often each phone got each message. */
function received(...providers: FakeProvider[]): Map<string, number> {
  const times = new Map<string, number>();
  for (const provider of providers) {
    provider.taken.onPush = ({ token, payload }) => {
      const got = `${token} ${textOf(payload)}`;
      times.set(got, (times.get(got) ?? 0) + 1);
    };
  }
  return times;
}

function textOf(payload: Buffer): string {
  try {
    return String(openPayload(payload, KEY).data);
  } catch {
    // A test push: nobody has its key.
    return 'cannot be read';
  }
}

async function apns(t: TestContext, options: FakeApnsOptions = {}): Promise<FakeApns> {
  const fake = await startFakeApns(options);
  t.after(() => fake.close());
  return fake;
}

const lost = ({ refused, dropped }: Report) => refused + Object.values(dropped).reduce((sum, count) => sum + count, 0);
const settled = (count: number) => (report: Report) => report.accepted + lost(report) >= count;

test('a message to a phone goes through hivemind and notifier to the provider, and its acceptance is acknowledged and counted', async (t) => {
  const fake = await apns(t);
  const times = received(fake);
  const suite = await Suite.start(t, 'apns');
  const notifier = await suite.notifier(fake);
  await suite.until(({ notifiers }) => notifiers === 1);
  const [phone] = await suite.phones(1);
  await suite.write([phone!], 'hello');
  const report = await suite.until(settled(1));
  assert.deepEqual([...times], [[`${phone!.token} hello`, 1]]);
  assert.deepEqual([report.accepted, lost(report), report.in_flight, report.queued], [1, 0, 0, 0]);
  // The operator's question: the provider's own words come back.
  const ask = async (token: string) => {
    const [body] = await suite.client.request('admin.test_push', ['apns', JSON.stringify({ token })]);
    return JSON.parse(body!.toString());
  };
  assert.deepEqual(await ask(phone!.token), { answer: 'accepted', ok: true });
  fake.script.next({ status: 400, reason: 'BadTopic' });
  assert.match((await ask(phone!.token)).answer, /does not accept our credentials or settings: BadTopic/);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
  await suite.until(({ notifiers }) => notifiers === 0);
  // What was counted since the last report came with the end. The third push was handed back.
  const [stats] = await suite.client.request('admin.get_stats', []);
  const { notifier: counted } = JSON.parse(stats!.toString()) as { notifier: Record<string, { notifies: number }> };
  assert.ok(counted.apns!.notifies >= 2 && counted.apns!.notifies === fake.taken.count, stats!.toString());
});

test('killed under load and started again: every push arrives, and none twice except what was on its way', async (t) => {
  const fake = await apns(t, { delay: 10 });
  const times = received(fake);
  const suite = await Suite.start(t, 'apns');
  const keys = { connections: '1', streams: '100' };
  let notifier = await suite.notifier(fake, keys);
  await suite.until(({ notifiers }) => notifiers === 1);
  const phones = await suite.phones(200);
  const texts = Array.from({ length: 10 }, (_, index) => `m${index}`);
  const count = phones.length * texts.length;
  for (const text of texts) await suite.write(phones, text);
  let onTheirWay = 0;
  for (const reached of [500, 1_300]) {
    await fake.taken.reached(reached);
    assert.equal(await notifier.end('SIGKILL'), 'SIGKILL');
    const { accepted } = await suite.until(({ notifiers }) => notifiers === 0);
    // Taken by the provider, but not acknowledged before the kill.
    onTheirWay += fake.taken.count - accepted;
    notifier = await suite.notifier(fake, keys);
  }
  const report = await suite.until(settled(count));
  assert.deepEqual([report.accepted, lost(report)], [count, 0]);
  assert.equal(times.size, count);
  const duplicates = fake.taken.count - count;
  t.diagnostic(`${duplicates} of ${count} pushes were taken twice`);
  assert.ok(duplicates <= onTheirWay, `${duplicates} duplicates, ${onTheirWay} on their way`);
  // 100 streams, and the reports of the last 10 ms or 200 pushes.
  assert.ok(duplicates <= 2 * (100 + 200 + 200), `${duplicates} duplicates`);
  assert.ok(report.redelivered > 0);
});

test('told to stop under load, it hands back what it has not begun to a second instance: nothing is lost or doubled', async (t) => {
  const fake = await startFakeHuawei({ delay: 100 });
  t.after(() => fake.close());
  const times = received(fake);
  const suite = await Suite.start(t, 'huawei');
  // So slow that it has most of them still when the second is there, however long that takes to start.
  const first = await suite.notifier(fake, { connections: '2' });
  await suite.until(({ notifiers }) => notifiers === 1);
  const phones = await suite.phones(200);
  const texts = ['a', 'b', 'c', 'd', 'e'];
  for (const text of texts) await suite.write(phones, text);
  await fake.taken.reached(4);
  await suite.until(({ in_flight }) => in_flight > 500);
  const second = await suite.notifier(fake, { connections: '100' });
  await suite.until(({ notifiers }) => notifiers === 2);
  assert.equal(await first.end('SIGTERM'), 0, first.output());
  const report = await suite.until(settled(1_000));
  assert.deepEqual([report.accepted, lost(report)], [1_000, 0]);
  assert.ok(report.redelivered > 300, `${report.redelivered} handed back`);
  assert.equal(times.size, 1_000);
  assert.equal(fake.taken.count, 1_000);
  await suite.write(phones, 'f');
  await suite.until(settled(1_200));
  assert.equal(await second.end('SIGTERM'), 0, second.output());
  assert.equal(fake.taken.count, 1_200);
});

test('the hivemind stops with 10,000 in flight: every push is accounted for, and what is reported as delivered was accepted by the provider', async (t) => {
  const options = { delay: 5_000, keep: 1 };
  const fake = await apns(t, options);
  const suite = await Suite.start(t, 'apns');
  // A window of 10,000: half of them are answered before the hivemind has to end, half only after it.
  const notifier = await suite.notifier(fake, { connections: '10', streams: '500', timeout: '60' });
  await suite.until(({ notifiers }) => notifiers === 1);
  const phones = await suite.phones(200);
  const count = 10_600;
  const done: Report = await (async () => {
    for (let text = 0; text * phones.length < count; text++) await suite.write(phones, `m${text}`);
    return suite.until((report) => report.accepted + report.in_flight + report.queued + lost(report) >= count);
  })();
  t.diagnostic(`${done.in_flight} in flight, ${done.queued} waiting, ${done.accepted} accepted before the stop`);
  await suite.hivemind.stop();
  const taken = fake.taken.count;
  const words = suite.hivemind.log.map((line) => (JSON.parse(line) as { msg: string }).msg);
  const said = words.find((line) => line.startsWith('of '));
  t.diagnostic(`${said}; the provider took ${taken} by then`);
  const [queued, accepted, refused, passed, givenUp, unreported] = (said?.match(/\d+/g) ?? []).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  assert.deepEqual([queued, refused, passed], [count, 0, 0]);
  assert.equal(accepted + givenUp + unreported, count);
  assert.equal(givenUp > 0, words.includes(`${givenUp} pushes could not be handed over and are given up`));
  const told = words.some((line) => line.startsWith(`${unreported} pushes are with notifiers`));
  assert.equal(unreported > 0, told);
  // Delivered is not lost: whatever the provider took was accepted, or not known.
  assert.ok(accepted <= taken && taken <= accepted + unreported, `${accepted} accepted, ${unreported} unknown`);
  // The notifier goes on: in the end the provider has had all but those that were given up.
  // It is looked at for each answer: what the test is about has happened.
  options.delay = 0;
  await fake.taken.reached(count - givenUp);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
  assert.equal(fake.taken.count, count - givenUp);
});

test('two instances share the devices: each push once, and always the same instance for a device', async (t) => {
  const fakes = await Promise.all([apns(t), apns(t)]);
  const [first, second] = fakes;
  const times = received(...fakes);
  const suite = await Suite.start(t, 'apns');
  await Promise.all(fakes.map((fake) => suite.notifier(fake)));
  await suite.until(({ notifiers }) => notifiers === 2);
  const phones = await suite.phones(200);
  for (const text of ['a', 'b', 'c']) {
    await suite.write(phones, text);
    await suite.until(({ queued, in_flight }) => queued + in_flight === 0);
  }
  const report = await suite.until(settled(600));
  assert.deepEqual([report.accepted, lost(report)], [600, 0]);
  assert.equal(times.size, 600);
  const devices = fakes.map(({ taken }) => new Set(taken.pushes.map(({ token }) => token)));
  assert.equal(devices[0]!.size + devices[1]!.size, 200);
  for (const { size } of devices) assert.ok(size > 50, `${size} of 200 devices`);
  assert.equal(first.taken.count + second.taken.count, 600);
});

test('a dead device is forgotten, one that subscribed after the verdict stays', async (t) => {
  const fake = await apns(t);
  const times = received(fake);
  const suite = await Suite.start(t, 'apns');
  await suite.notifier(fake);
  await suite.until(({ notifiers }) => notifiers === 1);
  // Verdicts count in whole seconds.
  const phones = await suite.phones(4, seconds() - 2);
  const [dead, wrong, back, alive] = phones;
  const verdict = (timestamp: number): ApnsAnswer => ({ status: 410, reason: 'Unregistered', timestamp });
  fake.script.device(dead!.token, verdict(Date.now() + 1_000));
  fake.script.device(wrong!.token, { status: 400, reason: 'BadDeviceToken' });
  fake.script.device(back!.token, verdict(Date.now() - 3_600_000));
  await suite.write(phones, 'a');
  const report = await suite.until(
    ({ subscriptions, accepted, refused }) => subscriptions === 2 && accepted === 1 && refused === 3,
  );
  assert.deepEqual([report.accepted, report.gone], [1, 3]);
  await suite.write(phones, 'b');
  await suite.until(settled(6));
  assert.deepEqual([...times.keys()].sort(), [`${alive!.token} a`, `${alive!.token} b`, `${back!.token} b`].sort());
  // Who comes back is served again.
  await suite.subscribe([dead!]);
  await suite.write([dead!], 'c');
  await suite.until(settled(7));
  assert.equal(times.get(`${dead!.token} c`), 1);
});

test('a provider that calls every device dead is not believed: the removals stop, and all get their pushes when it is right again', async (t) => {
  const fake = await apns(t);
  const times = received(fake);
  const suite = await Suite.start(t, 'apns', { gone_breaker_minimum: 10 });
  await suite.notifier(fake);
  await suite.until(({ notifiers }) => notifiers === 1);
  const phones = await suite.phones(100, seconds() - 2);
  fake.script.all = { status: 400, reason: 'BadDeviceToken' };
  await suite.write(phones, 'a');
  const broken = await suite.until(settled(100));
  assert.equal(broken.breaker_open, true);
  assert.ok(broken.subscriptions > 90, `${broken.subscriptions} of 100 are left`);
  assert.ok(
    suite.hivemind.log.some((line) => /apns reports a suspiciously large share of its devices as gone/.test(line)),
  );
  fake.script.clear();
  await suite.write(phones, 'b');
  await suite.until(settled(100 + broken.subscriptions));
  assert.equal(times.size, broken.subscriptions);
});

test('when the hivemind restarts its notifiers are back at once, and pushes flow', async (t) => {
  const fake = await apns(t);
  const times = received(fake);
  const suite = await Suite.start(t, 'apns');
  await suite.notifier(fake);
  await suite.notifier(fake);
  await suite.until(({ notifiers }) => notifiers === 2);
  const phones = await suite.phones(10);
  await suite.write(phones, 'a');
  await suite.until(settled(10));
  const { database } = suite.hivemind;
  await suite.hivemind.stop();
  await suite.startHivemind(database);
  await suite.until(({ notifiers }) => notifiers === 2);
  for (const { account } of phones) await monitored(suite, account);
  let text = 0;
  // The storage servers may not have the new hivemind's connection yet: written to until all have heard something.
  const heard = () => new Set([...times.keys()].filter((key) => !key.endsWith(' a')).map((key) => key.split(' ')[0]));
  await until(async () => {
    await suite.write(phones, `b${text++}`);
    return heard().size === 10;
  }, 50);
  assert.ok([...times.values()].every((count) => count === 1));
});

test("what a hivemind gives to notifiers of the original's kind, ours can send too", async (t) => {
  const suite = await Suite.start(t, 'apns');
  const dicts: Buffer[] = [];
  const original = suite.hivemind.connect(
    {
      notifier: {
        access: 'none',
        commands: {
          validate: {
            kind: 'request',
            handler: (request) => request.reply('0', JSON.parse(request.parts[1]!.toString()).token),
          },
          push: { kind: 'command', handler: ({ parts }) => void dicts.push(Buffer.from(parts[0]!)) },
        },
      },
    },
    suite.address,
  );
  original.send('admin.register_service', 'apns');
  await suite.until(({ notifiers }) => notifiers === 1);
  const [phone] = await suite.phones(1);
  await suite.write([phone!], 'by the old way');
  await until(() => dicts.length > 0);
  const push: Push = decodePush(dicts[0]!);
  assert.equal(push.serviceId, phone!.token);

  const fake = await apns(t);
  const times = received(fake);
  const old = await FakeHivemind.start(t, 'apns', { original: 'newest' });
  const config = await writeConfig(suite.path, 'apns', old, await fake.settings(suite.path));
  const notifier = startProcess(t, config, 'apns');
  await old.until(() => old.instances.size === 1);
  old.pushPlain(push);
  await fake.taken.reached(1);
  assert.deepEqual([...times], [[`${phone!.token} by the old way`, 1]]);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
});
