import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  accepted,
  type Backend,
  gone,
  misconfigured,
  noToken,
  type Outcome,
  Refusal,
  refused,
  retry,
} from '../../../src/notifiers/runtime/backend.ts';
import { openPayload } from '../../../src/session/payload.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ownAddress } from '../../support/loopback.ts';
import { until } from '../../support/until.ts';
import { FakeHivemind } from '../fake-hivemind.ts';
import { keys, SERVICE, startToy } from '../toy.ts';

test('it registers with our hivemind under a routing id of its own, takes sealed pushes, and reports what became of each', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier, sent } = startToy(t, [hivemind], ({ id }) =>
    id === 'bad' ? refused('PayloadTooLarge') : id === 'dead' ? gone('Unregistered', 123_456) : accepted,
  );
  await hivemind.until(() => hivemind.instances.size === 1);
  assert.ok(!hivemind.remote!.id.startsWith('L'));
  const payload = randomBytes(2_856);
  const data = Buffer.from([0, 1, 2]);
  const ids = hivemind.push([
    { serviceId: 'good', payload, serviceData: data, urgent: false },
    { serviceId: 'bad' },
    { serviceId: 'dead' },
  ]);
  await hivemind.until(() => hivemind.outstanding === 0 && hivemind.gone.length === 1);
  assert.deepEqual([...hivemind.accepted], [ids[0]]);
  assert.deepEqual([...hivemind.refused].sort(), [ids[1], ids[2]]);
  assert.deepEqual(hivemind.gone, [
    { service: SERVICE, serviceId: 'dead', time: 123_456, reason: 'Unregistered', local: false },
  ]);
  const push = sent.find(({ id }) => id === 'good')!;
  assert.ok(push.payload.equals(payload));
  assert.deepEqual(sent.map(({ id, urgent }) => [id, urgent]).sort(), [
    ['bad', true],
    ['dead', true],
    ['good', false],
  ]);
  assert.ok(push.data?.equals(data));
  assert.deepEqual(Object.fromEntries(notifier.ends), {
    accepted: 1,
    'refused:PayloadTooLarge': 1,
    'gone:Unregistered': 1,
  });
  assert.deepEqual(notifier.statistics.total, { notifies: 1, retries: 0, failures: 2 });
});

test('a registration that is not answered is made again', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  hivemind.unanswered = 2;
  const clock = new FakeClock(Date.now());
  const { notifier, lines, stop } = startToy(t, [hivemind], () => accepted, { clock });
  const passes = (condition: () => boolean) =>
    until(async () => {
      await clock.advance(1_000);
      return condition();
    });
  await hivemind.until(() => hivemind.unanswered < 2);
  await passes(() => lines.some((line) => /the registration; trying again/.test(line)));
  assert.equal(notifier.registered, false);
  await passes(() => notifier.registered);
  let stopped = false;
  void stop().then(() => {
    stopped = true;
  });
  await passes(() => stopped);
});

test('for a device that it judged by the token alone it says so', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  startToy(t, [hivemind], () => noToken('not a device token', 5));
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{ serviceId: 'nonsense' }]);
  await hivemind.until(() => hivemind.gone.length === 1);
  assert.equal(hivemind.gone[0]!.local, true);
});

test('many pushes go in few reports', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push(Array.from({ length: 3_000 }, () => ({})));
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, 3_000);
  assert.ok(hivemind.reports < 300, `${hivemind.reports} reports`);
});

test('devices are validated, and malformed requests are answered', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  assert.deepEqual(await hivemind.validate(SERVICE, '{"token":"abc"}'), ['0', 'abc', 'kept']);
  assert.deepEqual(await hivemind.validate(SERVICE, '{}'), ['1', "Error: missing required key 'token'"]);
  assert.deepEqual(await hivemind.validate(SERVICE, '{"token":""}'), ['4', 'Invalid toy device token']);
  assert.deepEqual(await hivemind.validate(SERVICE, '{"token":5}'), ['4', 'Invalid toy device token']);
  assert.deepEqual(await hivemind.validate(SERVICE, '[]'), ['4', 'Invalid service_info: expected an object']);
  assert.deepEqual(await hivemind.validate(SERVICE, '{'), ['4', 'Invalid service_info: not JSON']);
  assert.deepEqual(await hivemind.validate(SERVICE, Buffer.from([0x22, 0xff, 0x22])), [
    '4',
    'Invalid service_info: not JSON',
  ]);
  for (const parts of [['other', '{}'], [SERVICE], [SERVICE, '{}', 'x'], []]) {
    assert.deepEqual(await hivemind.validate(...parts), ['4', 'Internal error']);
  }
});

