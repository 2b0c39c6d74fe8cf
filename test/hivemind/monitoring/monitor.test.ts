import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeAccounts, refusal, SUCCESS } from './support/fake-accounts.ts';
import { type Behaviour, FakeNetwork, type FakeServer, seeded, willing } from './support/fake-network.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const SWARM = 2n ** 63n;

/** One swarm, with so many accounts and servers, all of which are connected. */
function network(size: { accounts: number; servers: number; padding?: number; interval?: number; seed?: number }) {
  const accounts = new FakeAccounts(size.padding);
  for (let i = 0; i < size.accounts; i++) accounts.add();
  const net = new FakeNetwork(accounts, size);
  const servers = Array.from({ length: size.servers }, () => net.add(SWARM));
  net.publish();
  net.clock.run(5 * SECOND);
  return { net, accounts, servers, clock: net.clock, monitoring: net.monitoring };
}

/** When each account was asked for, by its number. */
function asked(server: FakeServer): Map<number, number[]> {
  const times = new Map<number, number[]>();
  for (const { at, elements } of server.log) {
    for (const { account } of elements) times.set(account, [...(times.get(account) ?? []), at]);
  }
  return times;
}

test('a new subscription reaches all servers of its swarm within 200 ms', () => {
  const { accounts, servers, clock } = network({ accounts: 10, servers: 7 });
  const number = accounts.add();
  clock.run(200);
  for (const server of servers) assert.ok(server.monitorsAccount(number, 1));
});

test('subscriptions that come within a few milliseconds share a request', () => {
  const { accounts, servers, clock } = network({ accounts: 10, servers: 3 });
  const before = servers.map((server) => server.log.length);
  for (let i = 0; i < 50; i++) {
    accounts.add();
    if (i % 10 === 9) clock.run(2);
  }
  clock.run(200);
  assert.deepEqual(
    servers.map((server, i) => server.log.length - before[i]!),
    [1, 1, 1],
  );
});

test('a changed subscription is asked for again within 200 ms', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 2 });
  accounts.change(1);
  clock.run(200);
  for (const server of servers) assert.ok(server.monitorsAccount(1, 2));
});

test('a different signature for what a server has confirmed waits for its renewal, and goes at once to one that has not confirmed it', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 2 });
  const [first, second] = servers as [FakeServer, FakeServer];
  second.behave = (request) =>
    Buffer.from(`l${request.map(({ ref }) => (ref === 1000 ? refusal(5) : SUCCESS)).join('')}e`);
  second.breakConnection(20, true);
  clock.run(5 * SECOND);
  assert.deepEqual([first.monitorsAccount(1, 1), second.monitorsAccount(1, 1)], [true, false]);
  const requests = first.log.length;
  accounts.change(1, [[1001]], false);
  clock.run(200);
  assert.ok(second.monitorsAccount(1, 2));
  assert.equal(first.log.length, requests);
  clock.run(56 * MINUTE);
  assert.ok(first.monitorsAccount(1, 2), 'asked by the new signature');
});

test('an account that changes all the time is asked for only now and then, and no other waits for it', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 1 });
  const [server] = servers as [FakeServer];
  const times = () => asked(server).get(1)!.length;
  const before = times();
  for (let n = 0; n < 6000; n++) {
    accounts.change(1);
    clock.run(100);
  }
  assert.ok(times() - before <= 4 + 600 / 15 + 1, `asked for ${times() - before} times in 600 s`);
  accounts.change(2);
  clock.run(200);
  assert.ok(server.monitorsAccount(2, 2));
  // The last of its changes is not forgotten; and when it has been quiet for a while, it is as good as any other.
  clock.run(16 * SECOND);
  assert.ok(server.monitorsAccount(1, 6001));
  clock.run(5 * MINUTE);
  accounts.change(1);
  clock.run(200);
  assert.ok(server.monitorsAccount(1, 6002));
});

test('an account with a thousand devices, whose requests are large, may change less often', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 1 });
  accounts.devices = 1_000;
  const times = () => asked(servers[0]!).get(1)!.length;
  const before = times();
  for (let n = 0; n < 30 * 60; n++) {
    accounts.change(1);
    clock.run(SECOND);
  }
  assert.ok(times() - before <= 4 + 2 + 1, `asked for ${times() - before} times in half an hour`);
});

test('a change during a request does not count as answered by it', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 1 });
  accounts.change(1);
  clock.run(40); // asked, but not answered
  accounts.change(1);
  clock.run(300);
  assert.ok(servers[0]!.monitorsAccount(1, 3));
});

test('an account that takes over the number of a removed one inherits none of its answers', () => {
  const { accounts, servers, clock } = network({ accounts: 3, servers: 1 });
  accounts.change(1);
  clock.run(40);
  accounts.remove(1);
  const number = accounts.add();
  assert.equal(accounts.idOf(number), 1);
  clock.run(300);
  assert.ok(servers[0]!.monitorsAccount(number, 1));
});

