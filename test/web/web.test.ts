import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Registry } from 'prom-client';
import { systemClock } from '../../src/clock.ts';
import { createLog } from '../../src/daemon/log.ts';
import type { Context } from '../../src/daemon/run.ts';
import { encodeMembers } from '../../src/session/members.ts';
import { parseIni } from '../../src/settings/ini.ts';
import { startWeb } from '../../src/web/web.ts';
import { addressOf, openPeers } from '../oxenmq/support.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { post as postTo } from '../support/http.ts';
import { until } from '../support/until.ts';
import { fakeHivemind } from './fake-hivemind.ts';

/**
 * The daemon's context, with what the front-end uses of it.
 *
 * @param hiveminds lines of spns.ini
 */
function contextFor(hiveminds: readonly string[], socket: string): { context: Context; lines: string[] } {
  const lines: string[] = [];
  const output = { write: (text: string) => lines.push(text), flush: async () => undefined, dropped: 0 };
  const web = {
    listen: `unix:${socket}`,
    bodyLimit: 100_000,
    trustProxy: false,
    rateLimit: 5,
    inFlightLimit: 10,
    metricsListen: undefined,
  };
  const keys = { onionreq: randomBytes(32) };
  const config = { web, ini: parseIni(hiveminds.join('\n')), hivemind: {}, keys };
  const log = createLog({ level: 'trace', levels: new Map(), format: 'plain' }, 'web', {
    output,
    style: 'plain',
  } as never);
  const context = { config, clock: systemClock, random: randomBytes, registry: new Registry(), log };
  return { context: context as unknown as Context, lines };
}

async function post(socketPath: string, text: string): Promise<{ status: number; body: string }> {
  const { status, body } = await postTo({ socketPath, path: '/subscribe' }, text);
  return { status, body };
}

async function untilReady(daemon: Awaited<ReturnType<typeof startWeb>>): Promise<void> {
  await until(() => daemon.ready?.().ok === true);
}

async function start(
  t: TestContext,
  answer: (body: string) => string | undefined,
  settings = (address: string) => ['[hivemind]', `listen = ${address}`],
) {
  let asked = (): void => undefined;
  const fake = await fakeHivemind(t, (_, request) => {
    const text = answer(request.parts[0]!.toString());
    if (text !== undefined) request.reply(text);
    asked();
  });
  const socket = `${fake.folder}/web.sock`;
  const { context, lines } = contextFor(settings(fake.address), socket);
  const nextAsked = () =>
    new Promise<void>((resolve) => {
      asked = resolve;
    });
  return { fake, socket, context, lines, nextAsked };
}

test("the front-end connects to listen_push where there is one, and never to the administrators' socket", async (t) => {
  const { fake, socket, context } = await start(
    t,
    () => '[]',
    (address) => ['[hivemind]', 'listen = ipc:///not/there.sock', `listen_push = ${address}`],
  );
  await fake.start();
  const daemon = await startWeb(context);
  await untilReady(daemon);
  assert.deepEqual(await post(socket, '[]'), { status: 200, body: '[]' });
  await daemon.stop(2_100);
});

test('one of several hiveminds in the settings is enough', async (t) => {
  const { fake, socket, context } = await start(
    t,
    () => '[]',
    (address) => ['[hivemind-a]', 'listen_push = ipc:///not/there.sock', '[hivemind-b]', `listen_push = ${address}`],
  );
  await fake.start();
  const daemon = await startWeb(context);
  await untilReady(daemon);
  assert.deepEqual(await post(socket, '[]'), { status: 200, body: '[]' });
  await daemon.stop(2_100);
});

test('requests in flight when the front-end stops are answered: by the hivemind, or told to retry', async (t) => {
  const { fake, socket, context, nextAsked } = await start(t, () => undefined);
  await fake.start();
  const daemon = await startWeb(context);
  await untilReady(daemon);
  const arrived = nextAsked();
  const answer = post(socket, '[{}]');
  await arrived;
  await daemon.stop(2_100);
  assert.deepEqual(await answer, {
    status: 503,
    body: '[{"error":3,"message":"Timeout waiting for push notification backend"}]\n',
  });
  await assert.rejects(post(socket, '{}'));
});

test('starts before the hivemind, is ready when that is there, and logs nothing of what clients send', async (t) => {
  const { fake, socket, context, lines } = await start(t, (body) => `{"error":5,"message":"${body.length}"}`);
  const clock = new FakeClock();
  const daemon = await startWeb({ ...context, clock });
  try {
    assert.deepEqual(daemon.ready!(), { ok: false, reasons: ['no connection to the hivemind'] });
    const early = post(socket, 'secret-token');
    await until(() => daemon.status!() === '1 requests in flight');
    await clock.advance(10_000);
    assert.equal((await early).status, 503);
    await fake.start();
    await until(async () => {
      await clock.advance(60);
      return daemon.ready!().ok;
    });
    assert.deepEqual(await post(socket, 'secret-token'), { status: 503, body: '{"error":5,"message":"12"}' });
    assert.equal(daemon.status!(), '0 requests in flight');
    assert.doesNotMatch(lines.join('\n'), /secret-token/);
  } finally {
    await daemon.stop(5_000);
  }
});

