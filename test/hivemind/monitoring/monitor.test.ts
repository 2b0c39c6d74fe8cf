import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeAccounts, refusal, SUCCESS } from './support/fake-accounts.ts';
import { type Behaviour, FakeNetwork, type FakeServer, seeded, willing } from './support/fake-network.ts';
import { asked, MINUTE, network, SECOND, SWARM } from './support/one-swarm.ts';

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
