import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { folder, spns } from './spns.ts';

/** What bash offers for a line whose last word is being typed. */
function offered(script: string, cwd: string, ...words: string[]): string[] {
  const ask = `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _spns; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync('bash', ['-c', `${script}\n${ask}`, 'bash', 'spns', ...words], { cwd, encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

test('bash completes commands, options, files and services', async (t) => {
  const dir = await folder(t, { 'a key': '', 'other.key': '' });
  const { out: script, code } = await spns(['completion'], dir);
  assert.equal(code, 0);
  assert.deepEqual(offered(script, dir, 'st'), ['stats']);
  assert.deepEqual(offered(script, dir, 'help', 'no'), ['nodes']);
  assert.deepEqual(offered(script, dir, 'stats', '--j'), ['--json']);
  assert.deepEqual(offered(script, dir, 'keygen', 'a'), ['a key']);
  assert.deepEqual(offered(script, dir, 'keygen', '--v'), ['--vapid']);
  assert.deepEqual(offered(script, dir, 'check-config', '--config', 'oth'), ['other.key']);
  assert.deepEqual(offered(script, dir, 'check-config', '--user', 'o'), []);
  assert.deepEqual(offered(script, dir, 'test-push', 'fire'), ['firebase']);
  assert.deepEqual(offered(script, dir, 'nothing', ''), []);
});

const skip = spawnSync('man', ['--version']).status !== 0 && "man (Debian's package man-db) is not installed here";

test('the man page has every command and option, and man accepts it', { skip }, async (t) => {
  const dir = await folder(t);
  const page = (await spns(['man'], dir)).out;
  const { stdout, stderr, status } = spawnSync('man', ['--warnings=w', '-l', '-'], {
    input: page,
    encoding: 'utf8',
    env: { ...process.env, MANWIDTH: '300', LC_ALL: 'C.UTF-8', MAN_KEEP_FORMATTING: '' },
  });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  // Bold and italic, as a pager would show them.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for
  const text = stdout.replace(/.\x08/g, '').replace(/\x1b\[[\d;]*m/g, '');
  const overview = (await spns(['--help'], dir)).out;
  const names = [...overview.matchAll(/^ {2}([a-z-]+) {2}/gm)].map(([, name]) => name!);
  assert.ok(names.length > 10);
  for (const name of names) {
    assert.match(text, new RegExp(`^ *spns ${name}\\b`, 'm'));
    const help = (await spns([name, '--help'], dir)).out;
    for (const [, option] of help.matchAll(/^ {2}(--[\w-]+)/gm)) assert.ok(text.includes(option!), `${name} ${option}`);
  }
});
