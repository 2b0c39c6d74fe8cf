import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { sessionAccount } from '../../src/devnet/account.ts';
import { NotifySocket } from '../daemon/notify-socket.ts';
import { post } from '../support/http.ts';
import { ended } from '../support/once.ts';
import { createDatabase } from '../support/postgres.ts';
import { subscribe } from '../support/requests.ts';
import { inTime } from '../support/until.ts';
import { folder, spns, startSpns } from './spns.ts';

/** A machine may have a user spns, who may not look into these tests' folders. */
const asMe = process.getuid?.() === 0 ? ['--user', 'root'] : [];

/** A whole suite under one parent; its output as it grows. */
async function suite(
  t: { after(fn: () => Promise<void>): void },
  log = '',
  env: Record<string, string> = {},
  listen = 'listen = ipc://./h.sock',
) {
  const url = await createDatabase(t);
  const dir = await folder(t, {
    'hive.key': randomBytes(32).toString('hex'),
    'web.key': randomBytes(32).toString('hex'),
    'spns.ini': [
      `[db]\nurl = ${url.replaceAll('%', '%%')}`,
      `[hivemind]\n${listen}\noxend_rpc = ipc://./no-oxend.sock\nstartup_wait = 0`,
      '[keys]\nhivemind = hive.key\nonionreq = web.key',
      '[web]\nlisten = unix:./web.sock',
      '[notify-dummy]',
      log,
    ].join('\n'),
  });
  const child = startSpns(['run'], dir, env);
  let output = '';
  const look = new Set<() => void>();
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      for (const each of look) each();
    });
  }
  const end = ended(child);
  void end.then(() => {
    for (const each of look) each();
  });
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      for (const pid of children(child.pid!)) process.kill(pid, 'SIGKILL');
      child.kill('SIGKILL');
    }
    await end;
  });
  return {
    dir,
    child,
    ended: end,
    output: () => output,
    /** Resolves when the output has matched so many times. */
    said: (pattern: RegExp, times = 1) =>
      inTime(
        new Promise<void>((resolve, reject) => {
          const check = () => {
            if ((output.match(new RegExp(pattern, 'g')) ?? []).length >= times) {
              look.delete(check);
              resolve();
            } else if (child.exitCode !== null) reject(new Error(`ended before it said ${pattern}:\n${output}`));
          };
          look.add(check);
          check();
        }),
        () => `${pattern} in:\n${output}`,
      ),
  };
}

/** The processes that `pid` has started, by the program that they run. */
function children(pid: number, program = ''): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((each) => {
      try {
        const parent = / [A-Z] (\d+) /.exec(readFileSync(`/proc/${each}/stat`, 'latin1'))?.[1];
        return Number(parent) === pid && readFileSync(`/proc/${each}/cmdline`, 'latin1').includes(program);
      } catch {
        return false;
      }
    });
}

/** A subscription of a new account for the dummy notifier, and everything in it that no log may hold. */
function subscription(): { body: string; secrets: string[] } {
  const account = sessionAccount(randomBytes);
  const token = `TEST-${randomBytes(16).toString('hex')}`;
  const key = randomBytes(32);
  const body = { ...subscribe(account, token, { key }), service: 'dummy', service_info: { foo: token, bar: 7 } };
  const secrets = [account.id, account.sessionEd25519!, key, Buffer.from(body.signature, 'base64')].flatMap((bytes) => [
    bytes.toString('hex'),
    bytes.toString('base64'),
  ]);
  return { body: JSON.stringify(body), secrets: [token, ...secrets] };
}

test('one command runs the whole suite, restarts what dies, and stops everything in order', async (t) => {
  const { dir, child, ended, said, output } = await suite(t);
  await said(/ready for subscriptions/);
  await said(/web: listening/);
  await said(/: connected to the hivemind/);
  await said(/notifier for dummy registered/);

  assert.match(readFileSync(`/proc/${child.pid}/cmdline`, 'latin1'), /^spns-run\0*$/);
  const killed = children(child.pid!, 'spns-web');
  assert.equal(killed.length, 1);
  process.kill(killed[0]!, 'SIGKILL');
  await said(/web ended by itself \(by SIGKILL\) and is restarted in 0\.5 s/);
  await said(/web: listening/, 2);
  await said(/: connected to the hivemind/, 2);
  const answer = await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, subscription().body);
  assert.deepEqual(JSON.parse(answer.body), { added: true, message: 'Subscription successful', success: true });

  child.kill('SIGHUP');
  await said(/reloaded: the configuration is as it was/, 3);

  const daemons = children(child.pid!);
  assert.equal(daemons.length, 3);
  child.kill('SIGTERM');
  assert.equal(await ended, 0, output());
  assert.deepEqual(
    daemons.filter((pid) => existsSync(`/proc/${pid}`)),
    [],
  );
});

test('when the parent is killed, everything it started stops in order by itself', async (t) => {
  const { child, ended, said, output } = await suite(t);
  await said(/spns: all have started/);
  assert.equal(children(child.pid!).length, 3);
  child.kill('SIGKILL');
  // Its output ends only when the last of those that share it has ended.
  await ended;
  for (const name of ['hivemind', 'web', 'notify-dummy']) {
    assert.match(output(), new RegExp(`error ${name}: the process that started this one is gone, stopping`));
    assert.match(output(), new RegExp(`info ${name}: stopped`));
  }
});

