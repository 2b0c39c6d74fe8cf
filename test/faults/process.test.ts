import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Notification } from '../../src/session/notification.ts';
import { until } from '../support/until.ts';
import { deliver, startProcess } from './hivemind-process.ts';
import { assertOnceEach, checkFigures, readFigures } from './support.ts';

/** 3,000 messages have come in, and a notifier that acknowledges nothing has as many pushes as its window holds. */
async function startUnacknowledged(t: TestContext) {
  const world = await startProcess(t, 50);
  world.notifier.acknowledge = false;
  const messages: Notification[] = [];
  let sent = 0;
  for (let part = 0; part < 3; part++) {
    // A server has room for as many, however late they leave: none is missing.
    sent += await deliver(world, 1_000, messages);
    await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  }
  await world.notifier.pushes(1_000);
  return { world, messages };
}

test('SIGTERM with thousands of pushes in flight: the notifier has time to acknowledge them, and the exit code is 0', async (t) => {
  const { world, messages } = await startUnacknowledged(t);
  world.child.kill('SIGTERM');
  await until(() => world.output().includes('stopping'));
  world.notifier.acknowledge = true;
  world.notifier.report({ accepted: world.notifier.sealed.map(({ id }) => id) });
  await world.notifier.pushes(messages.length);
  assert.deepEqual(await world.ended, 0, world.output());
  assert.doesNotMatch(world.output(), /could not be handed over|have not reported/);
  assert.match(world.output(), /of 3000 pushes 3000 were accepted/);
  assertOnceEach([world.notifier], messages);
});

test('SIGTERM with pushes that nobody acknowledges: they are given up in time, those already with the notifier are counted separately, and none is missing', async (t) => {
  const { world, messages } = await startUnacknowledged(t);
  const acknowledged = world.notifier.sealed.slice(0, 400);
  world.notifier.report({ accepted: acknowledged.map(({ id }) => id) });
  await world.notifier.pushes(1_400);
  const before = await readFigures(world.client);
  checkFigures(before);
  assert.equal(before.services[0]!.accepted, 400);
  world.child.kill('SIGTERM');
  assert.deepEqual(await world.ended, 0, world.output());
  await until(() => world.output().includes('not reported on'));
  assert.match(world.output(), /1600 pushes could not be handed over and are given up/);
  assert.match(world.output(), /1000 pushes are with notifiers that have not reported on them/);
  assert.match(world.output(), /of 3000 pushes 400 were accepted, 0 refused, .* 1600 given up, 1000 not reported on/);
  assert.equal(400 + 1_600 + 1_000, messages.length);
});

test('a stdout whose reader has gone stops neither the pushes nor an orderly stop', async (t) => {
  const world = await startProcess(t, 20);
  world.child.stdout!.destroy();
  // Something to say: a service of each name registers.
  for (let index = 0; index < 200; index++) world.client.send('admin.register_service', `service ${index}`);
  const messages: Notification[] = [];
  let sent = 0;
  for (let round = 0; round < 5; round++) {
    sent += await deliver(world, 100, messages);
    await world.notifier.pushes(messages.length);
  }
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await until(async () => (await readFigures(world.client)).services.every(({ in_flight: held }) => held === 0));
  const figures = await readFigures(world.client);
  checkFigures(figures);
  assert.ok(figures.services.length > 200, 'it had as much to say');
  assertOnceEach([world.notifier], messages);
  world.child.kill('SIGTERM');
  assert.deepEqual(await world.ended, 0);
});

test('a hivemind that was frozen for seconds handles what arrived meanwhile, and forgets nobody', async (t) => {
  const world = await startProcess(t, 50);
  const messages: Notification[] = [];
  let sent = await deliver(world, 500, messages);
  world.child.kill('SIGSTOP');
  sent += await deliver(world, 500, messages);
  // Real time: this is about a process that does not run.
  await sleep(3_000);
  world.child.kill('SIGCONT');
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  sent += await deliver(world, 100, messages);
  await world.notifier.pushes(messages.length);
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  const figures = await readFigures(world.client);
  checkFigures(figures);
  assert.equal(figures.services[0]!.notifiers, 1);
  assert.equal(figures.connections, 5);
  assertOnceEach([world.notifier], messages);
});
