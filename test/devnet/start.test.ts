import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { makeOwnFolder } from '../../src/devnet/folder.ts';
import { startPostgres } from '../../src/devnet/postgres.ts';
import { ended } from '../support/once.ts';
import { inTime, until } from '../support/until.ts';

const MAIN = path.resolve(import.meta.dirname, '../../src/devnet/main.ts');

let folder: string;

before(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-world-'));
});

after(() => fs.rm(folder, { recursive: true, force: true }));

/** Starts the world as `npm start` does. */
function start(...args: string[]) {
  const child: ChildProcess = spawn(process.execPath, [MAIN, '--folder', folder, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const waiting: { pattern: RegExp; resolve: () => void }[] = [];
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      for (const one of waiting) if (one.pattern.test(output)) one.resolve();
    });
  }
  const end = ended(child);
  return {
    child,
    ended: end,
    output: () => output,
    /** Resolves when it has said that; rejects if it ends before. */
    said: (pattern: RegExp) =>
      inTime(
        Promise.race([
          new Promise<void>((resolve) => {
            if (pattern.test(output)) resolve();
            else waiting.push({ pattern, resolve });
          }),
          end.then((code) => {
            throw new Error(`ended with ${code}:\n${output}`);
          }),
        ]),
        () => `${pattern} in:\n${output}`,
      ),
  };
}

/** The processes of this world: all its parts have its folder in their arguments or their environment. */
async function processes(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await fs.readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const read = (file: string) => fs.readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '');
    const [arguments_, environment, state] = await Promise.all([read('cmdline'), read('environ'), read('stat')]);
    const isOurs = Number(pid) !== process.pid && (arguments_.includes(folder) || environment.includes(folder));
    if (isOurs && !/\) Z /.test(state)) found.push(`${pid} ${arguments_.replaceAll('\0', ' ')}`);
  }
  return found;
}

async function untilNoneIsLeft(): Promise<void> {
  // What was told to end a moment ago may still be in the table.
  let left: string[] = [];
  await until(
    async () => {
      left = await processes();
      return left.length === 0;
    },
    25,
    () => `no process is left, but ${left.join(', ')}`,
  );
}

test('an invalid command line is explained in a sentence, also where npm has kept an option for itself', () => {
  const run = (args: string[], env = {}) =>
    spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env: { ...process.env, ...env } });
  const cases: [args: string[], env: object, said: RegExp][] = [
    [['--oncee'], {}, /^Unknown option '--oncee'\n\nnpm start /],
    [['now'], {}, /^Unexpected argument 'now'/],
    [[], { npm_config_once: 'true' }, /^npm has kept --once for itself: put options after "--"/],
    [[], { npm_config_oncee: 'true' }, /^npm has kept --oncee for itself/],
  ];
  for (const [args, env, said] of cases) {
    const { status, stderr, stdout } = run(args, env);
    assert.equal(status, 2);
    assert.match(stderr, said);
    assert.doesNotMatch(stderr, /\n {4}at /, 'a stack');
    assert.equal(stdout, '');
  }
});

test('a folder that another user has made is reported in a sentence', async (t) => {
  const made = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-world-'));
  t.after(() => fs.rm(made, { recursive: true }));
  await makeOwnFolder(made);
  await fs.mkdir(path.join(made, 'keys'));
  // As that other user we look at what is this one's.
  const [own, uid] = [process.getuid!, process.getuid!()];
  t.after(() => {
    process.getuid = own;
  });
  process.getuid = () => uid + 1;
  const whom = uid === 0 ? 'root' : `another user \\(${uid}\\)`;
  await assert.rejects(makeOwnFolder(made), new RegExp(`belongs to ${whom}, .* remove it \\(sudo rm -r ${made}\\)`));
  const file = path.join(made, 'file');
  await fs.writeFile(file, '');
  await assert.rejects(makeOwnFolder(path.join(file, 'below')), /cannot be created \(ENOTDIR\)/);
});

