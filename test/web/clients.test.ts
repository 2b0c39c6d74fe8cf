import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { type Account, groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { startNetwork } from '../../src/devnet/network.ts';
import { createPhone, onionRequest } from '../../src/devnet/phone.ts';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import type { FakeProvider } from '../../src/devnet/providers/script.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import { type NotifierProcess, startProcess, writeConfig } from '../notifiers/process.ts';
import { folder } from '../notifiers/support.ts';
import { startTestHivemind, type TestHivemind } from '../support/hivemind.ts';
import { createDatabase } from '../support/postgres.ts';
import { seconds, subscribe, unsubscribe } from '../support/requests.ts';
import { message, monitored } from '../support/session-world.ts';
import { until } from '../support/until.ts';
import { connect, serve } from './fake-hivemind.ts';

/**
 * How a request comes: each app has its cipher and its form (docs/spec/notifiers.md, section 8); plain HTTP is for
 * both.
 */
type Way = 'android' | 'ios' | 'plain';
type Element = Record<string, unknown>;
interface Answer {
  readonly code: number;
  readonly body: unknown;
}

/** What today's Android app does with the answer to an array of so many elements, by its code. */
function androidDoes(count: number, { code, body }: Answer): string {
  if (code === 403) return 'gives up for good';
  if (code === 425) return 'sets its clock';
  if (code < 200 || code > 299) return 'asks again in 15 to 240 s';
  // It reads only an array as long as its own; an element with an error is as good to it as any.
  if (!Array.isArray(body) || body.length !== count) return 'asks again in 15 to 240 s';
  return 'is done for 7 days';
}

/** What today's iOS app does, by its code: only the first element's success counts. */
function iosDoes({ code, body }: Answer): string {
  if (code < 200 || code > 299) return 'asks again, 15 times at once';
  const [first] = (Array.isArray(body) ? body : [body]) as { success?: boolean }[];
  return first?.success === true ? 'is done for 12 h' : 'asks again at its next start';
}

const DONE = { android: 'is done for 7 days', ios: 'is done for 12 h' };
const AGAIN = { android: 'asks again in 15 to 240 s', ios: 'asks again, 15 times at once' };
/** Told for good: Android does not come back before its 7 days are over. */
const REFUSED = { android: 'is done for 7 days', ios: 'asks again at its next start' };

const tokens = {
  apns: () => randomBytes(32).toString('hex'),
  firebase: () => `fcm:${randomBytes(64).toString('base64url')}`,
  huawei: () => `hw-${randomBytes(48).toString('base64url')}`,
};
type Service = keyof typeof tokens;
const PROVIDERS: { readonly [service in Service]: () => Promise<FakeProvider> } = {
  apns: startFakeApns,
  firebase: startFakeFcm,
  huawei: startFakeHuawei,
};

/** A front-end, a hivemind with its database, a network, and notifiers as processes with their providers. */
class World {
  readonly network: Awaited<ReturnType<typeof startNetwork>>;
  readonly providers: { readonly [service in Service]: FakeProvider };
  readonly notifiers = new Map<Service, NotifierProcess>();
  hivemind!: TestHivemind;
  front!: { url: string; publicKey: Buffer };
  #web!: ReturnType<typeof connect>;
  readonly #t: TestContext;
  readonly #path: string;
  readonly #database: string;
  readonly #secret = randomBytes(32);
  #configs = 0;

  private constructor(t: TestContext, path: string, database: string, made: Pick<World, 'network' | 'providers'>) {
    this.#t = t;
    this.#path = path;
    this.#database = database;
    this.network = made.network;
    this.providers = made.providers;
  }

  static async start(t: TestContext): Promise<World> {
    const path = await folder(t);
    const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 2, swarms: 1 });
    t.after(() => network.stop());
    const started = await Promise.all(
      Object.entries(PROVIDERS).map(async ([service, start]) => [service, await start()] as const),
    );
    for (const [, provider] of started) t.after(() => provider.close());
    const providers = Object.fromEntries(started) as World['providers'];
    const world = new World(t, path, await createDatabase(t), { network, providers });
    await world.startHivemind();
    world.#web = connect(t, world.address, { clock: systemClock });
    const onionKey = randomBytes(32);
    const { url } = await serve(t, world.#web.hivemind, onionKey);
    world.front = { url, publicKey: Buffer.from(x25519Public(onionKey)) };
    await world.#web.untilConnected(true);
    return world;
  }

  get address(): string {
    return `ipc://${this.#path}/hm.sock`;
  }

  async startHivemind(): Promise<void> {
    this.hivemind = await startTestHivemind(this.#t, {
      database: this.#database,
      secret: this.#secret,
      settings: {
        listen: this.address,
        oxend_rpc: this.network.oxend.address,
        allow_private_nodes: 'yes',
        notifiers_expected: 'apns firebase huawei',
      },
    });
  }

  async startNotifier(service: Service): Promise<void> {
    const path = join(this.#path, `n${++this.#configs}`);
    await mkdir(path);
    const config = await writeConfig(
      path,
      service,
      { endpoint: this.address },
      await this.providers[service].settings(path),
    );
    this.notifiers.set(service, startProcess(this.#t, config, service));
    await this.until((services) => services.get(service)?.notifiers === 1);
  }

  /** Resolves when the services are so: polled, since nothing tells of it. */
  async until(condition: (services: Map<string, { notifiers: number; subscriptions: number }>) => boolean) {
    const admin = this.hivemind.connect({}, this.address);
    await until(async () => {
      const [body] = await admin.request('admin.get_services', []);
      const all = JSON.parse(String(body)) as { service: string; notifiers: number; subscriptions: number }[];
      return condition(new Map(all.map((one) => [one.service, one])));
    }, 10);
    admin.close();
  }

  async subscriptions(): Promise<number> {
    const admin = this.hivemind.connect({}, this.address);
    const [body] = await admin.request('admin.get_stats', []);
    admin.close();
    return JSON.parse(String(body)).subscriptions.total;
  }

  async ask(way: Way, path: '/subscribe' | '/unsubscribe', elements: readonly unknown[]): Promise<Answer> {
    const body = JSON.stringify(way === 'ios' && elements.length === 1 ? elements[0] : elements);
    if (way !== 'plain') {
      return await onionRequest(this.front, way === 'ios' ? 'xchacha20' : 'aes-gcm', path, body);
    }
    const response = await fetch(this.front.url + path, { method: 'POST', body });
    return { code: response.status, body: await response.json() };
  }
}

/** The answers of all elements, whatever the form. */
const list = ({ body }: Answer) => (Array.isArray(body) ? body : [body]) as { error?: number; message?: string }[];
const on = (service: string, element: Element, info: unknown = element.service_info): Element => ({
  ...element,
  service,
  service_info: info,
});

test('what the apps ask for is answered so that each app does the right thing next', async (t) => {
  const world = await World.start(t);
  await Promise.all((['apns', 'firebase', 'huawei'] as const).map((service) => world.startNotifier(service)));
  const SERVICE_OF = { android: 'firebase', ios: 'apns' } as const;
  const fresh = (app: 'android' | 'ios') => {
    const account = sessionAccount(randomBytes);
    const token = tokens[SERVICE_OF[app]]();
    return { account, token, request: on(SERVICE_OF[app], subscribe(account, token)) };
  };

  /**
   * Asks as both apps do, with what `make` makes for each, and holds what they do and what was stored against what is
   * right.
   */
  async function both(
    make: (app: 'android' | 'ios') => readonly unknown[],
    right: {
      next: typeof DONE;
      errors?: readonly (number | undefined)[];
      stored?: number;
      path?: '/unsubscribe';
      text?: RegExp;
    },
  ) {
    for (const app of ['android', 'ios'] as const) {
      const elements = make(app);
      const before = await world.subscriptions();
      const answer = await world.ask(app, right.path ?? '/subscribe', elements);
      const told = `${app}: ${answer.code} ${JSON.stringify(answer.body)}`;
      const next = app === 'android' ? androidDoes(elements.length, answer) : iosDoes(answer);
      assert.equal(next, right.next[app], told);
      const errors = right.errors ?? elements.map(() => undefined);
      assert.deepEqual(
        list(answer).map(({ error }) => error),
        errors,
        told,
      );
      if (right.text) assert.match(list(answer).at(-1)!.message ?? '', right.text, told);
      assert.equal((await world.subscriptions()) - before, right.stored ?? 0, `${told}: stored`);
    }
  }

  const known = { android: fresh('android'), ios: fresh('ios') };
  await t.test('a new device', () =>
    both((app) => [known[app].request], { next: DONE, stored: 1, text: /^Subscription successful$/ }),
  );
  await t.test('a renewal', () =>
    both((app) => [on(SERVICE_OF[app], subscribe(known[app].account, known[app].token))], {
      next: DONE,
      text: /^Resubscription/,
    }),
  );
  await t.test('an unsubscription, once and again', async () => {
    const bye = (app: 'android' | 'ios') => [on(SERVICE_OF[app], unsubscribe(known[app].account, known[app].token))];
    await both(bye, { next: DONE, path: '/unsubscribe', stored: -1, text: /^Device unsubscribed/ });
    await both(bye, { next: DONE, path: '/unsubscribe', text: /^Device was not subscribed/ });
  });
  await t.test('a group with a subaccount, together with the account', () =>
    both(
      (app) => {
        const { account, token } = fresh(app);
        const member = groupMember(groupAccount(randomBytes), randomBytes);
        const of = (one: Account) =>
          on(SERVICE_OF[app], subscribe(one, token, { namespaces: one.id[0] === 3 ? [-11, 0] : [0] }));
        return [of(account), of(member)];
      },
      { next: DONE, stored: 2 },
    ),
  );
  await t.test('a token that the notifier refuses', () =>
    both((app) => [on(SERVICE_OF[app], fresh(app).request, {})], { next: REFUSED, errors: [1], text: /'token'/ }),
  );
  await t.test('a service that nobody runs here', () =>
    both((app) => [on('nope', fresh(app).request)], {
      next: REFUSED,
      errors: [2],
      text: /^nope notification service not/,
    }),
  );
  await t.test('an invalid signature', () =>
    both((app) => [{ ...fresh(app).request, signature: Buffer.alloc(64).toString('base64') }], {
      next: REFUSED,
      errors: [4],
    }),
  );
  await t.test('a clock that is two days ahead', () =>
    both(
      (app) => {
        const { account, token } = fresh(app);
        return [on(SERVICE_OF[app], subscribe(account, token, { at: seconds() + 172_800 }))];
      },
      { next: REFUSED, errors: [4], text: /time/i },
    ),
  );
  await t.test('a missing key', () =>
    both(
      (app) => {
        const { enc_key: _, ...rest } = fresh(app).request;
        return [rest];
      },
      { next: REFUSED, errors: [1], text: /enc_key/ },
    ),
  );
  await t.test('a valid and a refused one together', () =>
    both((app) => [fresh(app).request, on('nope', fresh(app).request)], {
      next: DONE,
      errors: [undefined, 2],
      stored: 1,
    }),
  );
  await t.test('no element at all, and what is not JSON', async () => {
    assert.deepEqual(await world.ask('plain', '/subscribe', []), { code: 200, body: [] });
    const response = await fetch(`${world.front.url}/subscribe`, { method: 'POST', body: '{' });
    assert.deepEqual([response.status, await response.json()], [200, { error: 1, message: 'Invalid JSON' }]);
  });
  await t.test('a hundred at once, plain', async () => {
    const requests = Array.from({ length: 100 }, () => fresh('android').request);
    const answer = await world.ask('plain', '/subscribe', requests);
    assert.equal(androidDoes(100, answer), DONE.android);
    assert.equal(list(answer).filter((one) => 'added' in one).length, 100);
  });
  await t.test('more than 100,000 bytes', async () => {
    const answer = await world.ask(
      'android',
      '/subscribe',
      Array.from({ length: 200 }, () => fresh('android').request),
    );
    assert.deepEqual(answer.body, { error: 1, message: 'Invalid request: request too large' });
  });

  await t.test(
    'a notifier that ended in the middle of a question, and one that is away: asked again, and then done',
    async () => {
      const waiting = { android: fresh('android'), ios: fresh('ios') };
      const requests = (app: 'android' | 'ios') => [waiting[app].request, fresh(app).request];
      for (const app of ['android', 'ios'] as const) {
        const notifier = world.notifiers.get(SERVICE_OF[app])!;
        notifier.child.kill('SIGSTOP');
        const asked = world.ask(app, '/subscribe', requests(app));
        // Nothing tells that it was asked; if it was not yet, that is the other error of those that pass.
        await sleep(300);
        await notifier.end('SIGKILL');
        const answer = await asked;
        const next = app === 'android' ? androidDoes(2, answer) : iosDoes(answer);
        assert.equal(next, AGAIN[app], JSON.stringify(answer));
        for (const { error } of list(answer)) assert.ok(error === 3 || error === 2, String(error));
        await world.until((services) => services.get(SERVICE_OF[app])?.notifiers === 0);
      }
      await both(requests, { next: AGAIN, errors: [2, 2] });
      // One that does not pass beside one that does, and one that is done: whoever comes again gets the rest.
      await both(
        (app) => [
          on('huawei', waiting[app].request, { token: tokens.huawei() }),
          fresh(app).request,
          on('nope', fresh(app).request),
        ],
        {
          next: AGAIN,
          errors: [undefined, 2, 2],
          stored: 1,
        },
      );
      await Promise.all([world.startNotifier('firebase'), world.startNotifier('apns')]);
      await both((app) => [waiting[app].request], { next: DONE, stored: 1 });
    },
  );

  await t.test('a hivemind that restarts meanwhile: held, and then done', async () => {
    const requests = (app: 'android' | 'ios') => [fresh(app).request];
    await world.hivemind.stop();
    const asked = (['android', 'ios'] as const).map((app) => world.ask(app, '/subscribe', requests(app)));
    await world.startHivemind();
    const [android, ios] = await Promise.all(asked);
    // Its notifiers may not be back yet: then each app comes again. It is never told a lasting error.
    for (const [next, app] of [
      [androidDoes(1, android!), 'android'],
      [iosDoes(ios!), 'ios'],
    ] as const) {
      assert.ok(next === DONE[app] || next === AGAIN[app], next);
    }
    await world.until((services) => services.get('apns')?.notifiers === 1 && services.get('firebase')?.notifiers === 1);
    await both(requests, { next: DONE, stored: 1 });
  });

  await t.test('a hivemind that is away: asked again, with an answer for each element', async () => {
    await world.hivemind.stop();
    const [android, ios] = await Promise.all([
      world.ask('android', '/subscribe', [fresh('android').request, fresh('android').request]),
      world.ask('ios', '/unsubscribe', [on('apns', unsubscribe(known.ios.account, known.ios.token))]),
    ]);
    assert.deepEqual([androidDoes(2, android!), iosDoes(ios!)], [AGAIN.android, AGAIN.ios]);
    assert.deepEqual(
      list(android!).map(({ error }) => error),
      [3, 3],
    );
    assert.deepEqual(
      list(ios!).map(({ error }) => error),
      [3],
    );
  });
});

test('a phone that subscribed with its app is woken through its provider, and can read what came', async (t) => {
  const world = await World.start(t);
  await Promise.all((['apns', 'firebase', 'huawei'] as const).map((service) => world.startNotifier(service)));
  for (const [platform, service] of [
    ['ios', 'apns'],
    ['android', 'firebase'],
    ['android', 'huawei'],
  ] as const) {
    const accounts = [sessionAccount(randomBytes), groupMember(groupAccount(randomBytes), randomBytes)];
    const token = tokens[service]();
    const phone = createPhone({
      name: service,
      platform,
      service,
      serviceInfo: { token },
      accounts,
      random: randomBytes,
      now: Date.now,
    });
    const { code, body } = await phone.subscribe(world.front);
    assert.equal(code, 200, JSON.stringify(body));
    const { taken } = world.providers[service];
    for (const [account, namespace] of [
      [accounts[0]!, 0],
      [accounts[1]!, 11],
    ] as const) {
      await monitored(world, account, namespace);
      const count = taken.count;
      world.network.deliver(message(account, `to ${service}`, namespace));
      await taken.reached(count + 1);
      const push = taken.pushes.at(-1)!;
      assert.equal(push.token, token);
      const woken = phone.open(push.payload);
      assert.deepEqual(
        [woken.account, woken.namespace, String(woken.data)],
        [account.id.toString('hex'), namespace, `to ${service}`],
      );
    }
    const bye = await phone.unsubscribe(world.front);
    assert.deepEqual([bye.code, list({ ...bye }).map((one) => 'success' in one)], [200, [true, true]]);
  }
});
