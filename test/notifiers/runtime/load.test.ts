import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadBackend } from '../../../src/notifiers/runtime/load.ts';
import { BUILT_IN_SERVICES } from '../../../src/settings/notifier.ts';
import { ConfigError } from '../../../src/settings/section.ts';
import { folder, sectionOf } from '../support.ts';

const load = (service: string, keys: Record<string, string> = {}) =>
  loadBackend(service, sectionOf(`notify-${service}`, keys));

test('each service that comes with SPNS has a backend', async () => {
  for (const service of BUILT_IN_SERVICES) assert.equal(typeof (await load(service)), 'function', service);
  assert.equal(await load('apns-sandbox'), await load('apns'));
  assert.notEqual(await load('huawei'), await load('apns'));
});

test("a module of an operator's own is loaded, also in the place of one of ours", async (t) => {
  const module = join(await folder(t), 'mine.mjs');
  await writeFile(module, "export const create = () => 'mine';");
  for (const service of ['mine', 'apns']) {
    const create = (await load(service, { module })) as unknown as () => string;
    assert.equal(create(), 'mine');
  }
});

test('a service that is not known, and a module that is not one, are told in a sentence', async (t) => {
  const path = await folder(t);
  const [empty, broken] = [join(path, 'empty.mjs'), join(path, 'broken.mjs')];
  await writeFile(empty, 'export const create = 7;');
  await writeFile(broken, 'throw new Error("it is broken");');
  for (const [service, keys, words] of [
    [
      'nope',
      {},
      /^there is no notifier named nope: those that come with SPNS are apns, .*; for one of your own, set module/,
    ],
    ['mine', { module: empty }, /^\[notify-mine\]\.module = .*empty\.mjs: exports no function named create$/],
    ['mine', { module: broken }, /^\[notify-mine\]\.module = .*broken\.mjs: cannot be loaded: it is broken$/],
  ] as const)
    await assert.rejects(load(service, keys), (error: Error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, words);
      return true;
    });
});
