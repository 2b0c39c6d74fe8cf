import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Phone } from '../../src/devnet/phone.ts';
import { envelope, type StorageServer } from '../../src/devnet/storage-server.ts';
import { messageHash } from '../../src/session/message-hash.ts';
import { checkFigures, type Figures, readFigures, sum } from '../faults/support.ts';
import { until } from '../support/until.ts';
import { Deliveries } from './deliveries.ts';
import { Vitals } from './vitals.ts';
import { SERVICES, type SoakWorld, startSoak } from './world.ts';

/** SOAK_SECONDS=60 tries it out, SOAK_RATE=400 writes more a second. */
const LENGTH = Number(process.env.SOAK_SECONDS ?? 600) * 1000;
const RATE = Number(process.env.SOAK_RATE ?? 250);
/** Phones at the start, each with an account of its own; the services that most are at. */
const PHONES = 400;
const SHARES = ['apns', 'apns', 'apns', 'firebase', 'firebase', 'firebase', 'huawei', 'webpush', 'dummy'] as const;
const BODY_SIZE = 500;
const DAY = 86_400_000;
/** Two requests at a time from clients, each so long after the last, ms. */
const CLIENT_PAUSE = 250;
/** How long what is held may take to go out when everything is well again, ms. */
const DRAIN = 180_000;
/**
 * What a process may grow in the second half, and how much later pushes of one service may be while another's provider
 * hangs.
 */
const GROWTH = { megabytes: 48, share: 0.25, descriptors: 8 };
const LATER = { times: 5, ms: 500 };

/** A part of the run's length, ms. */
const part = (share: number) => LENGTH * share;
const say = (text: string) => process.stdout.write(`${text}\n`);

test(`${LENGTH / 1000} s at ${RATE} messages a second, and one fault after the other: nothing is lost`, async (t) => {
  const deliveries = new Deliveries();
  const world = await startSoak(t, deliveries);
  const over = new AbortController();
  const clients = new Clients(world);
  for (let index = 0; index < PHONES; index++) await clients.join(SHARES[index % SHARES.length]!);
  say(`${clients.ready.length} phones have subscribed`);
  const vitals = new Vitals(() => [...world.daemons.pids.values()]);
  t.after(async () => vitals.stop());
  t.after(async () => over.abort());

  const start = performance.now();
  const writer = new Writer(world, clients, deliveries);
  const work = [writer.run(over.signal), clients.run(over.signal), storageServerFaults(world, over.signal)];
  const { before, during } = await schedule(world, deliveries, writer, start);
  over.abort();
  await Promise.all(work);
  for (const proxy of world.proxies) Object.assign(proxy, { way: 'pass' });

  const end = performance.now() + DRAIN;
  const outstanding = ({ services }: Figures) => services.reduce((all, one) => all + one.queued + one.in_flight, 0);
  while (outstanding(await readFigures(world.client)) > 0 && performance.now() < end) await sleep(100);
  const figures = await readFigures(world.client);
  const dummyLog = await fs.readFile(world.daemons.log('notify-dummy'), 'utf8');
  const pushesOfDummy = dummyLog.split('push of ').length - 1;
  deliveries.of('dummy').taken = pushesOfDummy;

  const accounts = SERVICES.map((service) => account(service, figures, deliveries, world));
  const trends = Array.from(world.daemons.pids, ([name, pid]) => ({
    process: name,
    ...vitals.trend(pid, LENGTH / 2000),
    lastQuarterGrown: vitals.trend(pid, (LENGTH * 0.75) / 1000).megabytesGrown,
  }));
  const { since_start: intake } = figures;
  say(JSON.stringify({ seconds: LENGTH / 1000, rate: RATE, intake }));
  for (const row of [...accounts, ...trends]) say(JSON.stringify(row));
  say(JSON.stringify({ p99_ms_before: before, while_apple_hangs: during }));
  say(JSON.stringify({ clients: clients.counters, subscriptions: clients.ready.length }));

  checkFigures(figures);
  assert.deepEqual(world.daemons.deaths, [], 'no program ends of itself');
  assert.deepEqual(
    deliveries.wrong.slice(0, 5),
    [],
    'each phone can read what it is pushed, and it is what was written',
  );
  assert.ok(intake.contradicted > 0 || intake.unheld === 0, 'the lying server was noticed');
  for (const { service, sent, taken, twice, accepted, lost, held, redelivered, at_provider: all } of accounts) {
    assert.ok(sent > 0, `${service} was pushed to`);
    assert.equal(held, 0, `${service}: everything that was held has gone out`);
    assert.ok(lost <= 0, `${service}: ${lost} of ${sent} messages are lost, ${taken} were taken`);
    assert.ok(lost >= -redelivered, `${service}: more is accounted for than was written`);
    assert.ok(twice <= redelivered, `${service}: ${twice} came again, ${redelivered} were given to another notifier`);
    assert.ok(accepted <= all, `${service}: ${accepted} are said to be taken, the provider knows of ${all}`);
  }
  assert.equal(clients.counters.failed, 0, 'no client got another answer than success or "retry"');
  assert.equal(await world.countSubscriptions(), clients.ready.length, 'each client that was told of success');
  // In a shorter one they have just started, and still grow to their size.
  for (const { process: name, megabytes, megabytesGrown, descriptorsGrown } of LENGTH < 300_000 ? [] : trends) {
    const limit = Math.max(GROWTH.megabytes, megabytes * GROWTH.share);
    assert.ok(megabytesGrown <= limit, `${name} grew by ${megabytesGrown} MB to ${megabytes} MB`);
    assert.ok(descriptorsGrown <= GROWTH.descriptors, `${name} has ${descriptorsGrown} more descriptors`);
  }
  for (const service of ['firebase', 'huawei', 'webpush']) {
    const limit = (before[service] ?? 0) * LATER.times + LATER.ms;
    assert.ok((during[service] ?? Number.NaN) <= limit, `${service} waits for Apple: ${during[service]} ms`);
  }
});

