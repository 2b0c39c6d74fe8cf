import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Oxend, type OxendConnection, type OxendEvents } from '../../../src/hivemind/network/oxend.ts';
import { OxenmqError } from '../../../src/oxenmq/remote.ts';
import { SERVICE_NODES_REQUEST } from '../../../src/session/service-nodes.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;

function list(height: number): Buffer[] {
  const node = { pubkey_x25519: 'ab'.repeat(32), public_ip: '10.0.0.1', storage_lmq_port: 22020, swarm_id: 7 };
  const answer = { height, block_hash: 'cd'.repeat(32), service_node_states: [node], status: 'OK' };
  return [Buffer.from('200'), Buffer.from(JSON.stringify(answer))];
}

/** An oxend of which a test decides what it answers. */
function setUp(jitter = 1) {
  const clock = new FakeClock();
  const calls: { command: string; parts: readonly string[]; at: number }[] = [];
  const heights: number[] = [];
  const warnings: string[] = [];
  const state = {
    height: 100,
    connects: 0,
    closed: 0,
    events: undefined as OxendEvents | undefined,
    subscribe: async (): Promise<Buffer[]> => [Buffer.from('OK')],
    nodes: async (): Promise<Buffer[]> => list(state.height),
    onList: (): string | undefined => undefined,
    defer: (work: () => void): void => work(),
  };
  const oxend = new Oxend({
    clock,
    jitter: () => jitter,
    connect: (events): OxendConnection => {
      state.connects++;
      state.events = events;
      return {
        request: (command, parts) => {
          calls.push({ command, parts, at: clock.monotonic() });
          return command === 'sub.block' ? state.subscribe() : state.nodes();
        },
        close: () => state.closed++,
      };
    },
    onList: (nodes) => {
      const doubt = state.onList();
      if (doubt === undefined) heights.push(nodes.height);
      return doubt;
    },
    defer: (work) => state.defer(work),
    log: { info: () => {}, warn: (text) => warnings.push(text) },
  });
  const count = (command: string) => calls.filter((call) => call.command === command).length;
  return { clock, calls, heights, warnings, state, oxend, count };
}

/** The same, started and connected. */
async function connected() {
  const all = setUp();
  all.oxend.start();
  all.state.events!.up();
  await all.clock.advance(0);
  return all;
}

test('before oxend has told anything, nothing is known of the network', () => {
  const { oxend } = setUp();
  assert.deepEqual(
    [oxend.up, oxend.doubted, oxend.problem, oxend.height, oxend.blockHash],
    [false, false, 'not connected yet', -1, ''],
  );
});

test('on connecting, sub.block goes first and then the list is requested', async () => {
  const { calls, heights, oxend } = await connected();
  assert.deepEqual(
    calls.map(({ command, parts }) => [command, ...parts]),
    [['sub.block'], ['rpc.get_service_nodes', SERVICE_NODES_REQUEST]],
  );
  assert.deepEqual(heights, [100]);
  assert.equal(oxend.up, true);
  assert.equal(oxend.height, 100);
  assert.equal(oxend.blockHash, 'cd'.repeat(32));
});

test('a list is taken over in another turn of the event loop than it is read in, unless we have stopped meanwhile', async () => {
  const { clock, heights, oxend, state } = await connected();
  let deferred: () => void = () => assert.fail('nothing was deferred');
  state.defer = (work) => {
    deferred = work;
  };
  const defer = async () => {
    deferred();
    await clock.advance(0);
  };
  state.height = 101;
  oxend.refresh();
  await clock.advance(0);
  assert.deepEqual(heights, [100]);
  // What is deferred while replies are read still comes in the same turn.
  await defer();
  assert.deepEqual(heights, [100]);
  await defer();
  assert.deepEqual(heights, [100, 101]);

  state.height = 102;
  oxend.refresh();
  await clock.advance(0);
  await defer();
  oxend.stop();
  await defer();
  assert.deepEqual([heights, oxend.height], [[100, 101], 101]);
});