test('several devices are validated in one message, each as if it were alone', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier, lines } = startToy(t, [hivemind], () => accepted, {
    backend: {
      validate(info) {
        if (info === 1) throw new Refusal(4, 'Invalid number');
        // What an operator's own module may do.
        if (info === 2) return { id: 7 as unknown as string };
        return info === 3 ? { id: 'three', data: Buffer.from('kept') } : { id: String(info) };
      },
      send: async () => [],
    },
  });
  await hivemind.until(() => hivemind.instances.size === 1);
  assert.deepEqual(await hivemind.validateMany(SERVICE, ['"a"', '1', '2', '3', '{', '"b"']), [
    ['0', 'a'],
    ['4', 'Invalid number'],
    ['4', 'Internal error'],
    ['0', 'three', 'kept'],
    ['4', 'Invalid service_info: not JSON'],
    ['0', 'b'],
  ]);
  assert.deepEqual([notifier.counters.validations, notifier.counters.refusals], [6, 2]);
  assert.ok(lines.some((line) => line.includes('checking a device failed')));
  assert.equal([...hivemind.instances.values()][0]!.validatesMany, true);
  // What cannot be read gets no answer, and does no harm.
  for (const parts of [[], [SERVICE], ['other', 'le'], [SERVICE, 'rubbish'], [SERVICE, 'li1ee']]) {
    hivemind.remote!.send('notifier.validate_many', Buffer.alloc(15), ...parts);
  }
  assert.deepEqual(await hivemind.validateMany(SERVICE, []), []);
});

test('clients are told the message of a refusal, and of no other error; what it contains is logged only at debug', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier, lines } = startToy(t, [hivemind], () => accepted, {
    backend: {
      validate(info) {
        if (info === 1) throw new Refusal(4, 'Invalid number');
        if (info === 3) throw new Error('connect ECONNREFUSED 10.0.0.1:5432 for secret-token');
        if (info === 4) throw 'secret-token';
        if (info === 5) throw new Refusal(0, 'an id of my choice, long enough to pass for one');
        return (info as { deep: { id: { id: string } } }).deep.id;
      },
      send: async () => [],
    },
  });
  await hivemind.until(() => hivemind.instances.size === 1);
  assert.deepEqual(await hivemind.validate(SERVICE, '1'), ['4', 'Invalid number']);
  assert.deepEqual(await hivemind.validate(SERVICE, '2'), ['4', 'Internal error']);
  for (const info of ['3', '4', '5']) {
    assert.deepEqual(await hivemind.validate(SERVICE, info), ['4', 'Internal error']);
  }
  assert.equal(notifier.counters.refusals, 5);
  const told = lines.filter((line) => line.includes('checking a device failed'));
  const aboveDebug = told.filter((line) => !line.includes('"level":"debug"'));
  assert.ok(aboveDebug.length > 0 && told.some((line) => line.includes('secret-token')));
  assert.ok(aboveDebug.every((line) => !line.includes('secret-token')));
});

test('rubbish from the hivemind is counted and does no harm', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier } = startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  const { remote } = hivemind;
  for (const rubbish of ['', 'x', 'le', 'li1ee', 'ld1:d0:ee', 'de']) {
    remote!.send('notifier.sealed', rubbish);
    remote!.send('notifier.push', rubbish);
  }
  remote!.send('notifier.sealed');
  remote!.send('notifier.push');
  hivemind.push([{}]);
  await hivemind.until(() => hivemind.accepted.size === 1);
  assert.equal(notifier.counters.malformed, 13);
  assert.equal(notifier.transport.handlerErrors, 0, 'it is expected, and no fault of ours');
});