test('wakes each phone once and ends with 0, leaving no process behind', async () => {
  const run = start('--once');
  assert.equal(await run.ended, 0, run.output());
  for (const phone of [
    "Ada's iPhone",
    "Bo's Android phone",
    "Bo's iPad",
    "Cem's Huawei phone",
    "Dee's phone without Google",
  ]) {
    assert.match(run.output(), new RegExp(`${phone} wakes after \\d+ ms through \\w+: “`), run.output());
  }
  assert.match(run.output(), /5 copies came from the swarm, 4 were dropped/);
  await untilNoneIsLeft();
});

test("the daemons' logs of that run contain no token, key, account or message", async () => {
  const server = await startPostgres({ dataDir: path.join(folder, 'postgres'), fsync: false });
  const client = new pg.Client(server.url('spns'));
  await client.connect();
  // The phones unsubscribe when they have been woken, those that can within two seconds.
  const { rows } = await client.query<{ account: Buffer; svcid: string }>(
    'SELECT account, svcid FROM spns_unsubscribed UNION SELECT account, svcid FROM subscriptions',
  );
  await client.end();
  await server.stop();
  assert.ok(rows.length >= 4);
  const values: (Buffer | string)[] = rows.flatMap(({ account, svcid }) => [account, svcid]);
  for (const key of await fs.readdir(path.join(folder, 'keys'))) {
    values.push(Buffer.from(await fs.readFile(path.join(folder, 'keys', key), 'latin1'), 'hex'));
  }
  const secrets = values.flatMap((value) =>
    Buffer.isBuffer(value) ? [value.toString('hex'), value.toString('base64')] : [value],
  );
  assert.ok(secrets.every((secret) => secret.length >= 32));
  const logs = path.join(folder, 'log');
  const names = await fs.readdir(logs);
  assert.equal(names.length, 7);
  for (const name of names) {
    const log = await fs.readFile(path.join(logs, name), 'utf8');
    assert.ok(log.length > 200, name);
    for (const secret of [...secrets, 'fake-app-secret', 'PRIVATE KEY', 'blue tent']) {
      // A token's beginning would be enough to know it again.
      assert.ok(!log.includes(secret.slice(0, 16)), `${name} holds ${secret}`);
    }
  }
});

test('with several hiveminds each phone wakes although one is killed, and everything is stopped', async () => {
  const run = start('--once', '--hiveminds', '2');
  assert.equal(await run.ended, 0, run.output());
  assert.match(run.output(), /hivemind-a was killed/);
  // The swarms have five servers. How many of them the second hivemind asks depends on when it learns that the first
  // covers the account.
  const copies = [...run.output().matchAll(/(\d+) copies came from the swarm, (\d+) were dropped/g)];
  assert.ok(
    copies.some(([, came]) => Number(came) > 5),
    run.output(),
  );
  for (const [line, came, dropped] of copies) assert.equal(Number(dropped), Number(came) - 1, line);
  assert.doesNotMatch(run.output(), /was woken 2 times/);
  await untilNoneIsLeft();
});

test('runs a second time on the same data, with one hivemind again, and SIGTERM stops it all', async () => {
  const run = start();
  await run.said(/wakes after/);
  run.child.kill('SIGTERM');
  assert.equal(await run.ended, 0, run.output());
  assert.match(run.output(), /Everything has been stopped/);
  await untilNoneIsLeft();
});

test('a daemon that dies is reported, and ends the run with 1', async () => {
  const run = start();
  await run.said(/wakes after/);
  const web = (await processes()).find((one) => one.includes(' spns-web'))!;
  process.kill(Number(web.split(' ')[0]), 'SIGKILL');
  assert.equal(await run.ended, 1, run.output());
  assert.match(run.output(), /Failed: web died \(by SIGKILL\)/);
  await untilNoneIsLeft();
});

test('when the run itself is killed, the daemons end', async () => {
  const run = start();
  await run.said(/wakes after/);
  run.child.kill('SIGKILL');
  await run.ended;
  await untilNoneIsLeft();
});

test('an invalid number of hiveminds is explained in a sentence', async () => {
  const run = start('--hiveminds', 'many');
  assert.equal(await run.ended, 2);
  assert.equal(run.output(), '--hiveminds takes a number from 1 to 8, not many\n');
});
