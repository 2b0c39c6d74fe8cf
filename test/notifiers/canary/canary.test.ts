import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Registry } from 'prom-client';
import { type Clock, systemClock } from '../../../src/clock.ts';
import type { Context, Daemon } from '../../../src/daemon/daemon.ts';
import { openSystemd } from '../../../src/daemon/systemd.ts';
import { type Network, startNetwork } from '../../../src/devnet/network.ts';
import { startCanary } from '../../../src/notifiers/canary/canary.ts';
import { deriveIdentity } from '../../../src/notifiers/canary/identity.ts';
import { x25519Public } from '../../../src/session/sodium.ts';
import { loadConfig, programOf } from '../../../src/settings/config.ts';
import { startWeb } from '../../../src/web/web.ts';
import { startTestHivemind, type TestHivemind } from '../../support/hivemind.ts';
import { ownAddress } from '../../support/loopback.ts';
import { until } from '../../support/until.ts';
import { folder, keepLog } from '../support.ts';

/** What a canary does once a minute, it does ten times a second in tests; it is as patient as in operation. */
const PACE = { every: 100, first: 20, settle: 0, patience: 60_000, renew: 600_000 };

interface World {
  readonly network: Network;
  readonly hivemind: TestHivemind;
  readonly web: Daemon;
  readonly canary: Daemon;
  readonly lines: string[];
  readonly secret: Buffer;
  /** Every sample of the canary's metrics, as Prometheus reads them. */
  metrics(): Promise<Map<string, number>>;
  /** Resolves when the canary says that it is well, or complains of something that matches. */
  well(): Promise<void>;
  complains(of: RegExp): Promise<void>;
  /** Resolves when it has logged such a complaint: for one that may be over before it is looked at. */
  complained(of: RegExp): Promise<void>;
}

/** A network, a hivemind, a web front-end, and a canary that watches them. */
async function start(
  t: TestContext,
  options: {
    clock?: Clock;
    frontEndKey?: Buffer;
    frontEnd?: string;
    pace?: Partial<typeof PACE>;
    oxend?: string;
    prepare?: (network: Network) => void;
  } = {},
): Promise<World> {
  // First what depends on the rest: a canary whose world is gone waits for it in vain.
  const stops: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const stop of stops.reverse()) await stop();
  });
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 4, swarms: 2 });
  stops.push(() => network.stop());
  network.oxend.mine();
  options.prepare?.(network);
  const secret = randomBytes(32);
  const onion = randomBytes(32);
  const hivemind = await startTestHivemind(t, {
    secret,
    settings: { oxend_rpc: network.oxend.address, allow_private_nodes: 'yes' },
  });
  const dir = await folder(t);
  const place = ownAddress().replace('tcp://', '');
  writeFileSync(join(dir, 'hivemind.key'), secret, { mode: 0o600 });
  writeFileSync(join(dir, 'onionreq.key'), onion, { mode: 0o600 });
  const ini = join(dir, 'spns.ini');
  const sections = {
    db: [`url = ${hivemind.database}`],
    keys: [`hivemind = ${dir}/hivemind.key`, `onionreq = ${dir}/onionreq.key`],
    hivemind: [
      `listen = ${hivemind.address}`,
      `oxend_rpc = ${options.oxend ?? network.oxend.address}`,
      'allow_private_nodes = yes',
    ],
    web: [`listen = ${place}`],
    canary: [
      `front_end = ${options.frontEnd ?? `http://${place}/`}`,
      `front_end_key = ${(options.frontEndKey ?? x25519Public(onion)).toString('hex')}`,
    ],
  };
  writeFileSync(
    ini,
    Object.entries(sections)
      .map(([name, lines]) => `[${name}]\n${lines.join('\n')}\n`)
      .join(''),
  );
  const { log, lines } = keepLog();
  const contextOf = (name: 'web' | 'canary', clock: Clock): Context => ({
    name,
    config: loadConfig({ SPNS_CONFIG: ini }, { role: programOf(name) }),
    clock,
    registry: new Registry(),
    log,
    random: randomBytes,
    systemd: openSystemd({}),
    stopping: new AbortController().signal,
    giveUp: (error) => assert.fail(error),
  });
  const web = await startWeb(contextOf('web', systemClock));
  stops.push(() => web.stop(1_000));
  const context = contextOf('canary', options.clock ?? systemClock);
  const canary = await startCanary(context, { ...PACE, ...options.pace });
  let stopped: Promise<void> | undefined;
  const stop = () => (stopped ??= canary.stop(8_000));
  stops.push(stop);
  return {
    network,
    hivemind,
    web,
    canary: { ...canary, stop },
    lines,
    secret,
    async metrics() {
      const text = await context.registry.metrics();
      return new Map(
        [...text.matchAll(/^(\w+(?:\{[^}]*\})?) (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)]),
      );
    },
    well: () => until(() => canary.ready!().ok),
    complains: (of) => until(() => of.test(canary.ready!().reasons.join('; '))),
    complained: (of) => until(() => lines.some((line) => /phones may not ring/.test(line) && of.test(line))),
  };
}

