import assert from 'node:assert/strict';
import { test } from 'node:test';
import { repeated } from '../../../src/daemon/log.ts';
import { HivemindLink, type HivemindLinkOptions } from '../../../src/notifiers/runtime/hivemind-link.ts';
import type { Connection } from '../../../src/oxenmq/peers.ts';
import { OxenmqError } from '../../../src/oxenmq/remote.ts';
import { encodeMembers } from '../../../src/session/members.ts';
import {
  decodeDeviceGone,
  decodeDropRegistrations,
  decodePushReport,
  decodeRegistration,
} from '../../../src/session/notifier-protocol.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { keepLog } from '../support.ts';

const INSTANCE = Buffer.alloc(16, 7);
const ADDRESS = 'tcp://127.0.0.1:1';
const ORIGINAL = Buffer.from('Lkey');
const OK = [Buffer.from('OK')];
const GONE = { serviceId: 'x'.repeat(40), time: 5, reason: 'Unregistered', local: false };

/** A connection that a test answers and breaks by hand. */
class FakeConnection {
  readonly routingId: string;
  state = 'up';
  isClosed = false;
  readonly sent: [string, ...(string | Uint8Array)[]][] = [];
  readonly requests: {
    command: string;
    parts: readonly Buffer[];
    timeout: number;
    answer: (parts: Buffer[]) => void;
    fail: (error: Error) => void;
  }[] = [];

  constructor(routingId: Buffer) {
    this.routingId = routingId.toString('latin1');
  }

  send(command: string, ...parts: (string | Uint8Array)[]): boolean {
    this.sent.push([command, ...parts]);
    return this.state === 'up';
  }

  request(command: string, parts: readonly Buffer[], timeout: number): Promise<Buffer[]> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
    this.requests.push({ command, parts, timeout, answer: resolve, fail: reject });
    return promise;
  }

  close(): void {
    this.isClosed = true;
  }
}

function setUp(options: Partial<HivemindLinkOptions> = {}) {
  const clock = new FakeClock();
  const { log, lines } = keepLog();
  const connections: FakeConnection[] = [];
  const states: string[] = [];
  const link: HivemindLink = new HivemindLink({
    clock,
    // Half of what it may be.
    random: (bytes) => Buffer.alloc(bytes, bytes === 4 ? Buffer.from([0, 0, 0, 0x80]) : 1),
    service: 'toy',
    instance: INSTANCE,
    window: () => 1_000,
    log,
    say: repeated(log, clock),
    address: ADDRESS,
    isGiven: true,
    label: '',
    originalId: ORIGINAL,
    connect: (_link, routingId) => {
      connections.push(new FakeConnection(routingId));
      return connections.at(-1) as unknown as Connection;
    },
    changed: () => states.push(link.state),
    registered: () => states.push('registered'),
    ...options,
  });
  const last = () => connections.at(-1)!;
  const shakeHands = () => link.onHandshake(last() as unknown as Connection);
  /** What the hivemind answers to the request that waits. */
  const answer = async (result: Buffer[] | Error) => {
    const request = last().requests.at(-1)!;
    if (result instanceof Error) request.fail(result);
    else request.answer(result);
    await clock.advance(0);
  };
  const register = async (result: Buffer[] | Error = OK) => {
    shakeHands();
    await answer(result);
  };
  const said = (text: string) => lines.filter((line) => line.includes(text)).length;
  return { clock, link, connections, last, states, shakeHands, answer, register, said };
}

const unknown = () => new OxenmqError('UNKNOWNCOMMAND', 'no such command');
const asRemote = (connection: FakeConnection | undefined) => connection as unknown as Connection;

test('at the first handshake it asks at once to be registered, and is when that is answered', async () => {
  const { link, connections, last, states, shakeHands, answer, said } = setUp();
  assert.deepEqual([link.state, link.registered, link.address, link.isGiven], ['new', false, ADDRESS, true]);
  assert.equal(last().routingId, `N${'\x01'.repeat(16)}`);
  shakeHands();
  const [{ command, parts, timeout }] = last().requests as [(typeof connections)[0]['requests'][0]];
  assert.deepEqual([command, timeout], ['admin.register_notifier', 10_000]);
  assert.deepEqual(decodeRegistration(parts[0]!), {
    service: 'toy',
    instance: INSTANCE,
    window: 1_000,
    validatesMany: true,
  });
  assert.equal(link.registered, false);
  await answer(OK);
  assert.deepEqual([link.state, link.registered, link.dialect, link.problem], ['up', true, 'ours', undefined]);
  assert.deepEqual(states, ['up', 'registered']);
  assert.equal(said('registered with the hivemind'), 1);
});

