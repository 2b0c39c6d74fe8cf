import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal, SUCCESS } from './support/fake-accounts.ts';
import { type Behaviour, type FakeServer, willing } from './support/fake-network.ts';
import { asked, MINUTE, network, SECOND, SWARM } from './support/one-swarm.ts';

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
