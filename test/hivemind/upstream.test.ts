import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { encode } from '../../src/codec/bencode.ts';
import { sessionAccount } from '../../src/devnet/account.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import type { Part } from '../../src/oxenmq/remote.ts';
import { encodePush } from '../../src/session/push.ts';
import { startTestHivemind } from '../support/hivemind.ts';
import { ownAddress } from '../support/loopback.ts';
import { seconds, subscribe } from '../support/requests.ts';
import { message, monitored, startWorld } from '../support/session-world.ts';
import { until } from '../support/until.ts';

/**
 * A notifier that speaks as those of 2024-10 or the newest do (docs/spec/upstream.md, section 3), and keeps what it is
 * told.
 */
class Upstream {
  readonly service: string;
  readonly asked: Buffer[][] = [];
  readonly pushed: Buffer[] = [];
  connection!: Connection;
  /** Its answer to the next question. */
  answer: (info: string) => readonly Part[] = (info) => ['0', JSON.parse(info).token];

  private constructor(service: string) {
    this.service = service;
  }

  /** @param routingId the original's form, unless given: `L` and the public key */
  static async start(
    t: TestContext,
    { hivemind }: { hivemind: { address: string } },
    service: string,
    routingId?: Buffer,
  ): Promise<Upstream> {
    const notifier = new Upstream(service);
    // Plain, with a key of its own, which only its name shows.
    const peers = new Peers({
      clock: systemClock,
      ...(routingId && { routingId }),
      commands: {
        notifier: {
          access: 'basic',
          commands: {
            validate: {
              kind: 'request',
              handler: (request) => {
                notifier.asked.push([...request.parts]);
                request.reply(...notifier.answer(String(request.parts[1])));
              },
            },
            push: { kind: 'command', handler: ({ parts }) => void notifier.pushed.push(...parts) },
          },
        },
      },
    });
    t.after(() => peers.close());
    notifier.connection = peers.connect(parseAddress(hivemind.address));
    notifier.connection.send('admin.register_service', service);
    await notifier.stats();
    return notifier;
  }

  /** All that was sent on this connection before has been taken then. */
  async stats(): Promise<Record<string, unknown> & { notifier?: Record<string, Record<string, unknown>> }> {
    const [body] = await this.connection.request('admin.get_stats', []);
    return JSON.parse(String(body));
  }
}

const token = () => randomBytes(32).toString('hex');
const of = (service: string, element: object) => ({ ...element, service });

test('a notifier of the original, whatever it calls itself, is asked, answered and handed pushes as by the original', async (t) => {
  const world = await startWorld(t);
  for (const [name, service, id] of [
    ['the form of 2024-10', 'apns', undefined],
    ['a name of its own', 'firebase', Buffer.from('my notifier')],
    ['bytes from 0x80', 'huawei', Buffer.concat([Buffer.from([0xff]), randomBytes(19)])],
  ] as const) {
    await t.test(name, async (t) => {
      const notifier = await Upstream.start(t, world, service, id);
      const account = sessionAccount(randomBytes);
      const device = token();
      const request = { ...of(service, subscribe(account, device)), service_info: { token: device, b: 'ü', a: [1] } };
      assert.deepEqual(await world.send('subscribe', request), {
        added: true,
        message: 'Subscription successful',
        success: true,
      });
      // Compact, keys sorted, UTF-8 as it is; and once.
      assert.deepEqual(
        notifier.asked.map((parts) => parts.map(String)),
        [[service, `{"a":[1],"b":"ü","token":"${device}"}`]],
      );
      await monitored(world, account);
      const sent = message(account, 'hello');
      world.network.deliver(sent);
      await until(() => notifier.pushed.length > 0);
      const push = { ...sent, service, serviceId: device, serviceData: null, encKey: Buffer.alloc(32, 9) };
      assert.equal(notifier.pushed[0]!.toString('latin1'), encodePush(push).toString('latin1'));
      // Again and again, as it does, changes nothing.
      for (let again = 0; again < 3; again++) notifier.connection.send('admin.register_service', service);
      const services = JSON.parse(String((await notifier.connection.request('admin.get_services', []))[0]));
      assert.equal(services.find((one: { service: string }) => one.service === service).notifiers, 1);
    });
  }
});

test("every answer to validate that a notifier of the original gives becomes the client's answer that the original gave", async (t) => {
  const world = await startWorld(t);
  const notifier = await Upstream.start(t, world, 'firebase');
  const generic = { error: 4, message: 'An error occured while processing your request' };
  const id = token();
  const added = { added: true, message: 'Subscription successful', success: true };
  for (const [answer, reply] of [
    // The newest.
    [['0', id], added],
    [['ERROR', 'Invalid validate request data'], generic],
    [['ERROR', 'Invalid notifier value'], generic],
    [
      ['1', 'Unparseable JSON notification request data'],
      { error: 1, message: 'Unparseable JSON notification request data' },
    ],
    [['1', 'Firebase device token cannot be empty'], { error: 1, message: 'Firebase device token cannot be empty' }],
    [
      ['1', 'Invalid APNs device token (expected 64 hex, got 3B)'],
      { error: 1, message: 'Invalid APNs device token (expected 64 hex, got 3B)' },
    ],
    // 2024-10.
    [['0', id, 'service data'], added],
    [['1', "Error: missing required key 'token'"], { error: 1, message: "Error: missing required key 'token'" }],
    [['4', 'Invalid firebase device token'], { error: 4, message: 'Invalid firebase device token' }],
    [['4', 'Internal error'], { error: 4, message: 'Internal error' }],
    [['7', ''], { error: 7 }],
    [['0'], generic],
    [[], generic],
    [['0', 'short'], generic],
    [['0', id, 'data', 'more'], generic],
  ] as const) {
    notifier.answer = () => answer;
    const account = sessionAccount(randomBytes);
    assert.deepEqual(await world.send('subscribe', of('firebase', subscribe(account, token()))), reply, String(answer));
  }
});

