import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseJson } from '../../src/codec/json.ts';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import { type Backend, type CreateBackend, Refusal } from '../../src/notifiers/runtime/backend.ts';
import { loadBackend } from '../../src/notifiers/runtime/load.ts';
import { vectors } from '../support/vectors.ts';
import { contextOf, delivery, folder, sectionOf } from './support.ts';

interface Vectors {
  validate: { notifier: string; request_parts: string[]; reply: string[] }[];
}

const expected = 'Invalid token: expected an even number of hexadecimal digits, 64 to 400, not';

/**
 * Where we answer differently on purpose. Apple's tokens have no fixed length, are hexadecimal, and the same in
 * capitals. The original takes lists for tokens and `true` for a number by accident, and tells clients the errors of
 * its language; here all of them are code 4 with a sentence.
 */
const DIFFERENT: Record<string, string[]> = {
  [`apns {"token":"${'z'.repeat(64)}"}`]: ['1', `${expected} 64 characters`],
  [`apns {"token":"${'A'.repeat(64)}"}`]: ['0', 'a'.repeat(64)],
  [`apns {"token":"${'a'.repeat(63)}"}`]: ['1', `${expected} 63 characters`],
  [`apns {"token":"${'a'.repeat(65)}"}`]: ['1', `${expected} 65 characters`],
  'apns {"token":""}': ['1', `${expected} 0 characters`],
  'apns {"token":null}': ['1', `${expected} a null`],
  'apns {"token":5}': ['1', `${expected} a number`],
  'apns "x"': ['4', 'Invalid service_info: expected an object'],
  'apns 5': ['4', 'Invalid service_info: expected an object'],
  'apns null': ['4', 'Invalid service_info: expected an object'],
  'apns []': ['4', 'Invalid service_info: expected an object'],
  'firebase {"token":5}': ['4', 'Invalid firebase device token'],
  'firebase {"token":["a","b"]}': ['4', 'Invalid firebase device token'],
  'firebase "x"': ['4', 'Invalid service_info: expected an object'],
  'dummy {"foo":"TEST-1","bar":true}': ['4', 'Invalid input: bar must be an integer'],
};

test('devices are validated as the original does, except for the differences named above', async (t) => {
  const path = await folder(t);
  const fakes = { apns: await startFakeApns(), firebase: await startFakeFcm(), huawei: await startFakeHuawei() };
  const backends = new Map<string, Backend>();
  for (const service of ['apns', 'apns-sandbox', 'firebase', 'huawei', 'dummy']) {
    const create: CreateBackend = await loadBackend(service, sectionOf(`notify-${service}`, {}));
    const fake = fakes[service.replace('-sandbox', '') as keyof typeof fakes];
    backends.set(service, await create(contextOf(service, fake ? await fake.settings(path) : {})));
  }
  t.after(async () => {
    for (const backend of backends.values()) await backend.close?.();
    for (const fake of Object.values(fakes)) await fake.close();
  });
  const unused = new Set(Object.keys(DIFFERENT));
  for (const { notifier, request_parts, reply } of vectors<Vectors>('notifiers.json').validate) {
    const [name, json] = request_parts;
    // What is no request for this notifier, or not JSON, is the runtime's affair: notifier.test.ts.
    if (name !== notifier || request_parts.length !== 2 || json === '{nope') continue;
    let key = `${notifier} ${json}`;
    if (reply.length > 3) {
      key = `${notifier} a list of ${reply.length - 1}`;
      assert.deepEqual(answer(backends.get(notifier)!, json!), ['1', `${expected} a list`]);
      continue;
    }
    unused.delete(key);
    assert.deepEqual(answer(backends.get(notifier)!, json!), DIFFERENT[key] ?? reply, key);
  }
  assert.deepEqual([...unused], []);
});

test('an Apple device token has any even number of hexadecimal digits from 64 to 400, and is kept in lower case', async (t) => {
  const fake = await startFakeApns();
  const backend = await (await loadBackend('apns', sectionOf('', {})))(
    contextOf('apns', await fake.settings(await folder(t))),
  );
  t.after(async () => {
    await backend.close?.();
    await fake.close();
  });
  for (const digits of [64, 66, 108, 160, 200, 400]) {
    const token = 'aB3f'.repeat(100).slice(0, digits);
    assert.deepEqual(answer(backend, JSON.stringify({ token })), ['0', token.toLowerCase()], token);
    // What was taken can be sent to.
    assert.deepEqual(await backend.send([delivery(token.toLowerCase())]), [{ kind: 'accepted' }]);
  }
  for (const token of [
    'a'.repeat(62),
    'a'.repeat(65),
    'a'.repeat(401),
    'a'.repeat(402),
    `${'a'.repeat(63)}g`,
    ` ${'a'.repeat(63)}`,
    `${'a'.repeat(64)}\n`,
    `0x${'a'.repeat(62)}`,
    `${'a'.repeat(32)} ${'a'.repeat(31)}`,
    '\u{1d7d8}'.repeat(64),
    '\uff10'.repeat(64),
  ]) {
    assert.equal(answer(backend, JSON.stringify({ token }))[0], '1', JSON.stringify(token));
  }
});

function answer(backend: Backend, json: string): string[] {
  try {
    const { id, data } = backend.validate(parseJson(json));
    return ['0', id, ...(data ? [Buffer.from(data).toString()] : [])];
  } catch (error) {
    assert.ok(error instanceof Refusal, String(error));
    return [String(error.code), error.message];
  }
}

test('a service of an unknown name is refused with a sentence', async () => {
  await assert.rejects(loadBackend('apsn', sectionOf('notify-apsn', {})), /no notifier named apsn.*module = /);
  await assert.rejects(
    loadBackend('x', sectionOf('notify-x', { module: '/nowhere.ts' })),
    /\[notify-x\].module = \/nowhere.ts: cannot be loaded/,
  );
  const file = new URL('../../src/clock.ts', import.meta.url).pathname;
  await assert.rejects(loadBackend('x', sectionOf('notify-x', { module: file })), /exports no function named create/);
});