test('sub.block is repeated at least every 10 minutes', async () => {
  const { clock, calls, state } = await connected();
  state.subscribe = async () => [Buffer.from('ALREADY')];
  await clock.advance(60 * MINUTE);
  const times = calls.filter(({ command }) => command === 'sub.block').map(({ at }) => at);
  assert.ok(times.length >= 7);
  for (let i = 1; i < times.length; i++) assert.ok(times[i]! - times[i - 1]! <= 10 * MINUTE);
});

test('a block leads to a refresh at once', async () => {
  const { clock, heights, oxend, state } = await connected();
  state.height = 101;
  oxend.block();
  await clock.advance(0);
  assert.deepEqual(heights, [100, 101]);
  assert.equal(oxend.counters.lists, 2);
});

test('many blocks while a request is in flight lead to one more request', async () => {
  const { clock, oxend, state, count } = await connected();
  let answer: (reply: Buffer[]) => void = () => {};
  state.nodes = () => new Promise((resolve) => (answer = resolve));
  for (let i = 0; i < 50; i++) oxend.block();
  await clock.advance(0);
  assert.equal(count('rpc.get_service_nodes'), 2);
  answer(list(101));
  await clock.advance(0);
  assert.equal(count('rpc.get_service_nodes'), 3);
  answer(list(102));
  await clock.advance(0);
  assert.equal(count('rpc.get_service_nodes'), 3);
  assert.equal(oxend.height, 102);
});

test('OK instead of ALREADY means that blocks were missed: the list is requested', async () => {
  const { clock, oxend, count } = await connected();
  await clock.advance(5 * MINUTE);
  const before = count('rpc.get_service_nodes');
  await clock.advance(4 * MINUTE + SECOND);
  assert.equal(oxend.counters.lostSubscriptions, 1);
  assert.equal(count('rpc.get_service_nodes'), before + 1);
});

test('the list is requested periodically without any block', async () => {
  const { clock, state, count } = await connected();
  state.subscribe = async () => [Buffer.from('ALREADY')];
  await clock.advance(60 * MINUTE);
  assert.ok(count('rpc.get_service_nodes') >= 12);
  assert.ok(count('rpc.get_service_nodes') <= 15);
});

test('wrong answers keep the old state, are counted, and are retried with back-off', async () => {
  const wrong: (() => Promise<Buffer[]>)[] = [
    async () => [],
    async () => [Buffer.from('200')],
    async () => [Buffer.from('400'), Buffer.from('Unable to parse request')],
    async () => [Buffer.from('200'), Buffer.from('{')],
    async () => [Buffer.from('200'), Buffer.from('{"service_node_states": 7}')],
    async () => {
      throw new OxenmqError('FORBIDDEN', 'not for you');
    },
  ];
  for (const nodes of wrong) {
    const { clock, heights, oxend, state, count } = await connected();
    state.nodes = nodes;
    const before = count('rpc.get_service_nodes');
    oxend.block();
    await clock.advance(0);
    await clock.advance(2 * MINUTE);
    assert.deepEqual(heights, [100]);
    assert.equal(oxend.height, 100);
    assert.equal(oxend.up, false);
    assert.notEqual(oxend.problem, '');
    const attempts = count('rpc.get_service_nodes') - before;
    assert.ok(attempts >= 5 && attempts <= 9, `${attempts} attempts in two minutes`);
    assert.equal(oxend.counters.wrongAnswers, attempts);
    state.nodes = async () => list(103);
    await clock.advance(MINUTE);
    assert.deepEqual(heights, [100, 103]);
    assert.equal(oxend.up, true);
  }
});

test('a list that its recipient refuses is a wrong answer', async () => {
  const { clock, oxend, state } = await connected();
  state.onList = () => {
    throw new Error('no storage server in the list');
  };
  state.height = 200;
  oxend.block();
  await clock.advance(0);
  assert.equal(oxend.height, 100);
  assert.equal(oxend.problem, 'no storage server in the list');
});

test('timeouts are counted separately', async () => {
  const { clock, oxend, state } = await connected();
  state.nodes = async () => {
    throw new OxenmqError('TIMEOUT', 'no reply');
  };
  oxend.block();
  await clock.advance(0);
  assert.equal(oxend.counters.timeouts, 1);
});