/**
 * What happens to all but the storage servers, at its time. The second half has no new process, so that what grows in
 * it grows for good.
 */
async function schedule(world: SoakWorld, deliveries: Deliveries, writer: Writer, start: number) {
  const { apns, firebase, huawei, webpush, network, daemons } = world;
  const at = async (share: number, what: string) => {
    await sleep(Math.max(0, start + part(share) - performance.now()));
    say(`${Math.round((performance.now() - start) / 1000)} s: ${what}`);
  };
  await at(0.03, 'all is well');
  deliveries.p99();
  await at(0.12, 'Apple hangs');
  const before = deliveries.p99();
  apns.script.all = { hang: true };
  await at(0.22, 'Apple answers again');
  const during = deliveries.p99();
  apns.script.all = undefined;
  await at(0.27, 'the notifier of firebase is killed');
  await world.killNotifier('firebase');
  await at(0.33, 'Apple and Google send GOAWAY, again and again');
  for (let round = 0; round < 5; round++) {
    apns.goaway();
    firebase.goaway();
    await sleep(part(0.005));
  }
  await at(0.38, 'the notifier of apns is killed');
  await world.killNotifier('apns');
  await at(0.44, 'a storage server lies about what it was given');
  writer.liar = network.servers[3]!.server;
  await at(0.54, 'it is honest again');
  writer.liar = undefined;
  await at(0.56, 'PostgreSQL is stopped at once');
  await world.stopDatabase();
  await sleep(part(0.03));
  await world.startDatabase();
  await at(0.64, 'Huawei and a push service of Web Push are not available');
  huawei.script.all = { status: 503 };
  webpush.script.all = { status: 503 };
  await at(0.66, 'Huawei is back; Apple cuts its connections');
  huawei.script.all = undefined;
  webpush.script.all = undefined;
  apns.cut();
  await at(0.7, 'the hivemind stands still');
  process.kill(daemons.pid('hivemind'), 'SIGSTOP');
  await sleep(Math.min(3_000, part(0.02)));
  process.kill(daemons.pid('hivemind'), 'SIGCONT');
  for (const share of [0.75, 0.8, 0.85]) {
    await at(share, 'a new block; Google sends GOAWAY');
    network.oxend.mine();
    firebase.goaway();
  }
  await at(1, 'the end of the writing');
  return { before, during };
}

/** One storage server after the other: its connections break, or swallow everything, or are slow, or it starts anew. */
async function storageServerFaults({ network, proxies }: SoakWorld, signal: AbortSignal): Promise<void> {
  for (let turn = 0; !signal.aborted; turn++) {
    const index = turn % proxies.length;
    const proxy = proxies[index]!;
    const { server } = network.servers[index]!;
    const kind = ['reset', 'hole', 'delay', 'restart'][Math.floor(turn / 3) % 4]!;
    if (kind === 'hole') proxy.way = 'hole';
    if (kind === 'delay') proxy.way = { delay: 200 };
    if (kind === 'restart') await server.stop();
    await sleep(part(0.006));
    proxy.way = 'pass';
    if (kind === 'restart') await server.start();
    else if (kind !== 'delay') proxy.reset();
    await sleep(part(0.01), undefined, { signal }).catch(() => {});
  }
}