test("why the hivemind's socket cannot be used is shown where the front-end's readiness is asked for", async (t) => {
  const { fake } = await start(t, () => undefined);
  const path = `${fake.folder}/not-a-socket`;
  writeFileSync(path, '');
  const { context, lines } = contextFor(['[hivemind]', `listen = ipc://${path}`], `${fake.folder}/web.sock`);
  const daemon = await startWeb(context);
  try {
    const sentence = `no connection to the hivemind: ${path} is not a socket but something else`;
    await until(() => daemon.ready!().reasons[0] === sentence);
    assert.match(lines.join(''), /clients are told to retry.*is not a socket but something else/);
  } finally {
    await daemon.stop(5_000);
  }
});

test('a member of the cluster that cannot be reached is named where readiness is asked for, and does not end it', async (t) => {
  const members = [
    { name: 'a', address: '' },
    { name: 'b', address: 'curve://nowhere' },
  ];
  const fake = await fakeHivemind(
    t,
    () => undefined,
    () => encodeMembers({ own: 'a', members }),
  );
  members[0]!.address = fake.address;
  await fake.start();
  const { context, lines } = contextFor(['[hivemind]', `listen = ${fake.address}`], `${fake.folder}/web.sock`);
  const daemon = await startWeb(context);
  try {
    await until(() => daemon.ready!().reasons.length > 0 && daemon.ready!().ok);
    assert.deepEqual(daemon.ready!(), {
      ok: true,
      reasons: ['no connection to the hivemind b: the address that it announces is invalid'],
    });
    assert.match(lines.join(''), /connected to the hivemind a/);
    await fake.stop();
    await until(() => lines.join('').includes('no connection to the hivemind a'));
  } finally {
    await daemon.stop(2_100);
  }
});

test('the front-end that cannot listen says why, and is gone', async (t) => {
  const { fake, context } = await start(t, () => '[]');
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  await fake.start();
  const config = { ...context.config, web: { ...context.config.web, listen: `127.0.0.1:${port}` } };
  await assert.rejects(startWeb({ ...context, config }), /EADDRINUSE/);
  const without = { ...context.config, keys: { ...context.config.keys, onionreq: undefined } };
  await assert.rejects(
    startWeb({ ...context, config: without as unknown as Context['config'] }),
    /\[keys\]\.onionreq is required/,
  );
});

test('with listen_curve_public anybody may subscribe by CURVE until the front-end stops', async (t) => {
  const { fake, context, lines } = await start(t, (body) => body);
  await fake.start();
  const hivemind = { ...context.config.hivemind, listenCurvePublic: 'tcp://127.0.0.1:0' };
  const daemon = await startWeb({ ...context, config: { ...context.config, hivemind } });
  try {
    await untilReady(daemon);
    const [, endpoint, key] = /address=(tcp:\S+) publicKey=([\da-f]{64})/.exec(lines.join(''))!;
    const { peers, events } = openPeers(t);
    const connection = peers.connect(addressOf(endpoint!, Buffer.from(key!, 'hex')));
    await events.first(({ event }) => event === 'hello');
    assert.deepEqual((await connection.request('push.subscribe', ['"echo"'])).map(String), ['"echo"']);
    const figures = await context.registry.metrics();
    assert.match(figures, /spns_web_requests_total\{via="curve",route="subscribe",status="200"\} 1/);
    assert.match(figures, /listener="curve"/);
  } finally {
    await daemon.stop(2_100);
  }
});

test('a reload adopts the limits and names them', async (t) => {
  const { fake, socket, context } = await start(t, () => undefined);
  await fake.start();
  const daemon = await startWeb(context);
  try {
    await untilReady(daemon);
    const web = { ...context.config.web, rateLimit: 7, inFlightLimit: 0 };
    assert.deepEqual(await daemon.reload!({ ...context.config, web }), [
      '[web].rate_limit is now 7',
      '[web].in_flight_limit is now 0',
    ]);
    const answer = await post(socket, '{}');
    assert.deepEqual([answer.status, JSON.parse(answer.body).error], [503, 2]);
    assert.deepEqual(await daemon.reload!({ ...context.config, web }), []);
  } finally {
    await daemon.stop(5_000);
  }
});