test('a failed sub.block is repeated soon, and the list is requested nevertheless', async () => {
  const { clock, oxend, state, count } = setUp();
  state.subscribe = async () => [Buffer.from('what?')];
  oxend.start();
  state.events!.up();
  await clock.advance(0);
  assert.equal(oxend.height, 100);
  await clock.advance(20 * SECOND);
  assert.ok(count('sub.block') >= 4);
});

test('after a loss and a new handshake it subscribes and requests the list anew', async () => {
  const { clock, heights, oxend, state, count } = await connected();
  state.events!.down();
  assert.equal(oxend.up, false);
  assert.equal(oxend.problem, 'the connection is lost');
  await clock.advance(30 * MINUTE);
  assert.equal(count('sub.block'), 1);
  state.events!.up();
  await clock.advance(0);
  assert.equal(count('sub.block'), 2);
  assert.deepEqual(heights, [100, 100]);
});

test('however often it shakes hands, sub.block and the list are repeated at the same pace', async () => {
  const { clock, state, count } = await connected();
  state.subscribe = async () => [Buffer.from('ALREADY')];
  for (let n = 0; n < 5; n++) {
    state.events!.up();
    await clock.advance(0);
  }
  assert.equal(clock.pending, 2);
  const [subscribed, asked] = [count('sub.block'), count('rpc.get_service_nodes')];
  await clock.advance(9 * MINUTE);
  assert.equal(count('sub.block') - subscribed, 1);
  assert.ok(count('rpc.get_service_nodes') - asked <= 2);
});

test('a handshake while sub.block is unanswered leads to another sub.block', async () => {
  const { clock, oxend, state, count } = setUp();
  let fail: (error: Error) => void = () => {};
  state.subscribe = () => new Promise((_, reject) => (fail = reject));
  oxend.start();
  state.events!.up();
  state.events!.down();
  state.events!.up();
  await clock.advance(0);
  assert.equal(count('sub.block'), 1, 'one question at a time');
  state.subscribe = async () => [Buffer.from('OK')];
  fail(new OxenmqError('UNREACHABLE', 'the connection broke'));
  await clock.advance(0);
  assert.equal(count('sub.block'), 2);
  assert.equal(oxend.up, true);
  assert.equal(oxend.counters.lostSubscriptions, 0, 'it is the first of this handshake');
});

test('what fails because the connection broke is no wrong answer, and nothing is said of it', async () => {
  for (const isBack of [false, true]) {
    const { clock, oxend, state, warnings } = setUp();
    const fail: ((error: Error) => void)[] = [];
    const hang = () => new Promise<Buffer[]>((_, reject) => fail.push(reject));
    oxend.start();
    state.events!.up();
    await clock.advance(0);
    Object.assign(state, { subscribe: hang, nodes: hang });
    oxend.refresh();
    await clock.advance(9 * MINUTE);
    assert.equal(fail.length, 2);
    state.events!.down();
    if (isBack) state.events!.up();
    for (const one of fail.splice(0)) one(new OxenmqError('UNREACHABLE', 'the connection broke'));
    await clock.advance(0);
    assert.deepEqual([oxend.counters.wrongAnswers, oxend.problem], [0, 'the connection is lost']);
    assert.equal(warnings.length, 1, warnings.join());
    oxend.stop();
  }
});

test('oxend may be absent for as long as it likes: it is retried again and again, and that is logged once in a while', async () => {
  const { clock, oxend, state, warnings } = setUp();
  oxend.start();
  for (let i = 0; i < 360; i++) {
    // Each attempt fails after 10 seconds, the next comes within 10 more.
    await clock.advance(10 * SECOND);
    state.events!.failed('no HELLO within 10000 ms', false);
    await clock.advance(10 * SECOND);
    assert.equal(state.connects, i + 2);
  }
  assert.equal(oxend.counters.failures, 360);
  assert.ok(warnings.length >= 20 && warnings.length <= 30, `${warnings.length} warnings in two hours`);
  assert.match(warnings[0]!, /no HELLO within 10000 ms; waiting for it/);
  state.events!.up();
  await clock.advance(0);
  assert.equal(oxend.up, true);
});

