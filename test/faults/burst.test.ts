import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Notification } from '../../src/session/notification.ts';
import { until } from '../support/until.ts';
import { deliver, startProcess } from './hivemind-process.ts';
import { checkFigures, pushedHashes, readFigures } from './support.ts';

test('a burst of 50,000 notifications is pushed completely, each message once', async (t) => {
  const world = await startProcess(t, 100);
  const messages: Notification[] = [];
  const sent = await deliver(world, 10_000, messages);
  const unreported = world.network.servers.reduce((total, { server }) => total + server.counters.unreported, 0);
  assert.equal(sent + unreported, 50_000);
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await until(
    async () =>
      (await readFigures(world.client)).services[0]!.accepted >= (await readFigures(world.client)).since_start.pushes,
  );
  const figures = await readFigures(world.client);
  checkFigures(figures);
  const { unique, duplicates } = figures.since_start;
  assert.equal(unique + duplicates, sent);
  // What no server could tell, because its own queue was full, is the only thing that may be missing.
  assert.ok(
    unique === messages.length || unreported >= 5 * (messages.length - unique),
    `${unique} of ${messages.length}`,
  );
  const hashes = pushedHashes([world.notifier]);
  assert.equal(hashes.length, unique);
  assert.equal(new Set(hashes).size, unique);
});

test('in a burst too large for the notifier, what is given up is counted, the rest is held, and nothing comes twice', async (t) => {
  const world = await startProcess(t, 100, { outbox_max_bytes: 8_000_000 });
  world.notifier.acknowledge = false;
  const messages: Notification[] = [];
  const sent = await deliver(world, 10_000, messages);
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await world.notifier.pushes(1_000);
  const figures = await readFigures(world.client);
  checkFigures(figures);
  const [service] = figures.services;
  assert.equal(service!.in_flight, 1_000);
  assert.ok(service!.queued > 0 && service!.queued_bytes <= 10_000_000);
  assert.ok(service!.dropped.overflow! > 0);
  assert.equal(figures.since_start.pushes, 1_000 + service!.queued + service!.dropped.overflow!);
  // Now it takes them all.
  world.notifier.acknowledge = true;
  world.notifier.report({ accepted: world.notifier.sealed.map(({ id }) => id) });
  await world.notifier.pushes(1_000 + service!.queued);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  checkFigures(await readFigures(world.client));
  const hashes = pushedHashes([world.notifier]);
  assert.equal(hashes.length, 1_000 + service!.queued);
  assert.equal(new Set(hashes).size, hashes.length);
});
