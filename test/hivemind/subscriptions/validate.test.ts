import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { Validation } from '../../../src/hivemind/subscriptions/validate.ts';
import type { Commands } from '../../../src/oxenmq/remote.ts';
import { OxenmqError, type Part, type Remote } from '../../../src/oxenmq/remote.ts';
import { decodeServiceInfos, encodeRegistration, encodeVerdicts } from '../../../src/session/notifier-protocol.ts';
import { startTestHivemind } from '../../support/hivemind.ts';
import { subscribe } from '../../support/requests.ts';

const id = (name: string) => name.padEnd(32, '.');

interface Asked {
  readonly command: string;
  readonly service: string;
  readonly infos: string[];
}

/** A notifier that calls each device what its service_info says, unless `answer` says something else. */
function notifier(answer?: (infos: readonly string[]) => Part[] | Promise<Buffer[]>) {
  const asked: Asked[] = [];
  const verdict = (info: string) => ['0', id(JSON.parse(info) as string)];
  const remote: Remote = {
    id: 'notifier',
    send: () => true,
    request: async (command, [service, part]) => {
      const many = command === 'notifier.validate_many';
      const infos = many ? decodeServiceInfos(part as Buffer).map(String) : [String(part)];
      asked.push({ command, service: String(service), infos });
      const reply = await (answer?.(infos) ?? (many ? [encodeVerdicts(infos.map(verdict))] : verdict(infos[0]!)));
      return reply.map((one) => Buffer.from(one as string));
    },
  };
  return { remote, asked };
}

/** Everything is sent when `flush` is called. */
function setUp() {
  const deferred: (() => void)[] = [];
  const validation = new Validation((flush) => deferred.push(flush));
  const flush = () => {
    const due = deferred.splice(0);
    for (const one of due) one();
    return due.length;
  };
  return { validation, flush };
}

test('devices that are asked about in one turn go to their notifier in one message', async () => {
  const { validation, flush } = setUp();
  const [apns, huawei] = [notifier(), notifier()];
  const ask = (service: string, { remote }: typeof apns, name: string) =>
    validation.ask(service, { remote, validatesMany: true }, name);
  const devices = Promise.all([ask('apns', apns, 'a'), ask('huawei', huawei, 'c'), ask('apns', apns, 'b')]);
  assert.equal(flush(), 1);
  assert.deepEqual(
    (await devices).map(({ serviceId }) => serviceId),
    [id('a'), id('c'), id('b')],
  );
  assert.deepEqual(apns.asked, [{ command: 'notifier.validate_many', service: 'apns', infos: ['"a"', '"b"'] }]);
  // One alone goes as it always did.
  assert.deepEqual(huawei.asked, [{ command: 'notifier.validate', service: 'huawei', infos: ['"c"'] }]);

  const next = ask('apns', apns, 'd');
  flush();
  assert.equal((await next).serviceId, id('d'));
  assert.equal(apns.asked.length, 2);
});

test('a notifier that does not accept several is asked about each separately', async () => {
  const { validation, flush } = setUp();
  const { remote, asked } = notifier();
  await Promise.all(['a', 'b'].map((name) => validation.ask('apns', { remote, validatesMany: false }, name)));
  assert.equal(flush(), 0);
  assert.deepEqual(
    asked.map(({ command }) => command),
    ['notifier.validate', 'notifier.validate'],
  );
});

test('a message holds at most 64 devices and 64 KiB', async () => {
  const { validation, flush } = setUp();
  const { remote, asked } = notifier((infos) =>
    infos.length > 1 ? [encodeVerdicts(infos.map(() => ['0', id('x')]))] : ['0', id('x')],
  );
  const large = 'l'.repeat(40_000);
  const names = [...Array.from({ length: 130 }, (_, index) => `${index}`), large, large, 'small'];
  const devices = names.map((name) => validation.ask('apns', { remote, validatesMany: true }, name));
  flush();
  await Promise.all(devices);
  assert.deepEqual(
    asked.map(({ infos }) => infos.length),
    [64, 64, 3, 2],
  );
});

test('devices of other services and of other notifiers go in messages of their own', async () => {
  const { validation, flush } = setUp();
  const [one, other] = [notifier(), notifier()];
  const ask = (service: string, { remote }: typeof one, name: string) =>
    validation.ask(service, { remote, validatesMany: true }, name);
  const asked = Promise.all([ask('a', one, '1'), ask('b', one, '2'), ask('a', other, '3'), ask('a', one, '4')]);
  flush();
  await asked;
  assert.deepEqual(
    [one, other].map((each) => each.asked.map(({ service, infos }) => [service, ...infos])),
    [
      [
        ['a', '"1"', '"4"'],
        ['b', '"2"'],
      ],
      [['a', '"3"']],
    ],
  );
});

