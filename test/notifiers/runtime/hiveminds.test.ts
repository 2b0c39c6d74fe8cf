import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { repeated } from '../../../src/daemon/log.ts';
import { accepted, gone, type Outcome, refused } from '../../../src/notifiers/runtime/backend.ts';
import { Hiveminds, type HivemindsOptions } from '../../../src/notifiers/runtime/hiveminds.ts';
import { parseAddress } from '../../../src/oxenmq/address.ts';
import { encodeMembers } from '../../../src/session/members.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ownAddress } from '../../support/loopback.ts';
import { startProxy } from '../../support/proxy.ts';
import { until } from '../../support/until.ts';
import { FakeHivemind, startCluster, tellOfEachOther } from '../fake-hivemind.ts';
import { keepLog } from '../support.ts';
import { keys, SERVICE, type Send, startToy } from '../toy.ts';

/** A notifier that knows the first of them alone; it stops before any of them does. */
function start(t: TestContext, [first, ...others]: readonly FakeHivemind[], send: Send = () => accepted) {
  const toy = startToy(t, [first!], send);
  for (const hivemind of others) hivemind.beforeEnd.push(() => toy.stop(1_100));
  return toy;
}

/** A provider that answers when it is told to. */
function manual() {
  const waiting = new Map<string, (outcome: Outcome) => void>();
  const send: Send = ({ id }) => new Promise((resolve) => waiting.set(id, resolve));
  const answer = async (id: string, outcome: Outcome) => {
    await until(() => waiting.has(id), 0);
    waiting.get(id)!(outcome);
    waiting.delete(id);
  };
  return { send, answer };
}

function registered(...hiveminds: readonly FakeHivemind[]): Promise<unknown> {
  return Promise.all(hiveminds.map((hivemind) => hivemind.until(() => hivemind.instances.size === 1)));
}

const copy = (fingerprint: string, doubt = 0) => ({
  serviceId: `device of ${fingerprint}`,
  fingerprint: Buffer.from(fingerprint.padEnd(8).slice(0, 8), 'latin1'),
  doubt,
});

test('from one hivemind it learns of all others, and registers with each once and as the same notifier', async (t) => {
  const { a, b, c } = await startCluster(t, SERVICE, ['a', 'b', 'c']);
  const { notifier, lines } = start(t, [a, b, c]);
  await registered(a, b, c);
  const processes = [a, b, c].map(({ instances }) => [...instances.values()].map(({ process }) => process));
  assert.equal(processes[0]![0]!.length, 32);
  assert.deepEqual(processes, [processes[0], processes[0], processes[0]]);
  assert.deepEqual(await c.validate(SERVICE, '{"token":"abc"}'), ['0', 'abc', 'kept']);
  const [id] = b.push([{}]);
  await b.until(() => b.accepted.has(id!));
  // Nothing comes of asking again and again.
  await a.until(() => a.registrations >= 3);
  assert.deepEqual(
    [a, b, c].map(({ instances }) => instances.size),
    [1, 1, 1],
  );
  assert.deepEqual(notifier.hiveminds.troubles, []);
  assert.match(lines.join('\n'), /registered with the hivemind a\W.*registered with the hivemind c\W/s);
});