test('the parent alone reports to systemd for the whole suite: status, watchdog, ready when all have started, the end', async (t) => {
  const path = `@spns-test-${randomUUID()}`;
  const systemd = new NotifySocket(path);
  t.after(() => systemd.close());
  const { child, ended, said, output } = await suite(t, '', {
    NOTIFY_SOCKET: path,
    // So rarely that no state is lost for want of room, even if this process stands still for a while.
    WATCHDOG_USEC: '4000000',
    INVOCATION_ID: 'test',
  });
  await systemd.message(/^READY=1$/);
  await systemd.message(/^WATCHDOG=1$/);
  // What is logged comes another way than what systemd is told, and may come later.
  for (const sign of [/hivemind: started/, /web: started/, /notify-dummy: started/, /spns: all have/]) await said(sign);
  child.kill('SIGTERM');
  assert.equal(await ended, 0, output());
  const messages = systemd.read().filter((message) => message !== 'WATCHDOG=1');
  assert.equal(messages[0], 'STATUS=Not running: hivemind, web, notify-dummy');
  assert.equal(messages.filter((message) => message === 'READY=1').length, 1);
  assert.equal(messages[messages.indexOf('READY=1') - 1], 'STATUS=Running: hivemind, web, notify-dummy');
  assert.equal(messages[messages.indexOf('READY=1') + 1], 'STOPPING=1');
});

test("a whole run's log holds no token, key, account or signature, and the commands see what happens", async (t) => {
  const { dir, child, ended, said, output } = await suite(t, '[log]\nlevel = info');
  await said(/web: listening/);
  await said(/: connected to the hivemind/);
  await said(/ready for subscriptions/);
  await said(/notifier for dummy registered/);
  const { body, secrets } = subscription();
  assert.equal((await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body)).status, 200);
  // Again, a forged one, one for no device, and one that is no use at all.
  await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body);
  await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body.replace(/"sig_ts":\d/, '"sig_ts":1'));
  await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body.replace('TEST-', 'WRONG-'));
  await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body.slice(0, -1));

  const [services, stats, push] = await Promise.all([
    spns(['services'], dir),
    spns(['stats', '--json'], dir),
    spns(['test-push', 'dummy', '--info', JSON.stringify({ foo: 'TEST-operator', bar: 1 })], dir),
  ]);
  assert.match(services.out, /^dummy +1 +1 /m);
  assert.equal(JSON.parse(stats.out).subscriptions.total, 1);
  assert.equal(push.code, 0, push.err);
  assert.match(push.out, /^accepted/);
  assert.equal((await spns(['nodes'], dir)).out.trim(), '0 storage servers, 0 need attention');

  child.kill('SIGTERM');
  assert.equal(await ended, 0, output());
  assert.ok(output().length > 500);
  for (const secret of [...secrets, 'TEST-operator']) assert.ok(!output().includes(secret), `the log holds ${secret}`);
});

test('an invalid configuration is reported before anything is started', async (t) => {
  const dir = await folder(t, { 'spns.ini': '[hivemind]\nmax_connects = many\n' });
  const { code, err } = await spns(['run'], dir);
  assert.equal(code, 1);
  assert.match(err, /spns: .*max_connects = many: must be a whole number/);
  assert.match(err, /oxend_rpc: is required/);
});

test('folders that this user may not write to are reported before anything is started', async (t) => {
  const dir = await folder(t, {
    key: randomBytes(32).toString('hex'),
    'spns.ini': [
      '[hivemind]\noxend_rpc = tcp://127.0.0.1:1\nlisten = ipc://nowhere/h.sock',
      '[keys]\nhivemind = key\nonionreq = key\n[web]\nlisten = unix:/proc/web.sock',
    ].join('\n'),
  });
  const { code, err } = await spns(['run'], dir);
  assert.equal(code, 1);
  assert.match(
    err,
    /\[hivemind\]\.listen = ipc:\/\/nowhere\/h\.sock: the folder \/.*\/nowhere is not there: install -d -o \d+/,
  );
  // Root is refused nothing but by the file system itself.
  if (process.getuid!() !== 0) assert.match(err, /\[web\]\.listen = .*: the folder \/proc may not be written to by/);
});

const lo = Object.entries(networkInterfaces()).find(([, all]) =>
  all!.some(({ address }) => address === '127.0.0.1'),
)![0];
/** Below those that the kernel gives out, and no other test's. */
const port = 12_000 + (process.pid % 8_000);
for (const [listen, push] of [
  [`tcp://*:${port}`, 'ipc://./push.sock'],
  [`tcp://${lo}:${port}`, `tcp://localhost:${port + 1}`],
  [`ipc://@spns-run-${process.pid}`, `tcp://${lo}:${port + 1}`],
  ['ipc://h.sock', `ipc://@spns-run-push-${process.pid}`],
]) {
  test(`hivemind, front-end, notifier and command meet at listen = ${listen}, listen_push = ${push}`, async (t) => {
    const { dir, said, child, ended } = await suite(t, '', {}, `listen = ${listen}\nlisten_push = ${push}`);
    const checked = await spns(['check-config', '--no-database', ...asMe], dir);
    assert.equal(checked.code, 0, checked.out);
    await Promise.all([said(/connected to the hivemind/), said(/registered with the hivemind/)]);
    const { body } = subscription();
    const answer = await post({ socketPath: `${dir}/web.sock`, path: '/subscribe' }, body);
    assert.deepEqual([answer.status, JSON.parse(answer.body).success], [200, true], answer.body);
    assert.match((await spns(['services'], dir)).out, /^dummy +1 +1 /m);
    child.kill('SIGTERM');
    assert.equal(await ended, 0);
  });
}