test('a push that is sent twice by the hivemind goes out once, and its end is reported again', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier, sent } = startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  const [id] = hivemind.push([{}]);
  await hivemind.until(() => hivemind.accepted.has(id!));
  const { reports } = hivemind;
  hivemind.repeat(id!);
  await hivemind.until(() => hivemind.reports > reports);
  assert.equal(sent.length, 1);
  assert.equal(notifier.counters.duplicates, 1);
});

test('a push that waits does not keep in memory the batch that it came in', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { sent } = startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push(Array.from({ length: 64 }, () => ({ payload: randomBytes(2_856), serviceData: randomBytes(100) })));
  await hivemind.until(() => hivemind.outstanding === 0);
  for (const { payload, data } of sent) {
    // Node cuts small buffers from pieces of this size.
    assert.ok(payload.buffer.byteLength <= Buffer.poolSize && data!.buffer.byteLength <= Buffer.poolSize);
  }
});

test('whoever wants the answer in words gets it, also when the push has to wait', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  let first = true;
  startToy(t, [hivemind], ({ id }) => {
    if (id !== 'slow' || !first) return accepted;
    first = false;
    return retry('503 ServiceUnavailable');
  });
  await hivemind.until(() => hivemind.instances.size === 1);
  const [a, b] = hivemind.push([
    { serviceId: 'fast', wantsAnswer: true },
    { serviceId: 'slow', wantsAnswer: true },
    { serviceId: 'silent' },
  ]);
  await hivemind.until(() => hivemind.answers.length === 3 && hivemind.outstanding === 0);
  const of = (id: number) => hivemind.answers.filter(([other]) => other === id).map(([, text]) => text);
  assert.deepEqual(of(a!), ['accepted']);
  assert.deepEqual(of(b!), ['not yet, will be tried again: 503 ServiceUnavailable', 'accepted']);
});

test('a retried push counts once, as accepted after more than one attempt', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  let attempts = 0;
  const { notifier } = startToy(t, [hivemind], () => (++attempts < 4 ? retry('503') : accepted));
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{}]);
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(attempts, 4);
  assert.deepEqual(notifier.statistics.total, { notifies: 1, retries: 1, failures: 0 });
  assert.equal(notifier.counters.retries, 3);
});

test('what the provider makes of pushes is counted, and said as loudly as it matters to the operator', async (t) => {
  for (const [outcomes, said, counters, total] of [
    [[accepted], [], { attempts: 1, retries: 0 }, { notifies: 1, retries: 0, failures: 0 }],
    [
      [retry('503'), accepted],
      ['info a push will be retried: 503'],
      { attempts: 2, retries: 1 },
      { notifies: 1, retries: 1, failures: 0 },
    ],
    [
      [misconfigured('BadCertificate'), accepted],
      ['error the provider does not accept us: BadCertificate'],
      { attempts: 2, retries: 1 },
      { notifies: 1, retries: 1, failures: 0 },
    ],
    [
      [refused('TooLarge')],
      ['warning the provider refused a push: TooLarge'],
      { attempts: 1, retries: 0 },
      { notifies: 0, retries: 0, failures: 1 },
    ],
    [[gone('Unregistered', 1)], [], { attempts: 1, retries: 0 }, { notifies: 0, retries: 0, failures: 1 }],
  ] as const) {
    const hivemind = await FakeHivemind.start(t, SERVICE);
    const left: Outcome[] = [...outcomes];
    const { notifier, lines } = startToy(t, [hivemind], () => left.shift()!);
    await hivemind.until(() => hivemind.instances.size === 1);
    hivemind.push([{}]);
    await hivemind.until(() => hivemind.outstanding === 0);
    const words = lines.map((line) => JSON.parse(line) as { level: string; msg: string });
    assert.deepEqual(
      words.filter(({ msg }) => /push|provider/.test(msg)).map(({ level, msg }) => `${level} ${msg.split(';')[0]}`),
      said,
    );
    const { attempts, retries } = notifier.counters;
    assert.deepEqual([{ attempts, retries }, notifier.statistics.total], [counters, total]);
  }
});