test('it registers again with each ping, one question at a time, and says so once', async () => {
  const { link, last, answer, register, said } = setUp();
  await register();
  link.ping();
  link.ping();
  assert.equal(last().requests.length, 2);
  await answer(OK);
  link.ping();
  assert.equal(last().requests.length, 3);
  await answer(OK);
  last().state = 'down';
  link.ping();
  assert.equal(last().requests.length, 3);
  assert.equal(said('registered with'), 1);
});

test('it learns the names and addresses of a cluster, and forgets them when the hivemind is alone', async () => {
  const { link, answer, register, said } = setUp({ label: 'at a' });
  assert.equal(link.who, 'the hivemind at a');
  const members = [
    { name: 'a', address: 'tcp://127.0.0.1:01' },
    { name: 'b', address: 'nowhere' },
  ];
  await register([...OK, encodeMembers({ own: 'a', members })]);
  const learnt = () => [link.name, link.members, link.who];
  const known = [
    'a',
    [
      { name: 'a', address: 'tcp://127.0.0.1:1' },
      { name: 'b', address: '' },
    ],
    'the hivemind a',
  ];
  assert.deepEqual(learnt(), known);
  link.ping();
  await answer([...OK, Buffer.from('rubbish')]);
  assert.deepEqual(
    [link.registered, said('the list of other hiveminds from the hivemind a cannot be read')],
    [true, 1],
  );
  assert.deepEqual(learnt(), known);
  link.ping();
  await answer(OK);
  assert.deepEqual(learnt(), [undefined, [], 'the hivemind at a']);
});

test('after a break it registers again within 200 ms, and until then nothing goes there', async () => {
  const { clock, link, last, states, shakeHands, answer, register, said } = setUp();
  await register();
  assert.equal(link.deviceGone(GONE), true);
  states.length = 0;
  link.onDisconnect(asRemote(last()));
  assert.deepEqual([link.state, link.registered, link.problem], ['down', false, 'the connection broke']);
  assert.equal(said('lost the hivemind; waiting for it to come back'), 1);
  assert.equal(link.deviceGone(GONE), false);
  shakeHands();
  assert.equal(link.problem, undefined);
  await clock.advance(99);
  assert.equal(last().requests.length, 1);
  await clock.advance(1);
  assert.equal(last().requests.length, 2);
  await answer(OK);
  assert.deepEqual(states, ['down', 'up', 'registered']);
});

test('a break while the registration is under way, or while it waits to be made, leads to a new one', async () => {
  const { clock, link, last, states, shakeHands, said } = setUp();
  shakeHands();
  link.onDisconnect(asRemote(last()));
  assert.deepEqual([link.state, states, said('lost')], ['new', ['new'], 0], 'there was none to be lost');
  shakeHands();
  link.onDisconnect(asRemote(last()));
  await clock.advance(1_000);
  assert.equal(last().requests.length, 1);
  shakeHands();
  await clock.advance(50);
  shakeHands();
  await clock.advance(99);
  assert.equal(last().requests.length, 1, 'the wait begins anew');
  await clock.advance(1);
  assert.equal(last().requests.length, 2);
});

test('a registration that the end of its connection overtakes was not refused: that end is the problem', async () => {
  const { link, last, states, answer, register, said } = setUp();
  await register();
  states.length = 0;
  link.ping();
  link.onDisconnect(asRemote(last()));
  await answer(new OxenmqError('UNREACHABLE', 'the connection broke'));
  assert.deepEqual([link.state, link.problem, states], ['down', 'the connection broke', ['down']]);
  const other = setUp();
  await other.register();
  other.link.ping();
  other.link.onFailure(asRemote(other.last()), 'BYE');
  await other.answer(new OxenmqError('UNREACHABLE', 'BYE'));
  assert.deepEqual([other.link.state, other.link.problem], ['failed', 'BYE']);
  assert.deepEqual([said('did not accept'), other.said('did not accept')], [0, 0]);
});