/** Somebody writes to one phone after the other. */
class Writer {
  /** Tells of another text under the hash of each message. */
  liar: StorageServer | undefined;
  readonly #world: SoakWorld;
  readonly #clients: Clients;
  readonly #deliveries: Deliveries;

  constructor(world: SoakWorld, clients: Clients, deliveries: Deliveries) {
    this.#world = world;
    this.#clients = clients;
    this.#deliveries = deliveries;
  }

  async run(signal: AbortSignal): Promise<void> {
    const start = performance.now();
    for (let written = 0; !signal.aborted; written++) {
      const wait = start + (written * 1000) / RATE - performance.now();
      if (wait > 0) await sleep(wait);
      // A machine that is behind must not hear of it all at once.
      else if (written % 20 === 0) await sleep(0);
      const phones = this.#clients.ready;
      this.#write(phones[written % phones.length]!);
    }
  }

  #write({ accounts, service }: Phone): void {
    const account = accounts[0]!.id;
    const data = randomBytes(BODY_SIZE);
    const now = Date.now();
    const hash = messageHash(account, 0, data);
    const message = { account, hash, namespace: 0, timestamp: now, expiry: now + DAY, data };
    const truth = envelope(message);
    let copies = 0;
    for (const server of this.#world.network.membersFor(account)) {
      if (server === this.liar) server.store(envelope({ ...message, data: randomBytes(BODY_SIZE) }));
      else copies += server.store(truth);
    }
    this.#deliveries.sent(hash, service, copies);
  }
}

/** Phones that subscribe, and renew. */
class Clients {
  /** Subscribed, and monitored by most of their swarm. */
  readonly ready: Phone[] = [];
  readonly counters = { joined: 0, renewed: 0, again: 0, failed: 0 };
  readonly #world: SoakWorld;

  constructor(world: SoakWorld) {
    this.#world = world;
  }

  async run(signal: AbortSignal): Promise<void> {
    const joining = async () => {
      for (let turn = 0; !signal.aborted; turn++) {
        await this.join(SHARES[turn % SHARES.length]!);
        await sleep(CLIENT_PAUSE);
      }
    };
    const renewing = async () => {
      for (let turn = 0; !signal.aborted; turn++) {
        await this.#subscribe(this.ready[turn % this.ready.length]!);
        this.counters.renewed++;
        await sleep(CLIENT_PAUSE);
      }
    };
    await Promise.all([joining(), renewing()]);
  }

  async join(service: string): Promise<void> {
    const phone = this.#world.newPhone(service);
    await this.#subscribe(phone);
    this.counters.joined++;
    const { id } = phone.accounts[0]!;
    const monitored = () => this.#world.network.membersFor(id).filter((server) => server.monitorsOf(id, 0) > 0).length;
    await until(() => monitored() >= 3);
    this.ready.push(phone);
  }

  /** As the apps do: what is said to be passing is tried again. */
  async #subscribe(phone: Phone): Promise<void> {
    for (;;) {
      const { code, body } = await phone.subscribe(this.#world.frontEnd);
      const elements = Array.isArray(body) ? body : [body];
      if (code === 200 && elements.every((element) => element?.success === true)) return;
      if (code === 503) this.counters.again++;
      else {
        this.counters.failed++;
        say(`a client was answered ${code} ${JSON.stringify(body)}`);
      }
      await sleep(500);
    }
  }
}

/** What became of the messages to one service, by the provider and by the hivemind. */
function account(service: string, { services }: Figures, deliveries: Deliveries, world: SoakWorld) {
  const { sent, taken, twice } = deliveries.of(service);
  const own = services.find((one) => one.service === service);
  assert.ok(own, service);
  const { accepted, refused, dropped, unreported, redelivered, queued, in_flight } = own;
  const held = queued + in_flight;
  const lost = sent - taken - refused - sum(dropped) - unreported - held;
  const providers: Record<string, { taken: { count: number } }> = {
    apns: world.apns,
    firebase: world.firebase,
    huawei: world.huawei,
    webpush: world.webpush,
  };
  const all = providers[service]?.taken.count ?? taken;
  return { service, sent, taken, twice, at_provider: all, accepted, refused, dropped, held, redelivered, lost };
}