test('a message of its own comes back as a push, again and again, and the time it took is reported', async (t) => {
  const { canary, hivemind, metrics, well, lines } = await start(t);
  assert.deepEqual(canary.ready!(), { ok: false, reasons: ['no message has come back yet'] });
  await well();
  const delivered = async () => (await metrics()).get('spns_canary_messages_total{result="delivered"}') ?? 0;
  await until(async () => (await delivered()) >= 3);
  const told = await metrics();
  assert.equal(told.get('spns_canary_messages_total{result="lost"}'), 0);
  assert.equal(told.get('spns_canary_front_end_up'), 1);
  assert.ok(told.get('spns_canary_seconds_count')! >= 3);
  assert.ok(told.get('spns_canary_seconds_sum')! > 0);
  assert.ok(told.get('spns_canary_silent_seconds')! < 60);
  assert.match(canary.status!(), /^\d+ pushes came, the last after \d+\.\d\d s; 0 lost$/);
  assert.ok(lines.some((line) => /phones ring: a push came/.test(line)));

  // The hivemind is told, too, and has one device of it; after the end, none.
  const client = hivemind.connect();
  const ask = async (what: string) => JSON.parse(String((await client.request(`admin.${what}`, []))[0]));
  const services = await ask('get_services');
  assert.deepEqual(
    services.map(({ service, subscriptions }: Record<string, unknown>) => [service, subscriptions]),
    [['canary', 1]],
  );
  await canary.stop(8_000);
  await until(async () => (await ask('get_services'))[0].subscriptions === 0);
  const now = async () => {
    const page = await hivemind.daemon.routes?.['/status.json']?.(new URL('http://localhost/status.json'));
    return JSON.parse(String(page?.body)).current;
  };
  // What it told last may be read after its end.
  await until(async () => (await now()).canary?.isRunning === false);
  const current = await now();
  assert.ok(current.canary.delivered >= 3 && current.canary.lastSeconds >= 0);
  assert.ok(current.requests.taken >= 2, 'its subscription, and its end');
  const { notifier } = await ask('get_stats');
  assert.equal(notifier.canary.problem, '');
  assert.ok(notifier.canary.delivered >= 3);
  assert.ok(notifier.canary.latency_ms >= 0);
});

test('a canary that was killed is succeeded by one with the same account and device', () => {
  const secret = randomBytes(32);
  const [one, two] = [deriveIdentity(secret), deriveIdentity(secret)];
  assert.deepEqual([one.account, one.device, one.encKey], [two.account, two.device, two.encKey]);
  assert.notDeepEqual(deriveIdentity(randomBytes(32)).account, one.account);
  assert.equal(one.account[0], 5);
  assert.equal(new Set([one.device, one.encKey.toString('hex'), one.account.toString('hex').slice(2)]).size, 3);
});

test('a front-end that is away is reported, and messages come back meanwhile', async (t) => {
  const { canary, web, well, complains, metrics } = await start(t, { pace: { renew: 0 } });
  await well();
  await web.stop(1_000);
  await complains(/the front-end cannot be reached: .*ECONNREFUSED/);
  const delivered = async () => (await metrics()).get('spns_canary_messages_total{result="delivered"}') ?? 0;
  const before = await delivered();
  await until(async () => (await delivered()) > before);
  assert.equal((await metrics()).get('spns_canary_front_end_up'), 0);
  assert.equal(canary.ready!().reasons.length, 1, 'the rest works');
});

test('a front-end that was never reached leaves nothing to measure', async (t) => {
  const { complains, metrics } = await start(t, { frontEnd: 'http://127.0.0.1:1' });
  await complains(/not subscribed; the front-end cannot be reached/);
  assert.ok((await metrics()).get('spns_canary_messages_total{result="not_subscribed"}')! >= 1);
});

