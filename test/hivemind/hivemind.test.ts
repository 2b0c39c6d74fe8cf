import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../src/clock.ts';
import { encode } from '../../src/codec/bencode.ts';
import { groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { OxenmqError } from '../../src/oxenmq/remote.ts';
import { encodeDeviceGone } from '../../src/session/notifier-protocol.ts';
import { openPayload } from '../../src/session/payload.ts';
import { busy } from '../support/busy.ts';
import { startTestHivemind } from '../support/hivemind.ts';
import { ownAddress } from '../support/loopback.ts';
import { seconds, subscribe, unsubscribe } from '../support/requests.ts';
import { message, monitored, startWorld, stats, TestNotifier, type World } from '../support/session-world.ts';
import { until } from '../support/until.ts';

/** Resolves when every storage server is connected, also those that do not keep the accounts of the test. */
async function allConnected(world: World): Promise<void> {
  await until(async () => (await stats(world)).connections === world.network.servers.length);
}

/** Resolves when so many copies of messages have come to the hivemind, and to the notifier all pushes made of them. */
async function heard({ notifier }: World, copies: number): Promise<void> {
  const raw = async () => {
    const [body] = await notifier.connection.request('admin.get_stats', []);
    return (JSON.parse(String(body)) as { since_start: { raw: number } }).since_start.raw;
  };
  await until(async () => (await raw()) === copies);
  // A push leaves at the end of the turn of the event loop that brought its message: this answer comes behind it.
  await raw();
}

test('a device subscribes, a message arrives in three copies, and one sealed push reaches the notifier', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  const key = randomBytes(32);
  assert.deepEqual(await world.send('subscribe', subscribe(account, 'phone', { key })), {
    added: true,
    message: 'Subscription successful',
    success: true,
  });
  await monitored(world, account);
  const copies = world.network.deliver(message(account, 'hello'));
  assert.equal(copies, 3, 'each member of the swarm tells it');
  await world.notifier.pushes(1);
  const [push] = world.notifier.sealed;
  assert.ok(push);
  const { metadata, data } = openPayload(push.payload, key);
  assert.equal(data?.toString(), 'hello');
  assert.equal(metadata.account, account.id.toString('hex'));

  await heard(world, copies);
  assert.equal(world.notifier.sealed.length, 1, 'the other copies make no push');
});

test('a new subscription reaches every storage server of its swarm without waiting for any timer of 200 ms or more', async (t) => {
  let held = false;
  const clock: Clock = {
    ...systemClock,
    setTimeout: (callback, ms) => systemClock.setTimeout(() => (held && ms >= 200 ? undefined : callback()), ms),
    setInterval: (callback, ms) => systemClock.setInterval(() => (held && ms >= 200 ? undefined : callback()), ms),
  };
  const world = await startWorld(t, { clock });
  const first = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(first, 'first'));
  await monitored(world, first);
  // One that is still being connected may have to be tried again, for which a timer is right.
  await allConnected(world);
  held = true;
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'second'));
  await monitored(world, account);
  assert.ok(world.network.membersFor(account.id).every((server) => server.monitorsOf(account.id, 0) > 0));
});

test('a group is monitored through a subaccount, in its namespaces, negative ones among them', async (t) => {
  const world = await startWorld(t);
  const group = groupAccount(randomBytes);
  const member = groupMember(group, randomBytes);
  const key = randomBytes(32);
  await world.send('subscribe', subscribe(member, 'phone', { key, namespaces: [-11, 11] }));
  await monitored(world, group, -11);
  world.network.deliver(message(group, 'revoked', -11));
  await world.notifier.pushes(1);
  assert.equal(openPayload(world.notifier.sealed[0]?.payload as Buffer, key).metadata.namespace, -11);
});

test("a notifier of the original's kind is given the original's dict", async (t) => {
  const world = await startWorld(t, {});
  const old = new TestNotifier(world.hivemind);
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  world.notifier.connection.close();
  old.connection.send('admin.register_service', 'test');
  // Until the other's end is known, the push may go there and come back only after a while.
  await until(async () => {
    const [body] = await world.client.request('admin.get_services', []);
    const [service] = JSON.parse(body?.toString() ?? '') as { notifiers: number }[];
    return service?.notifiers === 1;
  });
  world.network.deliver(message(account, 'hello'));
  await old.pushes(1);
  assert.equal(old.dicts[0]?.serviceId, 'phone'.padEnd(32, '.'));
  assert.equal(old.dicts[0]?.data?.toString(), 'hello');
});