test('65,536 bytes of service_infos fit into a message', async () => {
  for (const [bytes, expected] of [
    [35_532, [2]],
    [35_533, [1, 1]],
  ] as const) {
    const { validation, flush } = setUp();
    const { remote, asked } = notifier((infos) =>
      infos.length > 1 ? [encodeVerdicts(infos.map(() => ['0', id('x')]))] : ['0', id('x')],
    );
    // Each has two quotation marks.
    const names = [30_000, bytes].map((length) => 'x'.repeat(length));
    const devices = names.map((name) => validation.ask('apns', { remote, validatesMany: true }, name));
    flush();
    await Promise.all(devices);
    assert.deepEqual(
      asked.map(({ infos }) => infos.length),
      expected,
    );
  }
});

test('a device has a name of 32 to 999 bytes of UTF-8 without NUL, and at most 99,999 bytes of data', async () => {
  const x = (count: number) => 'x'.repeat(count);
  for (const [reply, isGood] of [
    [['0', x(31)], false],
    [['0', x(32)], true],
    [['0', x(999)], true],
    [['0', x(1_000)], false],
    [['0', `${x(40)}\0`], false],
    [['0', `${x(40)}\x01`], true],
    [['0', Buffer.alloc(40, 0xff)], false],
    [['0', x(32), Buffer.alloc(99_999)], true],
    [['0', x(32), Buffer.alloc(100_000)], false],
    [['0'], false],
    [[], false],
    [['nought', x(32)], false],
  ] as const) {
    const { validation } = setUp();
    const { remote } = notifier(() => [...reply]);
    const asked = validation.ask('apns', { remote, validatesMany: false }, 'a');
    if (isGood) {
      const { serviceId, serviceData } = await asked;
      assert.deepEqual([serviceId, serviceData], [String(reply[1]), reply[2] ?? null]);
    } else await assert.rejects(asked, { name: 'RequestError', code: 4 });
  }
});

test('each client is told its own verdict, and a malformed one concerns nobody else', async () => {
  const { validation, flush } = setUp();
  const verdicts = [['4', 'no'], ['0', 'short'], ['0', id('ok'), Buffer.from('data')], [], ['0', id('x'), 'y', 'z']];
  const { remote } = notifier(() => [encodeVerdicts(verdicts)]);
  const asked = verdicts.map((_, index) => validation.ask('apns', { remote, validatesMany: true }, index));
  flush();
  const told = (await Promise.allSettled(asked)).map((one) =>
    one.status === 'fulfilled' ? one.value : [one.reason.code, one.reason.message],
  );
  const nonsense = [4, 'An error occured while processing your request'];
  assert.deepEqual(told, [
    [4, 'no'],
    nonsense,
    { serviceId: id('ok'), serviceData: Buffer.from('data') },
    nonsense,
    nonsense,
  ]);
});

test('an answer that cannot be read, or is for another number of devices, or an error, goes to all', async () => {
  const timeout = () => Promise.reject(new OxenmqError('TIMEOUT', 'gone'));
  const unknown = () => Promise.reject(new OxenmqError('UNKNOWNCOMMAND', 'what?'));
  for (const [answer, code] of [
    [() => ['rubbish'], 4],
    [() => [], 4],
    [() => [encodeVerdicts([['0', id('a')]])], 4],
    [
      () => [
        encodeVerdicts([
          ['0', id('a')],
          ['0', id('b')],
        ]),
        'more',
      ],
      4,
    ],
    [timeout, 3],
    [unknown, 4],
  ] as const) {
    const { validation, flush } = setUp();
    const { remote } = notifier(answer);
    const asked = ['a', 'b'].map((name) => validation.ask('apns', { remote, validatesMany: true }, name));
    flush();
    for (const one of asked) await assert.rejects(one, { name: 'RequestError', code });
  }
});

test('a hivemind asks a notifier that says it accepts several about the devices of one request together', async (t) => {
  const messages: number[] = [];
  const verdict = (info: Buffer) => ['0', (JSON.parse(info.toString()) as { token: string }).token];
  const commands: Commands = {
    notifier: {
      access: 'none',
      commands: {
        validate: {
          kind: 'request',
          handler: (message) => {
            messages.push(1);
            message.reply(...verdict(message.parts[1]!));
          },
        },
        validate_many: {
          kind: 'request',
          handler: (message) => {
            const infos = decodeServiceInfos(message.parts[1]!);
            messages.push(infos.length);
            message.reply(encodeVerdicts(infos.map(verdict)));
          },
        },
      },
    },
  };
  const hivemind = await startTestHivemind(t);
  const connection = hivemind.connect(commands);
  const registration = { service: 'apns', instance: randomBytes(16), window: 10, validatesMany: true };
  await connection.request('admin.register_notifier', [encodeRegistration(registration)]);
  const tokens = Array.from({ length: 40 }, (_, index) => id(`token ${index}`));
  const elements = tokens.map((token) => ({
    ...subscribe(sessionAccount(randomBytes), token, { key: randomBytes(32) }),
    service: 'apns',
  }));
  const [reply] = await hivemind.ask('push.subscribe', JSON.stringify(elements));
  const replies = JSON.parse(String(reply)) as { added?: boolean }[];
  assert.deepEqual(
    replies.map(({ added }) => added),
    tokens.map(() => true),
  );
  assert.equal(
    messages.reduce((sum, count) => sum + count),
    40,
  );
  assert.ok(messages.length < 30, `${messages.length} messages`);
});