test('the first copy of a push goes to the provider, and its outcome is the answer to every other', async (t) => {
  const { a, b, c } = await startCluster(t, SERVICE, ['a', 'b', 'c']);
  const provider = manual();
  const { notifier, sent } = start(t, [a, b, c], provider.send);
  await registered(a, b, c);
  const pushes = [copy('good'), copy('bad')];
  const [goodA, badA] = a.push(pushes);
  await until(() => sent.length === 2);
  const [goodB, badB] = b.push([{ ...pushes[0]!, wantsAnswer: true }, pushes[1]!]);
  await until(() => notifier.counters.copies === 2);
  await provider.answer(pushes[0]!.serviceId, accepted);
  await provider.answer(pushes[1]!.serviceId, refused('PayloadTooLarge'));
  await Promise.all([a, b].map((hivemind) => hivemind.until(() => hivemind.outstanding === 0)));
  assert.deepEqual([...a.accepted, ...b.accepted], [goodA, goodB]);
  assert.deepEqual([...a.refused, ...b.refused], [badA, badB]);
  await b.until(() => b.answers.length === 1);
  assert.deepEqual(b.answers, [[goodB, 'accepted']]);
  // Also long after the end.
  const [goodC, badC] = c.push([{ ...pushes[0]!, wantsAnswer: true }, pushes[1]!]);
  await c.until(() => c.outstanding === 0);
  assert.deepEqual([[...c.accepted], [...c.refused]], [[goodC], [badC]]);
  assert.deepEqual(c.answers, [[goodC, 'accepted when another hivemind gave it']]);
  assert.equal(sent.length, 2);
  assert.equal(notifier.counters.copies, 4);
  assert.deepEqual(notifier.statistics.total, { notifies: 1, retries: 0, failures: 1 });
});

test('a less doubtful push is not a copy, a more doubtful one is', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const { sent } = start(t, [a, b]);
  await registered(a, b);
  a.push([copy('m', 2)]);
  await a.until(() => a.outstanding === 0);
  b.push([copy('m', 2), copy('m', 1)]);
  await b.until(() => b.outstanding === 0);
  assert.equal(sent.length, 2);
  a.push([copy('m', 0), copy('m', 1)]);
  await a.until(() => a.outstanding === 0);
  assert.equal(sent.length, 3);
});

test('when a hivemind dies, another one gives out what it had, and nobody gets it twice', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const address = a.endpoint;
  const provider = manual();
  const { notifier, sent } = start(t, [a, b], provider.send);
  await registered(a, b);
  a.push([copy('ended'), copy('on its way')]);
  await provider.answer('device of ended', accepted);
  await a.until(() => a.accepted.size === 1);
  await a.close();
  const ids = b.push([copy('ended'), copy('on its way'), copy('new')]);
  await b.until(() => b.accepted.size === 1);
  await provider.answer('device of on its way', accepted);
  await provider.answer('device of new', accepted);
  await b.until(() => b.accepted.size === 3);
  assert.deepEqual([...b.accepted].sort(), ids);
  assert.equal(sent.length, 3);
  assert.ok(notifier.registered);
  await until(() => notifier.hiveminds.troubles.join() === 'not registered with the hivemind a: the connection broke');
  // Soon the other one knows, too, that it does not live.
  tellOfEachOther({ b });
  await until(() => notifier.hiveminds.troubles.length === 0);
  const again = await FakeHivemind.start(t, SERVICE, { address, firstId: 5_000_000 });
  again.beforeEnd.push(async () => notifier.stop(1_100));
  tellOfEachOther({ a: again, b });
  await registered(again, b);
  again.push([copy('new'), copy('newer')]);
  await provider.answer('device of newer', accepted);
  await again.until(() => again.outstanding === 0);
  assert.equal(sent.length, 4);
});

test('a hivemind that joins is announced by the others, and one that goes for good is left', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const { notifier } = start(t, [a, b]);
  await registered(a, b);
  const { c } = await startCluster(t, SERVICE, ['c']);
  c.beforeEnd.push(async () => notifier.stop(1_100));
  tellOfEachOther({ a, b, c });
  await registered(c);
  await b.close();
  tellOfEachOther({ a, c });
  await until(() => notifier.hiveminds.links.map(({ name }) => name).join() === 'a,c');
});

/** The links of a notifier without the rest of it. */
function linksTo(t: TestContext, addresses: readonly string[], more: Partial<HivemindsOptions> = {}): Hiveminds {
  const { log } = keepLog();
  const say = repeated(log, systemClock);
  t.after(() => say.stop());
  return new Hiveminds({
    clock: systemClock,
    random: randomBytes,
    service: SERVICE,
    addresses: addresses.map((address) => parseAddress(address)),
    keys,
    clusterKeys: keys,
    window: () => 1_000,
    validate: () => {},
    validateMany: () => {},
    sealed: () => {},
    push: () => {},
    registered: () => {},
    counted: () => {},
    log,
    say,
    ...more,
  });
}