test('it takes twice what the provider is asked about at a time, a thousand at least, and of many providers ten thousand', async (t) => {
  const backend: Backend = { validate: () => ({ id: '' }), send: async () => [] };
  const hivemind = await FakeHivemind.start(t, SERVICE);
  // Only what is registered anew at once is seen here.
  const { notifier } = startToy(t, [hivemind], () => accepted, { backend, ping: 86_400_000 });
  const window = () => [...hivemind.instances.values()][0]?.window;
  await hivemind.until(() => window() === 1_000);
  for (const [more, expected] of [
    [{ batch: 100 }, 3_200],
    [{ concurrency: 501 }, 1_002],
    [{ batch: 3, concurrency: 200 }, 1_200],
    [{ concurrency: 499 }, 1_000],
    [{ lane: () => 'x', concurrency: 9_000 }, 10_000],
  ] as const) {
    // What was answered to the last registration has been read then.
    await hivemind.validate(SERVICE, '{}');
    await notifier.use({ ...backend, ...more });
    await hivemind.until(() => window() === expected);
  }
});

test('half of what a hivemind gives may wait for another attempt, so that new pushes find room', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier } = startToy(t, [hivemind], () => retry('503', 30_000, 'device'), {
    policy: { base: 20, cap: 3_000, lifetime: 86_400_000 },
  });
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push(Array.from({ length: 503 }, () => ({})));
  await hivemind.until(() => hivemind.refused.size === 3);
  assert.deepEqual([notifier.ends.get('given-up:too-many-retries'), notifier.sender.retrying], [3, 500]);
});

test('a hundred different ends are counted apart, and further ones together', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { notifier } = startToy(t, [hivemind], ({ id }) => refused(`reason ${id}`), { concurrency: 1 });
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([...Array.from({ length: 102 }, (_, n) => n), 7].map((n) => ({ serviceId: `${n}` })));
  await hivemind.until(() => hivemind.outstanding === 0);
  const { ends } = notifier;
  assert.equal(ends.size, 101);
  assert.deepEqual(
    ['7', '99', '100'].map((n) => ends.get(`refused:reason ${n}`)),
    [2, 1, undefined],
  );
  assert.equal(ends.get('refused:other'), 2);
});

test('an expired push is refused without asking the provider', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { sent, notifier } = startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 1);
  const ids = hivemind.push([{ expiry: Date.now() - 1, wantsAnswer: true }, { expiry: 0 }]);
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.deepEqual([...hivemind.refused], [ids[0]]);
  assert.equal(sent.length, 1);
  assert.equal(notifier.ends.get('given-up:expired'), 1);
  assert.deepEqual(hivemind.answers, [[ids[0], 'given up: expired']]);
});

for (const original of ['2024-10', 'newest'] as const)
  test(`with an original hivemind (${original}) it registers under L and its key, seals the pushes itself, and sends statistics`, async (t) => {
    const hivemind = await FakeHivemind.start(t, SERVICE, { original });
    const { notifier, sent } = startToy(t, [hivemind], ({ id }) =>
      id === 'dead' ? gone('Unregistered', 1_700_000_000_000) : accepted,
    );
    await hivemind.until(() => hivemind.instances.size === 1);
    assert.equal(hivemind.remote!.id, `L${keys.publicKey.toString('latin1')}`);
    assert.deepEqual(await hivemind.validate(SERVICE, '{"token":"abc"}'), ['0', 'abc', 'kept']);
    const encKey = randomBytes(32);
    const push = (serviceId: string) =>
      hivemind.pushPlain({
        service: SERVICE,
        serviceId,
        serviceData: null,
        encKey,
        account: Buffer.concat([Buffer.from([5]), randomBytes(32)]),
        hash: Buffer.from('hash'),
        namespace: -11,
        timestamp: 1_700_000_000_000,
        expiry: Date.now() + 1_000_000,
        data: Buffer.from('hello'),
      });
    push('phone');
    await until(() => sent.length > 0, 0);
    const { metadata, data } = openPayload(sent[0]!.payload, encKey);
    assert.equal(data?.toString(), 'hello');
    assert.match(JSON.stringify(metadata), /-11/);
    assert.equal(sent[0]!.urgent, false);
    assert.equal(notifier.hiveminds.links[0]!.dialect, 'original');
    await hivemind.until(() => hivemind.notifies > 0 && hivemind.registrations > 1);
    assert.equal(hivemind.notifies, 1);
    // Keys and order as in the original, which tells rates from the second report on.
    const [first] = hivemind.statistics;
    assert.deepEqual([...first!.keys()], ['+failures', '+notifies', '+notify_retries']);
    // The older answers that it does not know the command: nothing comes of it.
    push('dead');
    await until(() => notifier.statistics.total.failures > 0, 0);
    // What was answered to that has been read before the next push.
    await hivemind.validate(SERVICE, '{}');
    push('another');
    await until(() => notifier.statistics.total.notifies >= 2, 0);
    assert.deepEqual(hivemind.dropped, original === 'newest' ? ['dead'] : []);
    assert.equal(notifier.hiveminds.links[0]!.dialect, 'original');
    assert.ok(notifier.registered);
  });