test('pushes wait for a notifier, and what one did not acknowledge goes to the next', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  world.notifier.acknowledge = false;
  world.network.deliver(message(account, 'one'));
  await world.notifier.pushes(1);
  world.notifier.connection.close();
  world.network.deliver(message(account, 'two'));
  const next = await new TestNotifier(world.hivemind).register();
  await next.pushes(2);
  const texts = next.sealed.map(({ payload }) => openPayload(payload, Buffer.alloc(32, 9)).data?.toString());
  assert.deepEqual(texts.sort(), ['one', 'two']);
});

test('after an unsubscribe nothing is pushed, and an older subscribe cannot bring the device back', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  const early = subscribe(account, 'phone', { at: seconds() - 100 });
  await world.send('subscribe', early);
  await monitored(world, account);
  assert.deepEqual(await world.send('unsubscribe', unsubscribe(account, 'phone')), {
    message: 'Device unsubscribed from push notifications',
    removed: true,
    success: true,
  });
  const replayed = (await world.send('subscribe', early)) as { error: number; message: string };
  assert.equal(replayed.error, 4);
  assert.match(replayed.message, /signed before/);
  const other = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(other, 'other'));
  await monitored(world, other);
  const unwanted = world.network.deliver(message(account, 'nobody hears this'));
  assert.equal(unwanted, 3, 'the storage servers go on telling');
  await heard(world, unwanted + world.network.deliver(message(other, 'but this')));
  assert.deepEqual(
    world.notifier.sealed.map(({ serviceId }) => serviceId),
    ['other'.padEnd(32, '.')],
  );
});

test('a request signed earlier than the stored one changes neither key nor namespaces', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  const key = randomBytes(32);
  await world.send('subscribe', subscribe(account, 'phone', { key }));
  const replay = subscribe(account, 'phone', { at: seconds() - 1_000, key: randomBytes(32) });
  assert.deepEqual(await world.send('subscribe', replay), {
    message: 'A newer subscription is stored already',
    success: true,
    updated: false,
  });
  await monitored(world, account);
  world.network.deliver(message(account, 'hello'));
  await world.notifier.pushes(1);
  assert.equal(openPayload(world.notifier.sealed[0]?.payload as Buffer, key).data?.toString(), 'hello');
});

test('a device that its provider calls gone is removed, unless it subscribed after that', async (t) => {
  const world = await startWorld(t);
  const dead = sessionAccount(randomBytes);
  const alive = sessionAccount(randomBytes);
  const before = Date.now() - 3_600_000;
  await world.send('subscribe', [subscribe(dead, 'dead'), subscribe(alive, 'alive')]);
  const gone = (token: string, time: number) =>
    world.notifier.connection.send(
      'admin.device_gone',
      encodeDeviceGone({
        service: 'test',
        serviceId: token.padEnd(32, '.'),
        time,
        reason: 'Unregistered',
        local: false,
      }),
    );
  gone('alive', before);
  gone('dead', Date.now() + 1_000);
  await until(async () => (await stats(world)).subscriptions.total === 1);
  assert.deepEqual(await world.send('unsubscribe', unsubscribe(alive, 'alive')), {
    message: 'Device unsubscribed from push notifications',
    removed: true,
    success: true,
  });
});

test('get_stats has every key of the original', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  await world.send('subscribe', subscribe(account, 'phone'));
  world.network.deliver(message(account, 'hello'));
  await world.notifier.pushes(1);
  await allConnected(world);
  const report = encode({ '+notifies': 3, '+failures': 0, 'notifies_per_day.1m': 17 });
  world.notifier.connection.send('admin.service_stats', 'test', report);
  world.notifier.connection.send('admin.service_stats', 'test', report);
  // On the same connection, so that it is answered after the two reports.
  const [body] = await world.notifier.connection.request('admin.get_stats', []);
  const all = JSON.parse(body?.toString() ?? '') as Record<string, unknown>;
  assert.equal(all.accounts_monitored, 1);
  assert.equal(all['alive.test'], true);
  assert.equal(all.block_hash, world.network.oxend.blockHash);
  assert.equal(all.block_height, world.network.oxend.height);
  assert.equal(all.connections, 6);
  assert.equal(typeof all['last.test'], 'number');
  assert.deepEqual(all.notifier, {
    test: { failures: 0, notifies: 6, 'notifies_per_day.1m': 17, subscription: 1, sub_renew: 1 },
  });
  assert.equal(all.notifications, 1);
  assert.ok((all.pushes as number) >= 1 && (all.pushes as number) <= 3, 'the other copies may still be on their way');
  assert.equal(all.sub_renew, 1);
  assert.equal(all.pending_connections, 0);
  assert.equal(all.snodes, 6);
  assert.equal(all.subscription, 1);
  assert.deepEqual(all.subscriptions, { test: 1, total: 1 });
  assert.equal(all.swarms, 2);
  assert.equal(typeof all.uptime, 'number');
});