test('whenever one joins or is left, it says how many give pushes now', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const counts: number[] = [];
  const hiveminds = linksTo(t, [a.endpoint], { counted: (count) => counts.push(count) });
  for (const hivemind of [a, b]) hivemind.beforeEnd.push(() => hiveminds.close());
  hiveminds.ping();
  await registered(a, b);
  await b.close();
  tellOfEachOther({ a });
  await until(() => {
    hiveminds.ping();
    return hiveminds.links.length === 1;
  }, 50);
  assert.deepEqual(counts, [1, 2, 1]);
});

test('a hivemind that has not told its name is called by its address where there are several', async (t) => {
  const [one, two] = ['tcp://127.0.0.1:1', 'tcp://127.0.0.1:2'];
  for (const [addresses, names] of [
    [[one], ['the hivemind']],
    [
      [one, two],
      [`the hivemind at ${one}`, `the hivemind at ${two}`],
    ],
    [[one, one], ['the hivemind']],
  ] as const) {
    const hiveminds = linksTo(t, addresses);
    assert.deepEqual(
      hiveminds.links.map(({ who }) => who),
      names,
    );
    await hiveminds.close();
  }
});

test('a hivemind that cannot be reached is named, disturbs nobody, and is registered with once it can be', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const address = ownAddress();
  tellOfEachOther({ a, b }, { c: address, d: 'tcp://nowhere' });
  const { notifier } = start(t, [a, b]);
  await registered(a, b);
  await until(() => notifier.hiveminds.missing.length === 2);
  assert.ok(notifier.registered);
  assert.deepEqual(notifier.hiveminds.troubles, [
    'not registered with the hivemind c',
    'not registered with the hivemind d: the address that it announces is invalid',
  ]);
  b.push([copy('m')]);
  await b.until(() => b.outstanding === 0);
  const c = await FakeHivemind.start(t, SERVICE, { address });
  c.beforeEnd.push(async () => notifier.stop(1_100));
  tellOfEachOther({ a, b, c });
  await registered(a, b, c);
  await until(() => notifier.hiveminds.troubles.length === 0);
});

test('the same hivemind at two addresses is registered with once, at the one in the settings', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const { host, port } = parseAddress(a.endpoint);
  const proxy = await startProxy(t, { host: host!, port: port! });
  const { notifier } = startToy(t, [], () => accepted, {
    addresses: [parseAddress(a.endpoint), parseAddress(`tcp://127.0.0.1:${proxy.port}`)],
  });
  for (const hivemind of [a, b]) hivemind.beforeEnd.push(async () => notifier.stop(1_100));
  await registered(b);
  await until(() => notifier.hiveminds.links.length === 2);
  await registered(a);
  assert.equal(proxy.accepted, 1);
  assert.deepEqual(
    notifier.hiveminds.links.map(({ address }) => address),
    [a.endpoint, b.endpoint],
  );
});

test('lists that nobody would send are ignored, and the registration stands', async (t) => {
  const { a } = await startCluster(t, SERVICE, ['a']);
  const { notifier, lines } = start(t, [a]);
  await registered(a);
  const many = Array.from({ length: 65 }, (_, n) => ({ name: `m${n}`, address: `tcp://127.0.0.1:${n + 1}` }));
  const complaints = () => lines.filter((line) => line.includes('cannot be read')).length;
  for (const list of [encodeMembers({ own: 'a', members: many }), Buffer.from('le'), Buffer.alloc(100_000, 'l')]) {
    a.list = list;
    const before = a.registrations;
    await a.until(() => a.registrations > before + 1);
    assert.equal(notifier.hiveminds.links.length, 1);
    assert.ok(notifier.registered);
  }
  // One line for all of them: the log is not theirs to fill.
  assert.equal(complaints(), 1);
  for (const address of ['', 'tcp://', 'tcp://*:0', 'curve://127.0.0.1:1/key', 'ipc://', `ipc:///${'x'.repeat(400)}`]) {
    a.list = encodeMembers({ own: 'a', members: [{ name: 'x', address }] });
    const before = a.registrations;
    await a.until(() => a.registrations > before + 1);
    assert.ok(notifier.hiveminds.links.length <= 2);
  }
  a.push([copy('m')]);
  await a.until(() => a.accepted.size === 1);
});

