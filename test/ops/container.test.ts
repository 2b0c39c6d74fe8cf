import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder, spns, startSpns } from '../cli/spns.ts';
import { ended } from '../support/once.ts';
import { createDatabase } from '../support/postgres.ts';
import { until } from '../support/until.ts';

const CONTAINER = join(import.meta.dirname, '../../ops/container');
const ROOT = join(CONTAINER, '../..');
const read = (file: string) => readFileSync(join(CONTAINER, file), 'utf8');

/** Instructions of the Dockerfile, a line that goes on being one; the last stage is what runs. */
const instructions = read('Dockerfile')
  .replace(/^#.*\n/gm, '')
  .replaceAll('\\\n', ' ')
  .split('\n')
  .filter((line) => line.trim() !== '')
  .map((line): [word: string, rest: string] => [line.split(' ')[0]!, line.slice(line.indexOf(' ') + 1).trim()]);
const runs = instructions.slice(instructions.findLastIndex(([word]) => word === 'FROM'));
const last = (word: string) => runs.findLast(([each]) => each === word)?.[1];
const words = (text: string | undefined): string[] => JSON.parse(text ?? '[]');

test('the image is built from the lock file, from what is here, and from pinned versions', () => {
  assert.ok(instructions.some(([word, rest]) => word === 'RUN' && rest === 'npm ci --omit=dev'));
  const ignore = read('Dockerfile.dockerignore').split('\n');
  for (const [word, rest] of instructions) {
    if (word === 'FROM') assert.match(rest, /^[\w./-]+:[\w.-]+( AS \w+)?$/, 'without a version it is another each day');
    if (word !== 'COPY' || rest.startsWith('--from')) continue;
    for (const source of rest.split(' ').slice(0, -1)) {
      assert.ok(existsSync(join(ROOT, source)), `${source} is copied, which is not there`);
      assert.ok(ignore.includes(`!${source}`), `${source} is copied, and kept from the builder`);
    }
    assert.ok(!rest.startsWith('. '), 'not the whole folder, with whatever lies in it');
  }
});

test('the image runs as an unprivileged user, by commands without a shell', () => {
  const [user] = last('USER')!.split(':');
  assert.match(user!, /^[1-9]\d*$/, 'a number that is not 0');
  assert.deepEqual([words(last('ENTRYPOINT')), words(last('CMD'))], [['spns'], ['run']]);
  assert.match(last('HEALTHCHECK')!, / CMD \["spns", /);
  assert.ok(!instructions.some(([word]) => word === 'ADD'));
});

/** The lines of one service in compose.yml. */
function service(name: string): string {
  return new RegExp(`^ {2}${name}:\\n((?: {4}.*\\n|\\n)+)`, 'm').exec(read('compose.yml'))![1]!;
}

test('each service of the compose file is without privileges and writes only to named places', () => {
  const names = [
    ...read('compose.yml')
      .split('\nvolumes:')[0]!
      .matchAll(/^ {2}(\w+):$/gm),
  ].map(([, name]) => name!);
  assert.deepEqual(names, ['postgres', 'spns']);
  for (const name of names) {
    const text = service(name);
    assert.match(text, /^ {4}read_only: true$/m, name);
    assert.match(text, /^ {4}cap_drop: \["ALL"\]$/m, name);
    assert.match(text, /^ {4}security_opt: \["no-new-privileges:true"\]$/m, name);
    assert.match(text, /^ {4}user: (?!root|"0)/m, name);
    assert.doesNotMatch(text, /privileged|network_mode: host|pid: host/, name);
    for (const [, port] of text.matchAll(/^ {6}- "(.*:\d+:\d+)"$/gm)) assert.match(port!, /^127\.0\.0\.1:/);
  }
  assert.match(service('spns'), new RegExp(`user: "${last('USER')}"`));
  assert.match(service('postgres'), /healthcheck:\n/);
  assert.match(service('spns'), /condition: service_healthy/);
  // The image's own folder for sockets is covered by one in memory, of its user.
  assert.ok(service('spns').includes(`/run/spns:uid=${last('USER')!.split(':')[0]}`));
});

test('its configuration and its commands work: it is healthy, and no longer when it has stopped', async (t) => {
  const url = await createDatabase(t);
  const key = () => randomBytes(32).toString('hex');
  const dir = await folder(t, { 'hivemind.key': key(), 'onionreq.key': key() });
  const ini = read('spns.ini')
    .replace(/^url = .*$/m, `url = ${url.replaceAll('%', '%%')}`)
    .replaceAll('/run/spns', dir)
    .replace(/^oxend_rpc = .*$/m, `oxend_rpc = ipc://${dir}/no-oxend.sock\nstartup_wait = 0`)
    .replaceAll(/0\.0\.0\.0:\d+/g, '127.0.0.1:0');
  await writeFile(join(dir, 'spns.ini'), `${ini}\n[notify-dummy]\n`);
  const env = { SPNS_CONFIG: join(dir, 'spns.ini') };
  const [program, ...check] = words(/CMD (\[.*\])$/.exec(last('HEALTHCHECK')!)?.[1]);
  assert.equal(program, words(last('ENTRYPOINT'))[0]);

  const child = startSpns(words(last('CMD')), dir, env);
  let output = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (output += text));
  const end = ended(child);
  t.after(async () => void child.kill('SIGKILL'));
  void end.then(() => (output += 'ended'));
  await until(() => /all have started|ended$/.test(output));
  assert.match(output, /all have started/);
  const healthy = await spns(check, dir, env);
  assert.equal(healthy.code, 0, healthy.err);
  child.kill('SIGTERM');
  assert.equal(await end, 0);
  assert.equal((await spns(check, dir, env)).code, 1);
});