test('requests during startup are held and answered', async (t) => {
  const hivemind = await startTestHivemind(t, { settings: { startup_wait: 30, notifiers_expected: 'test' } });
  const client = hivemind.connect();
  const account = sessionAccount(randomBytes);
  const early = client.request('push.subscribe', [JSON.stringify(subscribe(account, 'phone'))]);
  // Answered after the request arrived, and before it is: the start-up still waits for its notifier.
  await client.request('admin.get_stats', []);
  await new TestNotifier(hivemind).register();
  const [reply] = await early;
  assert.equal(reply?.toString(), '{"added":true,"message":"Subscription successful","success":true}');
});

test('the front-end at listen_push may subscribe and nothing else, and nobody gets in at listen_curve without an admitted key', async (t) => {
  const secret = randomBytes(32);
  const { publicKey } = keyPairFromSecret(secret);
  const hivemind = await startTestHivemind(t, {
    secret,
    settings: { listen_curve: ownAddress(), listen_push: ownAddress() },
  });
  const addresses = hivemind.log
    .map((line) => /listening at (tcp:\S+) \((admin|push)/.exec(line))
    .filter((match) => match !== null);
  const open = addresses.find(([, , level]) => level === 'push')?.[1] ?? '';
  const closed = addresses.find(([, , level]) => level === 'admin')?.[1] ?? '';
  const stranger = hivemind.connect({}, open);
  const [reply] = await stranger.request('push.subscribe', ['{']);
  assert.equal(reply?.toString(), '{"error":1,"message":"Invalid JSON"}');
  await assert.rejects(
    stranger.request('admin.get_stats', []),
    (error) => error instanceof OxenmqError && error.code === 'FORBIDDEN',
  );
  const turnedAway = hivemind.connect({}, `${closed.replace('tcp://', 'curve://')}/${publicKey.toString('hex')}`);
  await assert.rejects(turnedAway.request('push.subscribe', ['{'], 500), OxenmqError);
});

test('subscriptions and unsubscriptions survive a restart, and notifications flow again before they are renewed', async (t) => {
  const secret = randomBytes(32);
  const world = await startWorld(t, { secret });
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  const left = sessionAccount(randomBytes);
  const replayed = subscribe(left, 'phone', { at: seconds() - 100 });
  await world.send('subscribe', replayed);
  await world.send('unsubscribe', unsubscribe(left, 'phone'));
  await world.hivemind.stop();
  const next = await startTestHivemind(t, {
    secret,
    settings: { oxend_rpc: world.network.oxend.address, allow_private_nodes: 'yes' },
    // The database is dropped only after the test.
    database: world.hivemind.database,
  });
  const notifier = await new TestNotifier(next).register();
  const [reply] = await next.ask('push.subscribe', JSON.stringify(replayed));
  assert.match(reply?.toString() ?? '', /signed before the device was unsubscribed/);
  // The servers still know us by the same routing id; they tell as soon as we are connected again.
  await until(() => {
    world.network.deliver(message(account, 'hello again'));
    return notifier.sealed.length > 0;
  }, 20);
});

test('what storage servers have sent before a stop is read and pushed, however much of it was unread', async (t) => {
  let isSlow = false;
  const clock: Clock = {
    ...systemClock,
    monotonic() {
      if (isSlow) busy(1);
      return systemClock.monotonic();
    },
  };
  const world = await startWorld(t, { clock });
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  isSlow = true;
  const texts = Array.from({ length: 40 }, (_, n) => `message ${n}`);
  for (const text of texts) world.network.deliver(message(account, text));
  // The rest arrives long before it can be read.
  await world.notifier.pushes(1);
  const early = world.notifier.sealed.length;
  assert.ok(early < texts.length, `${early} had been pushed before the stop`);
  isSlow = false;
  await world.hivemind.daemon.stop(10_000);
  assert.equal(world.notifier.sealed.length, texts.length);
});

test('a second hivemind on the same database is refused', async (t) => {
  const first = await startTestHivemind(t);
  await assert.rejects(startTestHivemind(t, { database: first.database }), /another hivemind/i);
});

test('rubbish from notifiers and storage servers does no harm', async (t) => {
  const world = await startWorld(t);
  const { connection } = world.notifier;
  const rubbish = [Buffer.alloc(0), Buffer.from('x'), Buffer.from('d1:ai'), Buffer.from('le'), randomBytes(100)];
  for (const command of ['register_service', 'service_stats', 'push_report', 'device_gone']) {
    for (const part of rubbish) {
      connection.send(`admin.${command}`, part);
      connection.send(`admin.${command}`, 'test', part);
      connection.send(`admin.${command}`);
    }
  }
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  world.network.deliver(message(account, 'still there'));
  await world.notifier.pushes(1);
});