test('what goes on is said with the height of the last list, from the first block on', async () => {
  const { clock, oxend, state, warnings } = setUp();
  state.height = 0;
  oxend.start();
  state.events!.up();
  await clock.advance(0);
  state.events!.down();
  assert.deepEqual(warnings, ['oxend: the connection is lost; going on with the network as of height 0']);
});

test('a connection that cannot even be attempted is retried', async () => {
  const clock = new FakeClock();
  let attempts = 0;
  const oxend = new Oxend({
    clock,
    jitter: () => 1,
    connect: () => {
      attempts++;
      throw new Error('bad address');
    },
    onList: () => undefined,
    defer: (work) => work(),
    log: { info: () => {}, warn: () => {} },
  });
  oxend.start();
  await clock.advance(MINUTE);
  assert.ok(attempts > 4);
  assert.equal(oxend.problem, 'bad address');
  oxend.stop();
  assert.equal(clock.pending, 0);
});

test('once stopped, it leaves no timer and no connection, and late answers do nothing', async () => {
  const { clock, heights, oxend, state } = await connected();
  let answer: (reply: Buffer[]) => void = () => {};
  state.nodes = () => new Promise((resolve) => (answer = resolve));
  oxend.block();
  oxend.stop();
  answer(list(101));
  await clock.advance(60 * MINUTE);
  assert.deepEqual(heights, [100]);
  assert.equal(clock.pending, 0);
  assert.equal(state.closed, 1);
});

test('a list that is not believed is reported, leaves what was known, and is requested again soon', async () => {
  const { clock, heights, oxend, state, count, warnings } = await connected();
  state.onList = () => 'the list is not believed yet: 1 of 40 swarms are left in it';
  state.height = 101;
  const before = count('rpc.get_service_nodes');
  oxend.block();
  await clock.advance(0);
  assert.deepEqual(heights, [100]);
  assert.equal(oxend.height, 100);
  assert.equal(oxend.doubted, true);
  assert.equal(oxend.up, true, 'it answers');
  assert.match(oxend.problem, /1 of 40 swarms/);
  assert.match(warnings[0]!, /1 of 40 swarms are left in it; going on with the network as of height 100/);
  await clock.advance(10 * MINUTE);
  const attempts = count('rpc.get_service_nodes') - before;
  assert.ok(attempts >= 12 && attempts <= 24, `${attempts} attempts in ten minutes`);
  assert.equal(oxend.counters.doubted, attempts);
  assert.equal(oxend.counters.wrongAnswers, 0);
  assert.ok(warnings.length <= 3);
  state.onList = () => undefined;
  await clock.advance(MINUTE);
  assert.deepEqual([oxend.doubted, oxend.problem, oxend.height], [false, '', 101]);
});

test('a suspicion about the list makes us request it at once, but at most every ten seconds for all suspicions together', async () => {
  const { clock, oxend, count } = await connected();
  await clock.advance(MINUTE);
  const before = count('rpc.get_service_nodes');
  oxend.suspect();
  await clock.advance(SECOND);
  assert.equal(count('rpc.get_service_nodes'), before + 1);
  for (let i = 0; i < 600; i++) {
    for (let j = 0; j < 100; j++) oxend.suspect();
    await clock.advance(100);
  }
  const asked = count('rpc.get_service_nodes') - before;
  assert.ok(asked >= 5 && asked <= 7, `${asked} times in a minute`);
  oxend.suspect();
  await clock.advance(20 * SECOND);
  assert.ok(count('rpc.get_service_nodes') > before + asked, 'the last suspicion is not lost');
  oxend.suspect();
  oxend.stop();
  assert.equal(clock.pending, 0);
});

test('an oxend that was cut off is left alone for a minute', async () => {
  const { clock, oxend, state } = await connected();
  oxend.suspect();
  state.events!.failed('the peer sent a message of 1000 parts', true);
  assert.equal(clock.pending, 1, 'the next attempt alone');
  assert.equal(oxend.problem, 'the peer sent a message of 1000 parts');
  await clock.advance(59 * SECOND);
  assert.equal(state.connects, 1);
  await clock.advance(3 * SECOND);
  assert.equal(state.connects, 2);
});