test('what notifiers of the original report is added up, shown under their name, and shows that they are alive', async (t) => {
  const world = await startWorld(t);
  const notifier = await Upstream.start(t, world, 'firebase');
  assert.equal((await notifier.stats())['alive.firebase'], undefined);
  const rates = { 'notifies_per_day.1m': 17_280, 'notifies_per_day.10m': 17_281, 'notifies_per_day.60m': 17_282 };
  // The newest has no rates before a minute is over.
  const first = encode({ '+failures': 1, '+notifies': 20, '+notify_retries': 3 });
  notifier.connection.send('admin.service_stats', 'firebase', first);
  notifier.connection.send(
    'admin.service_stats',
    'firebase',
    encode({ '+failures': 0, '+notifies': 2, '+notify_retries': 0, ...rates }),
  );
  // These are dropped whole, and nobody else is harmed.
  notifier.connection.send('admin.service_stats', 'firebase');
  notifier.connection.send('admin.service_stats', 'firebase', first, first);
  notifier.connection.send('admin.service_stats', '', first);
  notifier.connection.send('admin.service_stats', 'firebase', encode({ '+notifies': 'x' }));
  notifier.connection.send('admin.service_stats', 'firebase', encode({ '+notifies': 1, list: [] }));
  notifier.connection.send('admin.service_stats', 'firebase', 'no dict');
  const stats = await notifier.stats();
  assert.deepEqual(stats.notifier?.firebase, { failures: 1, notifies: 22, notify_retries: 3, ...rates });
  assert.equal(stats['alive.firebase'], true);
  assert.ok(Math.abs(Number(stats['last.firebase']) - seconds()) < 60);
  // One that has not registered may report, too.
  notifier.connection.send('admin.service_stats', 'unheard', first);
  assert.equal((await notifier.stats())['alive.unheard'], true);
});

test('devices that the newest notifiers call dead are removed; malformed lists are dropped as a whole', async (t) => {
  const world = await startWorld(t);
  await Upstream.start(t, world, 'firebase');
  const devices = [token(), token(), token()];
  const at = seconds() - 60;
  // A device may be subscribed for several accounts: all of them go.
  const accounts = [0, 0, 1, 2].map((device) => ({ device: devices[device]!, account: sessionAccount(randomBytes) }));
  const requests = accounts.map(({ device, account }) => of('firebase', subscribe(account, device, { at })));
  await world.send('subscribe', requests);
  // Who subscribed since the provider's verdict may have has a living token: only what a restarted hivemind loads is
  // surely older.
  await world.hivemind.stop();
  const hivemind = await startTestHivemind(t, { database: world.hivemind.database });
  // It need not have registered before.
  const early = hivemind.connect();
  early.send('admin.drop_registrations', 'nope', encode([devices[1]!]));
  early.send('admin.drop_registrations', 'firebase', encode([devices[1]!]));
  await early.request('admin.get_nodes', []);
  const notifier = await Upstream.start(t, { hivemind }, 'firebase');
  const drop = (...parts: Part[]) => notifier.connection.send('admin.drop_registrations', ...parts);
  const left = async () => ((await notifier.stats()).subscriptions as { total: number }).total;
  for (const parts of [
    [],
    ['firebase'],
    ['', encode([devices[0]!])],
    ['firebase', encode([])],
    ['firebase', encode([devices[0]!, 5])],
    ['firebase', encode({ a: devices[0]! })],
    ['firebase', devices[0]!],
    ['firebase', encode([devices[0]!]), 'more'],
    ['apns', encode([devices[0]!])],
    ['firebase', encode([token()])],
  ] as Part[][])
    drop(...parts);
  await until(async () => (await left()) === 3);
  drop('firebase', encode([devices[0]!, devices[2]!]));
  await until(async () => (await left()) === 0);
  // Who subscribes again, with a living token of the same kind, is taken.
  const again = JSON.stringify(of('firebase', subscribe(accounts[0]!.account, devices[0]!)));
  const [reply] = await notifier.connection.request('push.subscribe', [again]);
  assert.equal(String(reply), '{"added":true,"message":"Subscription successful","success":true}');
  // But not what came in since: the list may have been gathered before.
  drop('firebase', encode([devices[0]!]));
  assert.equal(await left(), 1);
});

test("the administrators' endpoints are closed to everybody else", async (t) => {
  const push = ownAddress();
  const world = await startWorld(t, { settings: { listen_push: push } });
  const stranger = world.hivemind.connect({}, push);
  for (const [command, ...parts] of [
    ['admin.register_service', 'firebase'],
    ['admin.service_stats', 'firebase', encode({ '+notifies': 1 })],
    ['admin.drop_registrations', 'firebase', encode([token()])],
    ['admin.get_stats'],
    ['notify.block'],
    ['notify.message', 'd e'],
  ] as const) {
    await assert.rejects(stranger.request(command, parts), { code: 'FORBIDDEN' }, command);
  }
  assert.deepEqual(await world.send('subscribe', []), []);
});

test('a request as the original web front-end sends it, of one part, gets an answer of one part', async (t) => {
  const world = await startWorld(t);
  const [account, device] = [sessionAccount(randomBytes), token()];
  for (const body of [
    JSON.stringify(subscribe(account, device)),
    '{',
    JSON.stringify(of('nope', subscribe(account, device))),
  ]) {
    assert.equal((await world.client.request('push.subscribe', [body])).length, 1);
    assert.equal((await world.client.request('push.unsubscribe', [body])).length, 1);
  }
});