test('an original hivemind is told of dead devices in its own way, and of no more once they are unlikely many', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE, { original: 'newest' });
  let dead = false;
  const { notifier, stop } = startToy(t, [hivemind], () => (dead ? gone('Unregistered', 1_700_000_000_000) : accepted));
  await hivemind.until(() => hivemind.instances.size === 1);
  const push = (serviceId: string) =>
    hivemind.pushPlain({
      service: SERVICE,
      serviceId,
      serviceData: null,
      encKey: randomBytes(32),
      account: Buffer.concat([Buffer.from([5]), randomBytes(32)]),
      hash: Buffer.from(serviceId),
      namespace: 0,
      timestamp: 1_700_000_000_000,
      expiry: Date.now() + 1_000_000,
      data: Buffer.from('hello'),
    });
  for (let n = 0; n < 5; n++) push(`alive ${n}`);
  await until(() => notifier.statistics.total.notifies >= 5, 0);
  dead = true;
  for (let n = 0; n < 30; n++) push(`dead ${n}`);
  await until(() => notifier.statistics.total.failures >= 30, 0);
  assert.equal(notifier.counters.goneHeldBack, 21, 'ten of fifteen are more than half');
  await stop();
  await hivemind.until(() => hivemind.dropped.length >= 9);
  assert.deepEqual(new Set(hivemind.dropped), new Set(hivemind.dropped.filter((id) => id.startsWith('dead'))));
  assert.equal(hivemind.dropped.length, 9);
});

test('when the hivemind restarts it comes back by itself, also to a hivemind of the other kind', async (t) => {
  const address = ownAddress();
  const first = await FakeHivemind.start(undefined, SERVICE, { address });
  // Long before it would register again as a sign of life.
  const { notifier } = startToy(t, [first], () => accepted, { ping: 86_400_000 });
  await first.until(() => first.instances.size === 1);
  await first.close();
  const second = await FakeHivemind.start(undefined, SERVICE, { address, original: 'newest' });
  await second.until(() => second.instances.size === 1);
  assert.equal(notifier.hiveminds.links[0]!.dialect, 'original');
  await second.close();
  const third = await FakeHivemind.start(t, SERVICE, { address, firstId: 1_000 });
  await third.until(() => third.instances.size === 1);
  assert.equal(notifier.hiveminds.links[0]!.dialect, 'ours');
  const [id] = third.push([{}]);
  await third.until(() => third.accepted.has(id!));
});

test('what ends while the hivemind is away is reported when it is back', async (t) => {
  const address = ownAddress();
  const first = await FakeHivemind.start(undefined, SERVICE, { address });
  let answer: (outcome: Outcome) => void = () => {};
  const { notifier, sent } = startToy(t, [first], ({ id }) => {
    if (id === 'b') return gone('Unregistered', 77);
    return new Promise<Outcome>((resolve) => {
      answer = resolve;
    });
  });
  await first.until(() => first.instances.size === 1);
  const [id] = first.push([{ serviceId: 'a' }]);
  await until(() => sent.length > 0, 0);
  await first.close();
  await until(() => !notifier.registered);
  answer(gone('Unregistered', 66));
  const second = await FakeHivemind.start(t, SERVICE, { address });
  await second.until(() => second.refused.has(id!) && second.gone.length > 0);
  assert.deepEqual(
    second.gone.map(({ time }) => time),
    [66],
  );
});