test("a different key from the front-end's, and an answer that is not one of ours, are told apart", async (t) => {
  await (await start(t, { frontEndKey: x25519Public(randomBytes(32)) })).complains(/HTTP 400: is front_end_key its/);
  const proxy = createServer((_, response) => response.writeHead(200).end('<html>a page of the proxy</html>'));
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => new Promise<void>((resolve) => proxy.close(() => resolve())));
  const { port } = proxy.address() as AddressInfo;
  await (await start(t, { frontEnd: `http://127.0.0.1:${port}` })).complains(
    /cannot be decrypted: something in between/,
  );
});

test('an oxend that does not answer leaves the swarm unknown', async (t) => {
  const { complains, metrics } = await start(t, { oxend: 'ipc:///nowhere/oxend.sock' });
  await complains(/oxend does not say which swarm/);
  assert.ok((await metrics()).get('spns_canary_messages_total{result="no_swarm"}')! >= 1);
});

test('an oxend that goes away leaves what it reported, also where that is in doubt', async (t) => {
  const { network, complains, well } = await start(t);
  await well();
  await network.oxend.stop();
  const refuse = (what: { status: number; text: string } | undefined) => {
    for (const { server } of network.servers) server.behaviour.refuseStore = what;
  };
  // After a refusal the list is asked for anew.
  refuse({ status: 500, text: 'disk full' });
  await complains(/answered 500/);
  refuse(undefined);
  await well();
});

for (const [result, refusal, words] of [
  ['refused', { status: 500, text: 'disk full' }, /answered 500: disk full/],
  ['wrong_swarm', { status: 421, text: '{"snodes":[]}' }, /answered 421/],
] as const) {
  test(`storage servers that answer ${refusal.status} are counted as ${result}, and tried again`, async (t) => {
    const refuse = (network: Network, what: typeof refusal | undefined) => {
      for (const { server } of network.servers) server.behaviour.refuseStore = what;
    };
    const { complains, metrics, network, well } = await start(t, {
      prepare: (network) => refuse(network, refusal),
    });
    await complains(words);
    assert.ok((await metrics()).get(`spns_canary_messages_total{result="${result}"}`)! >= 1);
    refuse(network, undefined);
    await well();
  });
}

test('one storage server of the swarm that is away is skipped', async (t) => {
  const { network, secret, well } = await start(t, {});
  const [member] = network.membersFor(deriveIdentity(secret).account);
  await member!.stop();
  await well();
});

test('a swarm that the account no longer belongs to is requested anew', async (t) => {
  const { network, secret, well, complained, metrics } = await start(t);
  await well();
  // Everybody moves: what oxend told before leads to servers of another swarm.
  const account = deriveIdentity(secret).account;
  const here = network.membersFor(account);
  const mine = network.servers.find(({ server }) => server === here[0])!.swarm;
  const other = network.swarms.find((swarm) => swarm !== mine)!;
  for (const member of network.servers) network.move(member, member.swarm === mine ? other : mine);
  network.oxend.mine();
  await complained(/answered 421/);
  await well();
  assert.ok((await metrics()).get('spns_canary_messages_total{result="wrong_swarm"}')! >= 1);
});

test('a clock that is an hour ahead is reported in the words of the storage servers', async (t) => {
  const ahead: Clock = { ...systemClock, now: () => systemClock.now() + 3_600_000 };
  const { complains, metrics } = await start(t, { clock: ahead });
  await complains(/answered 406: Timestamp error: check your clock/);
  assert.ok((await metrics()).get('spns_canary_messages_total{result="clock"}')! >= 1);
});

test('a message whose push never comes is lost, and the canary subscribes anew', async (t) => {
  const { network, complained, well, metrics } = await start(t, { pace: { patience: 300, every: 50 } });
  const lost = async () => (await metrics()).get('spns_canary_messages_total{result="lost"}') ?? 0;
  await well();
  const before = await lost();
  // The hivemind hears nothing any more: the storage servers have forgotten that it asked.
  for (const { server } of network.servers) server.forget();
  await until(async () => (await lost()) > before);
  await complained(/no push came within 0\.3 s of a message that was stored/);
});

test('nobody else can have a device of the canary', async (t) => {
  const { hivemind, well, secret } = await start(t);
  await well();
  const client = hivemind.connect();
  const { sessionAccount } = await import('../../../src/devnet/account.ts');
  const { subscribe } = await import('../../support/requests.ts');
  const body = { ...subscribe(sessionAccount(randomBytes), 'token'), service: 'canary' };
  for (const info of [{ canary: 'x'.repeat(64) }, {}, null, 'canary']) {
    const [reply] = await client.request('push.subscribe', [JSON.stringify({ ...body, service_info: info })]);
    assert.match(String(reply), /the canary has no device other than its own/);
  }
  assert.equal(deriveIdentity(secret).device.length, 64);
});