test('a registration that is refused is a problem, and is asked for again with the next ping', async () => {
  const { link, last, states, answer, register, said } = setUp();
  await register(new OxenmqError('TIMEOUT', 'no reply'));
  assert.deepEqual([link.state, link.problem], ['failed', 'it does not accept the registration']);
  assert.equal(said('the hivemind did not accept the registration; trying again'), 1);
  assert.deepEqual(states, ['failed']);
  link.ping();
  assert.equal(last().requests.length, 2);
  await answer(OK);
  assert.deepEqual([link.state, link.problem], ['up', undefined]);
});

test('a connection that is given up is made anew within two seconds', async () => {
  const { clock, link, connections, last, register, said } = setUp();
  await register();
  link.onFailure(asRemote(last()), 'no HELLO');
  assert.deepEqual([link.state, link.problem], ['failed', 'no HELLO']);
  assert.equal(said('no connection to the hivemind; trying again'), 1);
  await clock.advance(1_499);
  assert.equal(connections.length, 1);
  await clock.advance(1);
  assert.deepEqual(
    connections.map(({ isClosed }) => isClosed),
    [true, false],
  );
  assert.equal(link.problem, 'no HELLO');
  await register();
  assert.equal(link.registered, true);
  // What still comes of the earlier one is nothing to this.
  link.onFailure(asRemote(connections[0]), 'late');
  link.onDisconnect(asRemote(connections[0]));
  link.onHandshake(asRemote(connections[0]));
  assert.deepEqual([link.registered, link.problem], [true, undefined]);
});

test('an answer over a connection that is no longer ours does not count', async () => {
  for (const result of [OK, new OxenmqError('CLOSED', 'closed'), unknown()]) {
    const { clock, link, connections, last, states, shakeHands, said } = setUp();
    shakeHands();
    const [{ answer, fail }] = last().requests as [FakeConnection['requests'][0]];
    link.onFailure(asRemote(last()), 'BYE');
    await clock.advance(1_500);
    if (result instanceof Error) fail(result);
    else answer(result);
    await clock.advance(0);
    assert.deepEqual([link.state, connections.length, said('did not accept')], ['failed', 2, 0]);
    assert.deepEqual(states, ['failed', 'failed']);
  }
});

test('with a hivemind of the original kind it connects as the original does, and speaks as that', async () => {
  const { clock, link, connections, last, states, shakeHands, register, said } = setUp();
  await register(unknown());
  assert.deepEqual(
    connections.map(({ routingId, isClosed }) => [routingId[0], isClosed]),
    [
      ['N', true],
      ['L', false],
    ],
  );
  assert.deepEqual([last().routingId, link.dialect, link.registered], ['Lkey', 'original', false]);
  link.ping();
  assert.deepEqual(last().sent, [], 'not before the handshake');
  shakeHands();
  assert.deepEqual([last().sent, link.registered], [[['admin.register_service', 'toy']], true]);
  assert.deepEqual(states, ['new', 'up', 'registered']);
  assert.equal(said('registered with a hivemind of the original kind: pushes are not acknowledged'), 1);
  link.ping();
  assert.deepEqual(last().sent.splice(0), [
    ['admin.register_service', 'toy'],
    ['admin.register_service', 'toy'],
  ]);
  assert.equal(link.deviceGone(GONE), true);
  const [[command, service, ids]] = last().sent.splice(0) as [[string, string, Uint8Array]];
  assert.deepEqual(
    [command, service, decodeDropRegistrations(ids)],
    ['admin.drop_registrations', 'toy', [GONE.serviceId]],
  );
  link.acknowledgements.take(7);
  link.acknowledgements.end(7, 'accepted');
  assert.equal(link.acknowledgements.flush(), true);
  assert.equal(await link.unregister(1_000), false);
  assert.deepEqual([last().sent, last().requests], [[], []]);
  assert.equal(clock.pending, 0);
});

test('when a hivemind of the original kind comes back it is first asked whether it is one of ours', async () => {
  const { clock, link, connections, last, states, shakeHands, register } = setUp();
  await register(unknown());
  shakeHands();
  link.onDisconnect(asRemote(last()));
  link.ping();
  assert.equal(last().sent.length, 1, 'it is not ours to register with before that');
  shakeHands();
  shakeHands();
  await clock.advance(200);
  assert.deepEqual([connections.length, last().requests.length], [3, 0], 'once, and not before that one is there');
  assert.deepEqual([last().routingId[0], link.dialect, link.state], ['N', 'ours', 'down']);
  await register();
  assert.deepEqual(states, ['new', 'up', 'registered', 'down', 'down', 'up', 'registered']);
});