test('on stopping it signs off, hands back what waits, lets the provider finish, and reports both', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const pending: ((outcome: Outcome) => void)[] = [];
  const hang = () => new Promise<Outcome>((resolve) => pending.push(resolve));
  const { stop, sent, lines } = startToy(t, [hivemind], hang, { concurrency: 2 });
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push(Array.from({ length: 5 }, () => ({})));
  await until(() => pending.length >= 2, 0);
  const stopping = stop(60_000);
  await hivemind.until(() => hivemind.drained === 1);
  for (const answer of pending) answer(accepted);
  await stopping;
  await hivemind.until(() => hivemind.accepted.size === 2 && hivemind.handedBack.length === 3);
  assert.equal(sent.length, 2);
  assert.doesNotMatch(JSON.stringify(lines), /could not be reported|not answered in time/);
});

test('stopping does not wait longer than it may for a silent provider', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { stop, sent } = startToy(t, [hivemind], () => new Promise<Outcome>(() => {}));
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{}, {}]);
  await until(() => sent.length >= 2, 0);
  // It never says anything: without its own limit this would not end.
  await stop(1_300);
  await hivemind.until(() => hivemind.handedBack.length === 2);
});

test('of the time to stop a second is left for the last reports', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const clock = new FakeClock(Date.now());
  const { stop, sent, lines } = startToy(t, [hivemind], () => new Promise<Outcome>(() => {}), { clock });
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{}]);
  await until(() => sent.length === 1, 0);
  const stopping = stop(5_000);
  await hivemind.until(() => hivemind.drained === 1);
  // The answer to signing off has been read then.
  await hivemind.validate(SERVICE, '{}');
  const isOver = () => lines.some((line) => line.includes('1 pushes were not answered in time'));
  await clock.advance(3_999);
  assert.equal(isOver(), false);
  await clock.advance(1);
  assert.equal(isOver(), true);
  await stopping;
  await hivemind.until(() => hivemind.handedBack.length === 1);
});

test('stopping waits until the backend is closed, whatever comes of that', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  let closed = false;
  const close = async () => {
    await sleep(100);
    closed = true;
    throw new Error('its socket is gone');
  };
  const clock = new FakeClock(Date.now());
  const { stop, lines } = startToy(t, [hivemind], () => accepted, { clock, close });
  await hivemind.until(() => hivemind.instances.size === 1);
  await stop();
  assert.ok(closed);
  assert.match(lines.join(), /the backend could not be closed: its socket is gone/);
});

test('stopping waits no longer than half a second for a backend that cannot be closed', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const clock = new FakeClock(Date.now());
  const closing = Promise.withResolvers<void>();
  const close = () => {
    closing.resolve();
    return new Promise<void>(() => {});
  };
  const { stop, lines } = startToy(t, [hivemind], () => accepted, { clock, close });
  await hivemind.until(() => hivemind.instances.size === 1);
  const stopping = stop();
  await closing.promise;
  const isStopped = () => lines.some((line) => line.includes('0 notifications'));
  await clock.advance(499);
  assert.equal(isStopped(), false);
  await clock.advance(1);
  await stopping;
  assert.ok(isStopped());
});

test('two instances of a service run side by side, and one takes over what the other leaves', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const hang = () => new Promise<Outcome>(() => {});
  const first = startToy(t, [hivemind], hang);
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{}, {}, {}]);
  await until(() => first.sent.length >= 3, 0);
  const second = startToy(t, [hivemind], () => accepted);
  await hivemind.until(() => hivemind.instances.size === 2);
  await first.stop(1_200);
  await hivemind.until(() => hivemind.accepted.size === 3);
  assert.equal(second.sent.length, 3);
});