test('statistics go to one hivemind, and to another when that is gone', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const { notifier } = start(t, [a, b]);
  await registered(a, b);
  a.push([copy('m')]);
  b.push([copy('m'), copy('n')]);
  await a.until(() => a.notifies === 2);
  assert.equal(b.statistics.length, 0);
  await a.close();
  // What is told until then is lost with it.
  await until(() => notifier.hiveminds.troubles.length === 1);
  b.push([copy('o')]);
  await b.until(() => b.notifies === 1);
  assert.equal(notifier.statistics.total.notifies, 3);
});

test('a dead device is reported to those who gave out its push, or to another one when they cannot be reached', async (t) => {
  const { a, b, c } = await startCluster(t, SERVICE, ['a', 'b', 'c']);
  const provider = manual();
  const { notifier, sent } = start(t, [a, b, c], provider.send);
  await registered(a, b, c);
  a.push([copy('both')]);
  await until(() => sent.length === 1);
  b.push([copy('both')]);
  await until(() => notifier.counters.copies === 1);
  await provider.answer('device of both', gone('Unregistered', 5));
  await Promise.all([a, b].map((hivemind) => hivemind.until(() => hivemind.gone.length === 1)));
  c.push([copy('alone')]);
  await until(() => sent.length === 2);
  await c.close();
  await until(() => notifier.hiveminds.troubles.length === 1);
  await provider.answer('device of alone', gone('Unregistered', 6));
  await a.until(() => a.gone.length === 2);
  assert.deepEqual(
    [a, b, c].map((hivemind) => hivemind.gone.map(({ time }) => time)),
    [[5, 6], [5], []],
  );
});

test('no hivemind is registered with any more once it stops, whatever becomes of the others', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const clock = new FakeClock(Date.now());
  const { notifier, sent, stop } = startToy(t, [], () => new Promise<Outcome>(() => {}), {
    clock,
    // While the second may still turn out to be b, b is not connected by its own address.
    addresses: [parseAddress(a.endpoint), parseAddress('tcp://127.0.0.1:1')],
  });
  await registered(a);
  await until(() => notifier.registered);
  a.push([{}]);
  await until(() => sent.length === 1);
  assert.equal(notifier.hiveminds.links.length, 2);
  assert.deepEqual(notifier.hiveminds.missing, [{ name: 'b', problem: undefined }]);
  let stopped = false;
  const stopping = stop(60_000).then(() => {
    stopped = true;
  });
  await a.until(() => a.drained === 1);
  await clock.advance(30_000);
  const states = notifier.hiveminds.links.map(({ state }) => state);
  await until(async () => {
    await clock.advance(1_000);
    return stopped;
  });
  await stopping;
  assert.deepEqual(states, ['up', 'failed']);
  assert.equal(b.registrations, 0);
});

test('stopping signs off everywhere, and hands a push back to all who gave it out', async (t) => {
  const { a, b } = await startCluster(t, SERVICE, ['a', 'b']);
  const { notifier, sent, stop } = start(t, [a, b], () => new Promise<Outcome>(() => {}));
  await registered(a, b);
  a.push([copy('m')]);
  await until(() => sent.length === 1);
  b.push([copy('m')]);
  await until(() => notifier.counters.copies === 1);
  await stop(1_300);
  await Promise.all([a, b].map((hivemind) => hivemind.until(() => hivemind.handedBack.length === 1)));
  assert.deepEqual([a.drained, b.drained], [1, 1]);
});