test('a name that was learned is forgotten where a hivemind of the original kind has taken its place', async () => {
  const { link, answer, register, shakeHands } = setUp();
  await register([...OK, encodeMembers({ own: 'a', members: [{ name: 'a', address: ADDRESS }] })]);
  link.ping();
  await answer(unknown());
  assert.equal(link.state, 'down');
  shakeHands();
  assert.deepEqual([link.name, link.members, link.state], [undefined, [], 'up']);
});

test('ends of pushes, dead devices and statistics go to it as they are', async () => {
  const { clock, link, last, register } = setUp();
  link.acknowledgements.take(7);
  link.acknowledgements.end(7, 'accepted');
  assert.equal(link.acknowledgements.flush(), false, 'not registered yet');
  assert.deepEqual(last().sent, []);
  await register();
  await clock.advance(250);
  const [[command, report]] = last().sent.splice(0) as [[string, Uint8Array]];
  assert.equal(command, 'admin.push_report');
  assert.deepEqual(decodePushReport(report), {
    service: 'toy',
    accepted: [7],
    refused: [],
    handedBack: [],
    answers: [],
  });
  link.deviceGone(GONE);
  const [[goneCommand, gone]] = last().sent.splice(0) as [[string, Uint8Array]];
  assert.equal(goneCommand, 'admin.device_gone');
  assert.deepEqual(decodeDeviceGone(gone), { service: 'toy', ...GONE });
  const dict = Buffer.from('de');
  assert.equal(link.sendStatistics(dict), true);
  assert.deepEqual(last().sent, [['admin.service_stats', 'toy', dict]]);
});

test('signing off asks for no more pushes, and from then on nothing is registered', async () => {
  const { link, last, answer, register, states, shakeHands } = setUp();
  await register();
  const signedOff = link.unregister(1_234);
  const { command, parts, timeout } = last().requests.at(-1)!;
  assert.deepEqual(
    [command, decodeRegistration(parts[0]!).instance, timeout],
    ['admin.unregister_notifier', INSTANCE, 1_234],
  );
  await answer(OK);
  assert.equal(await signedOff, true);
  link.ping();
  assert.equal(last().requests.length, 2);

  const silent = setUp();
  await silent.register();
  const inVain = silent.link.unregister(1_000);
  await silent.answer(new OxenmqError('TIMEOUT', 'no reply'));
  assert.equal(await inVain, false);

  const never = setUp();
  assert.equal(await never.link.unregister(1_000), false);
  never.shakeHands();
  assert.equal(never.last().requests.length, 0);
  shakeHands();
  assert.deepEqual(states, ['up', 'registered']);
});

test('a registration that is answered after signing off does not count', async () => {
  const { link, answer, shakeHands, states } = setUp();
  shakeHands();
  assert.equal(await link.unregister(1_000), false);
  await answer(OK);
  assert.deepEqual([link.state, states], ['new', []]);
});

test('a hivemind of the original kind is not registered with after signing off', async () => {
  const { link, last, register, shakeHands } = setUp();
  await register(unknown());
  await link.unregister(1_000);
  shakeHands();
  assert.deepEqual([last().sent, link.registered], [[], false]);
});

test('once closed it does nothing any more, whatever still comes', async () => {
  for (const result of [OK, new OxenmqError('CLOSED', 'closed'), unknown()]) {
    const { clock, link, connections, last, states, shakeHands, answer, said } = setUp();
    link.acknowledgements.take(7);
    link.acknowledgements.end(7, 'accepted');
    shakeHands();
    link.close();
    await answer(result);
    link.onHandshake(asRemote(last()));
    link.onDisconnect(asRemote(last()));
    link.onFailure(asRemote(last()), 'BYE');
    assert.deepEqual([connections.length, last().isClosed, states, clock.pending], [1, true, [], 0]);
    assert.deepEqual([last().requests.length, said('hivemind')], [1, 0]);
  }
  const { clock, link, last } = setUp();
  link.onFailure(asRemote(last()), 'BYE');
  link.close();
  await clock.advance(3_600_000);
  assert.equal(clock.pending, 0);
});