test('a new subscription is asked for beside a large request that is still in flight', () => {
  const { net, accounts, clock } = network({ accounts: 5000, servers: 0, padding: 20 });
  const server = net.add(SWARM);
  server.delay = 5 * SECOND;
  net.publish();
  clock.run(SECOND);
  assert.equal(server.inFlight, 1);
  assert.deepEqual([net.monitoring.counters.sent, net.monitoring.counters.sentUrgent], [1, 0]);
  const number = accounts.add();
  clock.run(100);
  assert.equal(server.inFlight, 2);
  assert.deepEqual([net.monitoring.counters.sent, net.monitoring.counters.sentUrgent], [1, 1]);
  assert.deepEqual(
    server.log.at(-1)!.elements.map(({ account }) => account),
    [number],
  );
});

test('a new subscription that is too large for a small request goes at once with a large one', () => {
  const { accounts, servers, clock, monitoring } = network({ accounts: 1, servers: 1, padding: 70_000 });
  const number = accounts.add();
  clock.run(200);
  assert.ok(servers[0]!.monitorsAccount(number, 1));
  assert.equal(monitoring.counters.sentUrgent, 0);
});

test('what is asked and answered is counted', () => {
  const accounts = new FakeAccounts();
  for (let n = 0; n < 10; n++) accounts.add();
  const net = new FakeNetwork(accounts);
  const counts = () => {
    const { requests, passedOver, sent, sentUrgent, sentBytes, answers, swarms, ended } = net.monitoring.counters;
    return { requests: { ...requests }, passedOver, sent, sentUrgent, sentBytes, answers, swarms, ended };
  };
  const requests = { answered: 0, rejected: 0, unreadable: 0, timeout: 0, failed: 0, late: 0 };
  const none = {
    requests,
    passedOver: { nothing_left: 0, too_large: 0 },
    sent: 0,
    sentUrgent: 0,
    sentBytes: 0,
    answers: { confirmed: 0, refused_timestamp: 0, refused_signature: 0, elsewhere: 0, error: 0 },
    swarms: { recalculations: 0, moved: 0 },
    ended: { taken: 0, moved: 0, unasked: 0, malformed: 0 },
  };
  assert.deepEqual(counts(), none);
  const server = net.add(SWARM);
  net.publish();
  net.clock.run(5 * SECOND);
  const since = {
    ...none,
    requests: { ...requests, answered: 1 },
    sent: 1,
    sentBytes: server.log[0]!.size,
    answers: { ...none.answers, confirmed: 10 },
    swarms: { recalculations: 1, moved: 0 },
  };
  assert.deepEqual(counts(), since);
  const answers: [Behaviour, keyof typeof requests][] = [
    [() => Buffer.from('rubbish'), 'unreadable'],
    [() => undefined, 'timeout'],
  ];
  for (const [behave, outcome] of answers) {
    server.behave = behave;
    const before = net.monitoring.counters.requests[outcome];
    accounts.change(3);
    net.clock.run(16 * SECOND);
    assert.ok(net.monitoring.counters.requests[outcome] > before, outcome);
    server.behave = willing;
    net.clock.run(5 * MINUTE);
  }
  // A connection that breaks while a request is on its way, and one that is another by the time of the answer.
  server.delay = 2 * SECOND;
  accounts.change(3);
  net.clock.run(SECOND);
  server.breakConnection(100, false);
  net.clock.run(MINUTE);
  assert.equal(net.monitoring.counters.requests.late, 1);
});

test('a new subscription that waits for a free request goes as soon as one is answered', () => {
  const { net, accounts, clock } = network({ accounts: 5000, servers: 0, padding: 20 });
  const server = net.add(SWARM);
  server.delay = 12 * SECOND;
  net.publish();
  clock.run(SECOND);
  server.delay = 3 * SECOND;
  const added: number[] = [];
  for (let i = 0; i < 9; i++) {
    added.push(accounts.add());
    clock.run(200);
  }
  assert.deepEqual([server.inFlight, net.monitoring.counters.sentUrgent], [1 + 8, 8]);
  clock.run(3 * SECOND);
  assert.equal(net.monitoring.counters.sentUrgent, 9);
  clock.run(3 * SECOND);
  assert.equal(net.monitoring.counters.sent, 1, 'the large request is still in flight');
  for (const number of added) assert.ok(server.monitorsAccount(number, 1));
});