test('it asks earlier by a part of its jitter, so that not all hiveminds ask oxend at once', async () => {
  for (const [jitter, share] of [
    [0, 0.9],
    [0.5, 0.95],
  ] as const) {
    const { clock, calls, oxend, state } = setUp(jitter);
    state.subscribe = async () => [Buffer.from('ALREADY')];
    oxend.start();
    state.events!.up();
    await clock.advance(0);
    await clock.advance(20 * MINUTE);
    const times = (of: string) => calls.filter(({ command }) => command === of).map(({ at }) => Math.round(at));
    const every = (minutes: number) => [0, 1, 2].map((n) => Math.round(n * share * minutes * MINUTE));
    assert.deepEqual(times('sub.block'), every(9));
    assert.deepEqual(times('rpc.get_service_nodes').slice(0, 3), every(5));
  }
});

test('after a failure it waits a second, then twice as long each time up to a minute, and by its jitter down to half of that', async () => {
  for (const jitter of [0, 0.5]) {
    const share = 0.5 + jitter / 2;
    const { clock, calls, oxend, state } = setUp(jitter);
    state.nodes = async () => [Buffer.from('500')];
    oxend.start();
    state.events!.up();
    await clock.advance(0);
    await clock.advance(4 * MINUTE);
    const times = calls.filter(({ command }) => command === 'rpc.get_service_nodes').map(({ at }) => at);
    const waits = times.slice(1).map((at, n) => at - times[n]!);
    assert.deepEqual(
      waits.slice(0, 8),
      [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * SECOND * share),
    );
  }
});

test('it connects again within ten seconds, and a suspicion waits up to a second more', async () => {
  const { clock, calls, oxend, state } = setUp(0.5);
  oxend.start();
  const waits: number[] = [];
  for (let n = 0; n < 6; n++) {
    const [failedAt, connects] = [clock.monotonic(), state.connects];
    state.events!.failed('no HELLO', false);
    for (let step = 0; state.connects === connects && step < 100; step++) await clock.advance(250);
    waits.push(clock.monotonic() - failedAt);
  }
  assert.deepEqual(waits, [750, 1_500, 3_000, 6_000, 7_500, 7_500]);
  state.events!.up();
  await clock.advance(0);
  await clock.advance(20 * SECOND);
  const suspectedAt = clock.monotonic();
  oxend.suspect();
  await clock.advance(SECOND);
  assert.equal(calls.at(-1)!.at - suspectedAt, 500);
});

test('what oxend tells, and what it fails to, is counted', async () => {
  const none = {
    blocks: 0,
    lists: 0,
    doubted: 0,
    suspected: 0,
    wrongAnswers: 0,
    timeouts: 0,
    subscribes: 0,
    lostSubscriptions: 0,
    failures: 0,
  };
  assert.deepEqual(setUp().oxend.counters, none);
  const { clock, oxend, state } = await connected();
  assert.deepEqual(oxend.counters, { ...none, subscribes: 1, lists: 1 });
  oxend.block();
  await clock.advance(MINUTE);
  oxend.suspect();
  oxend.suspect();
  await clock.advance(MINUTE);
  state.onList = () => 'doubted';
  oxend.refresh();
  await clock.advance(0);
  const since = { ...none, subscribes: 1, lists: 3, blocks: 1, suspected: 1, doubted: 1 };
  assert.deepEqual(oxend.counters, since);
  state.nodes = async () => [];
  oxend.refresh();
  await clock.advance(0);
  state.events!.failed('BYE', false);
  assert.deepEqual(oxend.counters, { ...since, wrongAnswers: 1, failures: 1 });
});

test('what still comes of an earlier connection does not count', async () => {
  const { clock, calls, oxend, state } = setUp();
  oxend.start();
  const earlier = state.events!;
  earlier.failed('no HELLO', false);
  await clock.advance(2 * SECOND);
  assert.equal(state.connects, 2);
  earlier.up();
  earlier.down();
  earlier.failed('late', true);
  await clock.advance(0);
  assert.deepEqual([calls.length, oxend.up, oxend.problem, oxend.counters.failures], [0, false, 'no HELLO', 1]);
  state.events!.up();
  await clock.advance(0);
  earlier.down();
  assert.equal(oxend.up, true);
});
