import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { VERSION } from '../../src/version.ts';
import { start } from './child.ts';
import { NotifySocket } from './notify-socket.ts';

function systemd(t: TestContext): { socket: NotifySocket; env: NodeJS.ProcessEnv } {
  const path = `@spns-run-${randomUUID()}`;
  const socket = new NotifySocket(path);
  t.after(() => socket.close());
  return { socket, env: { NOTIFY_SOCKET: path } };
}

describe('the life of a daemon', { concurrency: 4 }, () => {
  test('a daemon is ready once it is built, and SIGTERM stops it in order with 0', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { env });
    await child.line(/info notify-fixture: up/);
    await socket.message(/^READY=1$/);
    assert.deepEqual(socket.messages, ['STATUS=Starting', 'STATUS=7 notifications', 'READY=1']);
    assert.match(readFileSync(`/proc/${child.process.pid}/cmdline`, 'latin1'), /^spns-notifier-fixture\0*$/);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);
    await socket.message(/^STOPPING=1$/);
    assert.match(child.lines.join('\n'), /stopping signal=SIGTERM\n.*draining deadline=9000\n.*stopped seconds=/);
  });

  test('SIGINT does the same, and a forgotten timer keeps nothing alive', async (t) => {
    const child = start(t);
    await child.line(/up$/);
    child.process.kill('SIGINT');
    assert.equal(await child.ended, 0);
  });

  test('a second signal ends it at once with 1', async (t) => {
    const child = start(t, { what: 'stop-hangs' });
    await child.line(/up$/);
    child.process.kill('SIGTERM');
    await child.line(/draining/);
    child.process.kill('SIGINT');
    assert.equal(await child.ended, 1);
    await child.line(/critical .*told to stop a second time/);
    assert.doesNotMatch(child.lines.join('\n'), /did not stop in time/);
  });

  test('a stop that fails ends with 1', async (t) => {
    const child = start(t, { what: 'stop-fails' });
    await child.line(/up$/);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 1);
    await child.line(/critical .*could not stop in order: no stop today/);
  });

  test('a daemon that gives up says why, once, and stops in order with 1', async (t) => {
    const child = start(t, { what: 'gives-up' });
    assert.equal(await child.ended, 1);
    await child.line(/critical notify-fixture: cannot go on, stopping: somebody else is here$/);
    await child.line(/draining/);
    assert.equal(child.lines.filter((line) => line.includes('cannot go on')).length, 1);
    const early = start(t, { what: 'start-gives-up' });
    assert.equal(await early.ended, 1);
    await early.line(/draining/);
  });

  test('a start that fails ends with 1 and says why', async (t) => {
    const child = start(t, { what: 'start-fails' });
    assert.equal(await child.ended, 1);
    await child.line(/critical notify-fixture: could not start: no start today: the wrong kind of snow$/);
  });

  test('a start that is waiting stops in order when told to', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { what: 'start-waits', env });
    await child.line(/waiting/);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);
    await socket.message(/^STOPPING=1$/);
    assert(!socket.messages.includes('READY=1'));
  });

  test('an invalid configuration is reported completely and ends with 1', async (t) => {
    const child = start(t, { config: 'limit = many\nmetrics_listen = here\n[log]\nlevel = loud\n' });
    assert.equal(await child.ended, 1);
    await child.line(/critical .*\[log\]\.level = loud: must be one of/);
    await child.line(/critical .*\[notify-fixture\]\.limit = many: must be a whole number$/);
    await child.line(/critical .*\[notify-fixture\]\.metrics_listen = here: must be host:port/);
  });

  test('a missing configuration says what to do', async (t) => {
    const child = start(t, { env: { SPNS_CONFIG: 'nowhere.ini' } });
    assert.equal(await child.ended, 1);
    await child.line(/nowhere\.ini is not there: name your configuration in the environment variable SPNS_CONFIG/);
  });

  for (const [what, message] of [
    ['throws', 'nobody caught me'],
    ['rejects', 'nobody awaited me'],
  ]) {
    test(`an internal error (${what}) is logged as critical, with the place, and ends with 1`, async (t) => {
      const child = start(t, { what: what! });
      assert.equal(await child.ended, 1);
      await child.line(new RegExp(`critical .*internal error.*${message} stack=.*fixtures/daemon\\.ts`));
    });
  }

  test('SIGHUP reads the configuration again and logs what changed', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { env, config: 'limit = 1\n' });
    await child.line(/up$/);
    child.configure('[notify-fixture]\nlimit = 2\n[log]\nlevel = debug\n');
    child.process.kill('SIGHUP');
    await child.line(/info .*the configuration file has changed keys="\[notify-fixture\]\.limit \[log\]\.level"/);
    await child.line(/info .*reloaded: limit 1 -> 2$/);
    await child.line(/info .*reloaded: log levels and format$/);
    await socket.message(/^RELOADING=1\nMONOTONIC_USEC=\d+$/);
    await socket.message(/^READY=1$/, 3);
    child.process.kill('SIGHUP');
    await child.line(/reloaded: the configuration is as it was/);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);
  });

  test('what a reload cannot change is named until the daemon is restarted', async (t) => {
    const child = start(t, { config: 'limit = 1\n' });
    await child.line(/up$/);
    child.configure(
      '[hivemind]\nlisten = ipc:///elsewhere\nmax_connects = 3\n[notify-fixture]\nlimit = 1\nmetrics_listen = 127.0.0.1:0\n',
    );
    child.process.kill('SIGHUP');
    const waiting =
      /warning .*these changes need a restart keys="\[notify-fixture\]\.metrics_listen \[hivemind\]\.listen"/;
    await child.line(waiting);
    await child.line(/reloaded: nothing that can change without a restart has changed/);
    child.process.kill('SIGHUP');
    await child.line(/reloaded: the configuration is as it was/);
    assert.equal(child.lines.filter((line) => waiting.test(line)).length, 2);
  });

  test('a SIGHUP during the start takes effect after it', async (t) => {
    const child = start(t, { what: 'start-slow', config: 'limit = 1\n' });
    await child.line(/waiting/);
    child.configure('[notify-fixture]\nlimit = 5\n');
    child.process.kill('SIGHUP');
    await child.line(/reloaded: limit 1 -> 5/);
  });

  test('an invalid new configuration is refused, and the old one stays in force', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { env, config: 'limit = 1\nmetrics_listen = 127.0.0.1:0\n' });
    const metrics = /listen=(\S+)/.exec(await child.line(/metrics and health/))![1];
    const isOk = async () =>
      /^spns_config_reload_ok (\d)$/m.exec(await (await fetch(`http://${metrics}/metrics`)).text())![1];
    await child.line(/up$/);
    assert.equal(await isOk(), '1');
    child.configure('[notify-fixture]\nlimit = lots\n[web]\nlisten = x\n');
    child.process.kill('SIGHUP');
    await child.line(/error .*\[notify-fixture\]\.limit = lots: must be a whole number/);
    await child.line(/error .*\[web\]\.listen = x: must be/);
    await child.line(/error .*the new configuration is refused, the old one stays in force/);
    await socket.message(/^STATUS=the new configuration is refused, .*: must be .* \(and 1 more\); 7 notifications$/);
    assert.equal(await isOk(), '0');
    child.configure('[notify-fixture]\nlimit = 13\n');
    child.process.kill('SIGHUP');
    await child.line(/error .*could not be applied: 13 is refused/);
    await socket.message(/^STATUS=the new configuration is refused, .*: 13 is refused; 7 notifications$/);
    const refused = socket.read().length;
    child.configure('[notify-fixture]\nlimit = 4\n');
    child.process.kill('SIGHUP');
    await child.line(/reloaded: limit 1 -> 4/);
    await socket.message(/^STATUS=7 notifications$/, refused);
    assert.equal(await isOk(), '1');
  });

  test('the watchdog is fed, and no longer once the event loop is stuck', async (t) => {
    const fed = systemd(t);
    const child = start(t, { env: { ...fed.env, WATCHDOG_USEC: '40000' } });
    await fed.socket.message(/^WATCHDOG=1$/);
    const before = fed.socket.read().length;
    await fed.socket.message(/^WATCHDOG=1$/, before);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);

    const stuck = systemd(t);
    const blocked = start(t, { what: 'blocks', env: { ...stuck.env, WATCHDOG_USEC: '40000' } });
    // Its last line before it blocks, in the same turn of the event loop.
    await blocked.line(/up$/);
    const count = stuck.socket.read().length;
    await sleep(100);
    assert.equal(stuck.socket.read().length, count);
    blocked.process.kill('SIGKILL');
    assert.equal(await blocked.ended, 'SIGKILL');
  });

  test('health and metrics are served while the daemon starts, runs and is not ready', async (t) => {
    const listen = 'metrics_listen = 127.0.0.1:0\n';
    const address = (line: string) => /listen=(\S+)/.exec(line)![1]!;
    const waiting = start(t, { what: 'start-waits', config: listen });
    const starting = address(await waiting.line(/metrics and health/));
    const reply = await fetch(`http://${starting}/ready`);
    assert.equal(reply.status, 503);
    assert.deepEqual(await reply.json(), { ready: false, reasons: ['starting'] });
    assert.equal((await fetch(`http://${starting}/live`)).status, 200);

    const { socket, env } = systemd(t);
    const child = start(t, { what: 'unready', config: listen, env });
    const running = address(await child.line(/metrics and health/));
    await child.line(/up$/);
    assert.deepEqual(await (await fetch(`http://${running}/ready`)).json(), { ready: false, reasons: ['no hivemind'] });
    await socket.message(/^STATUS=no hivemind; 7 notifications$/);
    assert.equal(await (await fetch(`http://${running}/hello`)).text(), 'hello');
    assert.match(await (await fetch(`http://${running}/metrics`)).text(), /^nodejs_eventloop_lag_seconds /m);
    const build = /^spns_build_info\{version="([^"]+)",node="([^"]+)"\} 1$/m;
    assert.deepEqual(build.exec(await (await fetch(`http://${running}/metrics`)).text())?.slice(1), [
      VERSION,
      process.versions.node,
    ]);
  });

  test('a metrics port that is taken ends the start with 1 and is named', async (t) => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    t.after(() => other.close());
    const { port } = other.address() as { port: number };
    const child = start(t, { config: `metrics_listen = 127.0.0.1:${port}\n` });
    assert.equal(await child.ended, 1);
    await child.line(/could not start: cannot listen on .*another process already listens there/);
  });

  test('a stdout that nobody reads blocks neither the daemon nor its end', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { what: 'flood', unread: true, env: { ...env, WATCHDOG_USEC: '40000' } });
    await socket.message(/^READY=1$/);
    const before = socket.read().length;
    await socket.message(/^WATCHDOG=1$/, before + 20);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);
  });

  test('a stdout whose reader has gone does not end the daemon', async (t) => {
    const { socket, env } = systemd(t);
    const child = start(t, { what: 'flood', unread: true, env: { ...env, WATCHDOG_USEC: '40000' } });
    await socket.message(/^READY=1$/);
    child.process.stdout!.destroy();
    const before = socket.read().length;
    await socket.message(/^WATCHDOG=1$/, before + 20);
    child.process.kill('SIGTERM');
    assert.equal(await child.ended, 0);
  });
});