test('while a server catches up, one request is in flight, of at most 5 MB, and they grow as it keeps up', () => {
  const { net, clock, monitoring } = network({ accounts: 6000, servers: 0, padding: 3000 });
  const server = net.add(SWARM);
  net.publish();
  clock.run(60 * SECOND);
  assert.equal(server.mostInFlight, 1);
  const sizes = server.log.map(({ size }) => size);
  assert.ok(sizes[0]! <= 256 * 1024, `the first has ${sizes[0]} bytes`);
  assert.ok(Math.max(...sizes) <= 5_000_000);
  assert.ok(Math.max(...sizes) > 4_900_000, `the largest has ${Math.max(...sizes)} bytes`);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('nothing more is sent while all servers together have 64 MiB in flight', () => {
  const { net, clock, monitoring } = network({ accounts: 100, servers: 0, padding: 3000 });
  for (let i = 0; i < 600; i++) net.add(SWARM).delay = 9 * SECOND;
  net.publish();
  clock.run(10 * MINUTE);
  const most = 64 * 1024 ** 2;
  assert.ok(net.mostBytesBefore < most, `${net.mostBytesBefore} bytes`);
  assert.ok(net.mostBytesInFlight >= most, `${net.mostBytesInFlight} bytes`);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('renewals come between 45 and 55 minutes after the confirmation, spread over that time', () => {
  const { servers, clock } = network({ accounts: 500, servers: 2 });
  clock.run(180 * MINUTE);
  const gaps: number[] = [];
  for (const server of servers) {
    for (const times of asked(server).values()) {
      for (let i = 1; i < times.length; i++) gaps.push((times[i]! - times[i - 1]!) / MINUTE);
    }
  }
  assert.ok(gaps.length >= 3 * 2 * 500);
  assert.ok(Math.min(...gaps) > 44.9, `${Math.min(...gaps)}`);
  assert.ok(Math.max(...gaps) <= 55, `${Math.max(...gaps)}`);
  for (let from = 45; from < 54; from++) {
    const share = gaps.filter((gap) => gap >= from && gap < from + 1).length / gaps.length;
    assert.ok(share > 0.05 && share < 0.2, `${share} of the renewals between ${from} and ${from + 1} minutes`);
  }
});

test('renewals that fall due within one interval share a request', () => {
  const { servers, clock } = network({ accounts: 1000, servers: 1, interval: 30_000 });
  const before = servers[0]!.log.length;
  clock.run(60 * MINUTE);
  const renewals = servers[0]!.log.slice(before);
  assert.ok(renewals.length < 40, `${renewals.length} requests`);
  assert.equal(servers[0]!.mostInFlight, 1);
});

test('renewals are gathered for a second at least and a minute at most, whatever the setting', () => {
  const times = (interval: number) => {
    const accounts = new FakeAccounts();
    for (let n = 0; n < 3; n++) accounts.add();
    const net = new FakeNetwork(accounts, { interval, jitter: () => 0.999 });
    const server = net.add(SWARM);
    net.publish();
    net.clock.run(120 * MINUTE);
    return server.log.map(({ at }) => at);
  };
  assert.deepEqual(times(60_000), times(3_600_000));
  assert.deepEqual(times(1_000), times(0));
  // Between 45 minutes and, less what they are gathered for, 55.
  assert.equal(times(0)[1], 45 * MINUTE + 598 * SECOND);
});

test('after each handshake everything of the swarm is asked for again at once', () => {
  const { servers, clock, monitoring } = network({ accounts: 100, servers: 2 });
  servers[0]!.breakConnection(3 * SECOND, true);
  clock.run(2 * SECOND);
  assert.equal(monitoring.summary().connected, 1);
  clock.run(1200);
  for (let number = 0; number < 100; number++) assert.ok(servers[0]!.monitorsAccount(number, 1));
  const others = servers[1]!.log.length;
  clock.run(SECOND);
  assert.equal(servers[1]!.log.length, others, 'the other server is left alone');
});

test('a server whose connection breaks again and again is not sent everything each time', () => {
  const { servers, clock, monitoring } = network({ accounts: 100, servers: 1 });
  const [server] = servers as [FakeServer];
  const before = server.log.length;
  for (let i = 0; i < 200; i++) {
    server.breakConnection(100, true);
    clock.run(500);
  }
  assert.ok(server.log.length - before < 15, `${server.log.length - before} requests`);
  clock.run(2 * MINUTE);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('requests are built in slices, one at a time, so that nobody waits for the event loop', () => {
  const accounts = new FakeAccounts();
  for (let i = 0; i < 5000; i++) accounts.add();
  const net = new FakeNetwork(accounts);
  const { clock } = net;
  // As if an account took a tenth of a millisecond.
  let spent = 0;
  const monotonic = clock.monotonic.bind(clock);
  clock.monotonic = () => monotonic() + spent;
  const write = accounts.writeMonitors.bind(accounts);
  accounts.writeMonitors = (...all) => {
    spent += 0.1;
    return write(...all);
  };
  let longest = 0;
  // What was deferred runs in one turn of the event loop.
  const deferred = { now: 0, most: 0 };
  const setTimeout = clock.setTimeout.bind(clock);
  clock.setTimeout = (callback, ms) => {
    if (ms === 0) deferred.most = Math.max(deferred.most, ++deferred.now);
    return setTimeout(() => {
      const before = spent;
      if (ms === 0) deferred.now--;
      callback();
      longest = Math.max(longest, spent - before);
    }, ms);
  };
  for (let i = 0; i < 5; i++) net.add(SWARM);
  net.publish();
  clock.run(20 * SECOND);
  assert.equal(net.monitoring.summary().unconfirmed, 0);
  assert.ok(spent >= 500);
  assert.ok(longest < 15, `${longest} ms in one piece`);
  assert.equal(deferred.most, 1);
});

/** Counts how often the monitor dicts of an account are written. */
function countWrites(accounts: FakeAccounts): () => number {
  const write = accounts.writeMonitors.bind(accounts);
  let writes = 0;
  accounts.writeMonitors = (...args) => {
    writes++;
    return write(...args);
  };
  return () => writes;
}

test('the servers of a swarm are sent the same requests, each written once, whenever they connect', () => {
  const accounts = new FakeAccounts(900);
  for (let n = 0; n < 3_000; n++) accounts.add();
  const writes = countWrites(accounts);
  const net = new FakeNetwork(accounts);
  const servers = Array.from({ length: 5 }, () => net.add(SWARM));
  net.publish();
  net.clock.run(100);
  const late = net.add(SWARM);
  net.publish();
  net.clock.run(30 * SECOND);
  for (const server of [...servers, late])
    assert.ok(accounts.numbers.every((number) => server.monitorsAccount(number, 1)));
  // The one that came late did so among the requests of the others, and what was sent before it came is written again.
  assert.ok(writes() >= 3_000 && writes() < 6_000, `${writes()} accounts were written`);
});

test('a new subscription is written once for all servers of its swarm', () => {
  const { accounts, servers, clock } = network({ accounts: 10, servers: 7 });
  const writes = countWrites(accounts);
  const number = accounts.add();
  clock.run(200);
  for (const server of servers) assert.ok(server.monitorsAccount(number, 1));
  assert.equal(writes(), 1);
});

test('the second signature for a server that refused the first is not sent to the others of its swarm', () => {
  // Too large for an urgent request, so that the second signature is asked for by a bulk request, too.
  const accounts = new FakeAccounts(70_000);
  for (let n = 0; n < 10; n++) accounts.add(n === 7 ? [[70, 71]] : undefined);
  const net = new FakeNetwork(accounts);
  const first = net.add(SWARM);
  first.behave = (request) => {
    if (request.some(({ ref }) => ref === 71)) first.delay = 10 * SECOND;
    return Buffer.from(`l${request.map(({ ref }) => (ref === 70 ? refusal(5) : SUCCESS)).join('')}e`);
  };
  const asked = (server: FakeServer) =>
    server.log.flatMap(({ elements }) => elements.filter(({ account }) => account === 7).map(({ ref }) => ref));
  net.publish();
  net.clock.run(8 * SECOND);
  assert.deepEqual(asked(first), [70, 71]);
  const second = net.add(SWARM);
  net.publish();
  net.clock.run(SECOND);
  assert.deepEqual(asked(second), [70]);
});

test('a server that is asked later than the others of its swarm is sent the signature of that time', () => {
  for (const change of ['changed', 'removed'] as const) {
    const accounts = new FakeAccounts();
    for (let n = 0; n < 100; n++) accounts.add();
    const net = new FakeNetwork(accounts);
    const first = net.add(SWARM);
    first.delay = 10 * SECOND;
    net.publish();
    net.clock.run(SECOND);
    const second = net.add(SWARM);
    net.publish();
    if (change === 'changed') accounts.change(7, [[77]], false);
    else accounts.remove(7);
    net.clock.run(5 * SECOND);
    const refs = second.log.flatMap(({ elements }) => elements.filter(({ account }) => account === 7));
    assert.deepEqual(
      refs.map(({ ref }) => ref),
      change === 'changed' ? [77] : [],
    );
    assert.ok(second.monitorsAccount(6, 1));
  }
});

test('a refused signature is replaced by the next best one at once, at this server only', () => {
  for (const code of [4, 5]) {
    const { accounts, servers, clock, monitoring } = network({ accounts: 0, servers: 2 });
    servers[0]!.behave = (request) =>
      Buffer.from(`l${request.map(({ ref }) => (ref === 9001 ? refusal(code) : SUCCESS)).join('')}e`);
    accounts.add([[9001, 9002]]);
    clock.run(300);
    assert.deepEqual(
      servers.map((server) => server.log.flatMap(({ elements }) => elements.map(({ ref }) => ref))),
      [[9001, 9002], [9001]],
    );
    assert.equal(monitoring.summary().unconfirmed, 0);
    assert.equal(
      code === 4 ? monitoring.counters.answers.refused_timestamp : monitoring.counters.answers.refused_signature,
      1,
    );
  }
});

test('with no signature left an account is dropped at this server, counted, and given another chance at the next renewal', () => {
  const { accounts, servers, clock, monitoring } = network({ accounts: 5, servers: 1 });
  const [server] = servers as [FakeServer];
  const refusing = (request: { account: number }[]) =>
    Buffer.from(`l${request.map(({ account }) => (account === 5 ? refusal(5) : SUCCESS)).join('')}e`);
  server.behave = refusing;
  accounts.add([[70, 71]]);
  clock.run(30 * MINUTE);
  assert.deepEqual(
    server.log.flatMap(({ elements }) => elements.filter(({ account }) => account === 5).map(({ ref }) => ref)),
    [70, 71],
  );
  assert.equal(monitoring.counters.answers.refused_signature, 2);
  assert.equal(monitoring.counters.passedOver.nothing_left, 1);
  assert.deepEqual(
    monitoring.nodes().map(({ confirmed, refused, unconfirmed }) => ({ confirmed, refused, unconfirmed })),
    [{ confirmed: 5, refused: 1, unconfirmed: 0 }],
  );
  server.behave = willing;
  clock.run(30 * MINUTE);
  assert.ok(server.monitorsAccount(5, 1));
  assert.equal(monitoring.summary().refused, 0);
});

test('a new signature is tried at once where the old ones were refused', () => {
  const { accounts, servers, clock } = network({ accounts: 0, servers: 1 });
  servers[0]!.behave = (request) =>
    Buffer.from(`l${request.map(({ ref }) => (ref === 1 ? refusal(4) : SUCCESS)).join('')}e`);
  accounts.add([[1]]);
  clock.run(SECOND);
  accounts.change(0, [[2]]);
  clock.run(200);
  assert.ok(servers[0]!.monitorsAccount(0, 2));
});

test('an account answered with another error is asked for again soon, and then more and more rarely', () => {
  const { accounts, servers, clock, monitoring } = network({ accounts: 5, servers: 1 });
  servers[0]!.behave = (request) =>
    Buffer.from(`l${request.map(({ account }) => (account === 5 ? refusal(3) : SUCCESS)).join('')}e`);
  accounts.add();
  clock.run(60 * MINUTE);
  const times = asked(servers[0]!).get(5)!;
  const gaps = times.slice(1).map((at, i) => (at - times[i]!) / SECOND);
  assert.ok(gaps[0]! < 10, `${gaps}`);
  assert.ok(gaps.length > 6 && gaps.length < 20, `${gaps.length} attempts in an hour`);
  assert.ok(gaps.at(-1)! > 200, `${gaps}`);
  assert.equal(monitoring.counters.answers.error, times.length);
  assert.equal(monitoring.nodes()[0]!.confirmed, 5);
  assert.equal(monitoring.nodes()[0]!.last_error, 'error 3: no');
});

test('one account that spoils every request is found, and the others are confirmed within a minute', () => {
  const { servers, net, clock, monitoring } = network({ accounts: 2000, servers: 0 });
  assert.equal(servers.length, 0);
  const server = net.add(SWARM);
  server.behave = (request) =>
    request.some(({ account }) => account === 777) ? Buffer.from(refusal(1)) : willing(request);
  net.publish();
  clock.run(MINUTE);
  assert.equal(monitoring.nodes()[0]!.confirmed, 1999);
  assert.ok(server.log.length < 60, `${server.log.length} requests`);
  // Neither does it slow down what is new.
  const { length } = server.log;
  clock.run(10 * MINUTE);
  assert.ok(server.log.length - length < 10);
});

test('a timeout is retried with back-off, in a smaller request, and the server counts as silent until it answers', () => {
  const { net, clock, monitoring } = network({ accounts: 3000, servers: 0 });
  const server = net.add(SWARM);
  server.behave = () => undefined;
  net.publish();
  clock.run(2 * MINUTE);
  assert.ok(server.log.length >= 4 && server.log.length <= 8, `${server.log.length} requests in 2 minutes`);
  assert.ok(server.log.at(-1)!.size < server.log[0]!.size / 4);
  assert.equal(monitoring.summary().silent, 1);
  assert.equal(monitoring.nodes()[0]!.state, 'silent');
  assert.equal(monitoring.nodes()[0]!.last_error, 'TIMEOUT');
  assert.ok(monitoring.counters.requests.timeout >= 3);
  assert.ok(monitoring.summary().oldestSeconds > 60);

  server.behave = willing;
  clock.run(3 * MINUTE);
  assert.equal(monitoring.summary().silent, 0);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('a server that never answers does not delay the others', () => {
  const { net, accounts, servers, clock } = network({ accounts: 1000, servers: 3 });
  const mute = net.add(SWARM);
  mute.behave = () => undefined;
  net.publish();
  clock.run(MINUTE);
  const number = accounts.add();
  clock.run(200);
  for (const server of servers) assert.ok(server.monitorsAccount(number, 1));
});

test('a malformed answer confirms nothing and is counted', () => {
  for (const rubbish of ['', 'rubbish', 'le', `l${SUCCESS}`, `l${SUCCESS}${SUCCESS}e`, `l${SUCCESS.repeat(4)}e`]) {
    const { net, clock, monitoring } = network({ accounts: 3, servers: 0 });
    net.add(SWARM).behave = () => Buffer.from(rubbish);
    net.publish();
    clock.run(SECOND);
    assert.equal(monitoring.nodes()[0]!.confirmed, 0);
    assert.ok(monitoring.counters.requests.unreadable > 0);
  }
});

test('freshness: the age of the oldest confirmation is known for each server and for the whole', () => {
  const { accounts, servers, clock, monitoring } = network({ accounts: 50, servers: 2 });
  clock.run(40 * MINUTE);
  assert.ok(Math.abs(monitoring.summary().oldestSeconds - 40 * 60) < 40);
  assert.equal(monitoring.summary().fresh, 2);
  clock.run(20 * MINUTE);
  const { oldestSeconds } = monitoring.summary();
  assert.ok(oldestSeconds > 0 && oldestSeconds < 57 * 60, `${oldestSeconds} s`);

  // One of two falls silent: the accounts are still monitored by the other, but the server's own age grows.
  servers[0]!.behave = () => undefined;
  clock.run(70 * MINUTE);
  assert.equal(monitoring.summary().fresh, 1);
  assert.equal(monitoring.summary().uncovered, 0);
  assert.ok(monitoring.summary().oldestSeconds < 57 * 60);
  const report = monitoring.nodes().find(({ state }) => state === 'silent')!;
  assert.ok(report.oldest_seconds > 70 * 60);
  assert.equal(report.confirmed, 0, 'a confirmation is worth nothing once the server has forgotten it');

  servers[1]!.behave = () => undefined;
  clock.run(70 * MINUTE);
  assert.equal(monitoring.summary().uncovered, 50);
  assert.ok(monitoring.summary().oldestSeconds > 70 * 60);
  assert.equal(accounts.numbers.length, 50);
});

test('the time of a confirmation is that of the question, before which the server cannot have answered', () => {
  const { net, clock, monitoring } = network({ accounts: 5, servers: 0 });
  net.add(SWARM).delay = 12 * SECOND;
  net.publish();
  clock.run(12 * SECOND + 100);
  assert.equal(monitoring.nodes()[0]!.confirmed, 5);
  assert.equal(monitoring.nodes()[0]!.oldest_seconds, 12);
});

test('a wall clock that jumps changes nothing', () => {
  const { clock, servers } = network({ accounts: 20, servers: 1 });
  const before = servers[0]!.log.length;
  const now = clock.now.bind(clock);
  clock.now = () => now() + 86_400_000;
  clock.run(40 * MINUTE);
  assert.equal(servers[0]!.log.length, before);
});

test('monitoring that is stopped leaves no timer and ignores answers', () => {
  const { net, accounts, servers, clock, monitoring } = network({ accounts: 20, servers: 2 });
  accounts.add();
  servers[0]!.breakConnection(SECOND, true);
  monitoring.stop();
  const asked = servers[1]!.log.length;
  accounts.add();
  accounts.change(3);
  clock.run(MINUTE);
  assert.equal(servers[1]!.log.length, asked);
  assert.equal(clock.pending, 0);
  assert.equal(net.bytesInFlight, 0);
});

test('what is asked for at a restart is not all renewed at the same moment later', () => {
  // Two that start at once with different seeds do not renew together.
  const times = [1, 2].map((seed) => {
    const { servers, clock } = network({ accounts: 1, servers: 1, seed: seeded(seed)() * 1e6 });
    clock.run(60 * MINUTE);
    return asked(servers[0]!).get(0)![1]!;
  });
  assert.notEqual(times[0], times[1]);
});

/** Says of every account that it is elsewhere. */
const elsewhere =
  (code: number): Behaviour =>
  (request) =>
    Buffer.from(`l${refusal(code).repeat(request.length)}e`);

for (const code of [6, 7]) {
  test(`a server that answers everything with error ${code} is asked again within seconds, in requests as large as before`, () => {
    const { net, clock, monitoring } = network({ accounts: 5000, servers: 0 });
    const server = net.add(SWARM);
    server.behave = elsewhere(code);
    net.publish();
    clock.run(SECOND);
    const first = server.log.map(({ at }) => at);
    assert.equal(monitoring.counters.requests.rejected, 0);
    assert.equal(monitoring.counters.answers.elsewhere, 5000);
    assert.equal(monitoring.nodes()[0]!.confirmed, 0);
    assert.equal(monitoring.nodes()[0]!.failures, 0, 'it answers');
    assert.match(monitoring.nodes()[0]!.last_error, new RegExp(`error ${code}`));
    assert.equal(net.suspected, 1, 'the list is doubted once, not for each account');
    server.behave = willing;
    clock.run(8 * SECOND);
    assert.equal(monitoring.nodes()[0]!.confirmed, 5000);
    const again = server.log.slice(first.length);
    assert.ok(again.length <= 3, `${again.length} requests`);
  });
}

test('a server that answers with error 6 for ever is asked more and more rarely, at most every few minutes', () => {
  const { net, clock } = network({ accounts: 100, servers: 0 });
  const server = net.add(SWARM);
  server.behave = elsewhere(6);
  net.publish();
  clock.run(120 * MINUTE);
  const times = server.log.map(({ at }) => at / SECOND);
  const gaps = times.slice(1).map((at, i) => at - times[i]!);
  assert.ok(gaps[0]! <= 8, `${gaps}`);
  assert.ok(times.length < 50, `${times.length} requests in two hours`);
  assert.ok(Math.max(...gaps) < 10 * 60, `${gaps}`);
  assert.equal(net.suspected, times.length);
});

test('a code 6 for some accounts leaves the others confirmed, and applies to accounts that were confirmed before', () => {
  const { net, clock, monitoring, servers } = network({ accounts: 100, servers: 1 });
  assert.equal(monitoring.nodes()[0]!.confirmed, 100);
  servers[0]!.behave = (request) =>
    Buffer.from(`l${request.map(({ account }) => (account < 10 ? refusal(6) : SUCCESS)).join('')}e`);
  clock.run(56 * MINUTE);
  assert.equal(monitoring.nodes()[0]!.confirmed, 90);
  assert.equal(monitoring.nodes()[0]!.unconfirmed, 10);
  assert.ok(net.suspected > 0);
});

test('an error 6 of the whole request, and a list full of another error, are narrowed down as before', () => {
  for (const [one, list] of [
    [true, false],
    [false, true],
  ]) {
    const { net, clock, monitoring } = network({ accounts: 1000, servers: 0 });
    const server = net.add(SWARM);
    server.behave = (request) =>
      Buffer.from(one && request.length > 1 ? refusal(6) : list ? `l${refusal(1).repeat(request.length)}e` : 'le');
    net.publish();
    clock.run(30 * SECOND);
    assert.ok(monitoring.counters.requests.rejected > 0);
    assert.ok(server.log.at(-1)!.size < server.log[0]!.size);
  }
});

test('no request holds more than 2,000 dicts, so that no reply can be too large to be accepted', () => {
  const accounts = new FakeAccounts();
  const signatures = (count: number) => Array.from({ length: count }, (_, i) => [i]);
  for (let i = 0; i < 3000; i++) accounts.add(signatures(1 + (i % 3)));
  const huge = accounts.add(signatures(2500));
  const net = new FakeNetwork(accounts);
  const server = net.add(SWARM);
  net.publish();
  net.clock.run(10 * SECOND);
  const sizes = server.log.map(({ elements }) => elements.length);
  for (const { elements } of server.log) {
    const isHuge = elements.every(({ account }) => account === huge);
    assert.ok(elements.length <= 2000 || isHuge, 'one account may have more, alone');
  }
  assert.ok(Math.max(...sizes.filter((size) => size <= 2000)) > 1990, `${sizes}`);
  assert.equal(net.monitoring.summary().unconfirmed, 0);
});

test('a monitor that a server has ended is unconfirmed there, and asked for again if the account stays', () => {
  const { net, clock, monitoring, servers, accounts } = network({ accounts: 50, servers: 2 });
  servers[0]!.endMonitor(7);
  assert.deepEqual(
    monitoring.nodes().map(({ confirmed }) => confirmed),
    [49, 50],
  );
  assert.equal(net.suspected, 1);
  assert.deepEqual(monitoring.counters.ended, { taken: 1, moved: 0, unasked: 0, malformed: 0 });
  assert.equal(monitoring.summary().uncovered, 0, 'the other one covers for it');
  const before = servers[0]!.log.length;
  clock.run(8 * SECOND);
  assert.ok(servers[0]!.monitorsAccount(7, 1));
  assert.deepEqual(
    servers[0]!.log.slice(before).map(({ elements }) => elements.map(({ account }) => account)),
    [[7]],
  );
  assert.equal(monitoring.nodes()[0]!.confirmed, 50);
  assert.ok(accounts.numbers.every((number) => servers[0]!.monitorsAccount(number, 1)));
});

test('a monitor that ended because the account moved is asked for where it is now, and no longer where it was', () => {
  const { net, accounts, clock, monitoring, servers } = network({ accounts: 100, servers: 1 });
  const old = servers[0]!;
  const newcomer = net.add(SWARM - (1n << 62n));
  // The server is a block ahead of our list.
  const moving = accounts.numbers.filter((number) => number % 3 === 0);
  for (const number of moving) old.endMonitor(number);
  assert.equal(monitoring.counters.ended.taken, moving.length);
  assert.equal(net.suspected, 1);
  net.publish();
  clock.run(10 * SECOND);
  const now = accounts.numbers.filter((number) => newcomer.monitorsAccount(number, 1));
  assert.ok(now.length > 10);
  const asked = new Set(old.log.slice(1).flatMap(({ elements }) => elements.map(({ account }) => account)));
  for (const number of now) assert.ok(!asked.has(number));
  assert.equal(monitoring.summary().unconfirmed, 0);
  // Late notices of what has moved change nothing.
  const { suspected } = net;
  for (const number of now) old.endMonitor(number);
  assert.equal(monitoring.counters.ended.moved, now.length);
  assert.equal(net.suspected, suspected);
});

test('the end of a monitor is accepted only from a server that confirmed it, and anything else is counted and dropped', () => {
  const { net, monitoring, servers, accounts, clock } = network({ accounts: 3, servers: 1 });
  const stranger = net.add(2n);
  stranger.behave = () => undefined;
  net.publish();
  clock.run(SECOND);
  const { node } = servers[0]!;
  const bytes = accounts.bytesOf(0);
  const of = (account: Buffer, rest = 'e') => Buffer.concat([Buffer.from('d1:@33:'), account, Buffer.from(rest)]);
  const malformed: Buffer[][] = [
    [],
    [of(bytes), of(bytes)],
    [Buffer.from('')],
    [Buffer.from('le')],
    [Buffer.from('de')],
    [of(bytes, '')],
    [of(bytes, 'ee')],
    [Buffer.from('d1:@2:05e')],
    [Buffer.from('d1:@i5ee')],
    [of(bytes, `1:x${'l'.repeat(1000)}${'e'.repeat(1000)}e`)],
    [of(bytes, `6:snodesl${'le'.repeat(30_000)}ee`)],
    [of(bytes, `1:x70000:${'x'.repeat(70_000)}e`)],
  ];
  for (const parts of malformed) monitoring.ended(node!, parts);
  monitoring.ended(node!, [of(Buffer.alloc(33, 9))]);
  monitoring.ended(stranger.node!, [of(bytes)]);
  assert.deepEqual(monitoring.counters.ended, { taken: 0, moved: 0, unasked: 2, malformed: malformed.length });
  assert.equal(net.suspected, 0);
  monitoring.ended(node!, [of(bytes, '7:errcodei6e5:error2:no6:snodesld2:ip7:1.2.3.4ee5:swarm16:ffffffffffffffffe')]);
  monitoring.ended(node!, [of(bytes)]);
  assert.deepEqual(monitoring.counters.ended, { taken: 1, moved: 0, unasked: 3, malformed: malformed.length });
});

test('a server that ends monitors as fast as it is asked is asked ever more rarely, and further ended monitors cost no more', () => {
  const { net, clock, servers } = network({ accounts: 20, servers: 2 });
  const [hostile] = servers;
  const before = hostile!.log.length;
  for (let second = 0; second < 3600; second++) {
    for (let number = 0; number < 20; number++) hostile!.endMonitor(number);
    clock.run(SECOND);
  }
  const requests = hostile!.log.length - before;
  assert.ok(requests < 40, `${requests} requests in an hour`);
  assert.ok(net.suspected < 40, `${net.suspected} doubts`);
});

test('a flood of ended monitors is cut off, and costs the others nothing', () => {
  const { net, clock, monitoring, servers } = network({ accounts: 20, servers: 2 });
  const { node } = servers[0]!;
  const notice = [Buffer.from(`d1:@33:${'x'.repeat(33)}e`)];
  let sent = 0;
  while (monitoring.nodes()[0]!.state === 'up' && sent < 1_000_000) {
    monitoring.ended(node!, notice);
    // Half an hour in all.
    if (++sent % 2_000 === 0) clock.run(6 * MINUTE);
  }
  assert.equal(sent, 10_041);
  assert.equal(monitoring.nodes()[0]!.state, 'cut-off');
  assert.match(net.cutOff[0]!, /10041 notices of ended monitors/);
  assert.equal(monitoring.nodes()[1]!.state, 'up');
  clock.run(80 * MINUTE);
  assert.equal(monitoring.summary().connected, 2);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('what changes after the stop is asked of nobody, and sets no timer', () => {
  const { accounts, clock, monitoring, servers } = network({ accounts: 2, servers: 1 });
  monitoring.stop();
  clock.run(MINUTE);
  const requests = servers[0]!.log.length;
  accounts.change(0);
  assert.equal(clock.pending, 0);
  clock.run(MINUTE);
  assert.equal(servers[0]!.log.length, requests);
});
