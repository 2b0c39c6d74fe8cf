import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const PAGES = globSync(['*.md', 'docs/**/*.md'], { cwd: ROOT });

/** The options of each command, by the completion that is made of them. */
const commands = new Map(
  [
    ...execFileSync(join(ROOT, 'src/cli/spns'), ['completion'], { encoding: 'utf8' }).matchAll(
      /^ {4}([a-z-]+)\)\n {6}options='([^']*)'/gm,
    ),
  ].map(([, name, options]) => [name!, new Set(options!.split(' '))]),
);

const blocksOf = (page: string) =>
  [...read(page).matchAll(/^ *```\w*\n([\s\S]*?)^ *```/gm)].map(([, block]) =>
    block!.split('\n').map((line) => line.trim()),
  );
const spansOf = (page: string) =>
  Array.from(
    read(page)
      .replace(/^ *```[\s\S]*?^ *```/gm, '')
      .matchAll(/`([^`]+)`/g),
    ([, span]) => span!.replace(/\s+/g, ' '),
  );
const codeOf = (page: string) => [...blocksOf(page).flat(), ...spansOf(page)];

test('every command and option of spns that the documentation tells readers to run exists', () => {
  let found = 0;
  for (const page of PAGES) {
    for (const code of codeOf(page)) {
      for (const [, name, rest] of code.matchAll(/(?:^|\bsudo |\bexec spns |[';] *)spns ([a-z][\w-]*)([^;'#]*)/g)) {
        found++;
        const options = commands.get(name!);
        assert.ok(options, `${page}: spns ${name}`);
        for (const [option] of rest!.matchAll(/--[a-z][\w-]*/g))
          assert.ok(options.has(option), `${page}: spns ${name} ${option}`);
      }
    }
  }
  assert.ok(found > 40, `only ${found} found`);
});

test('docs/operate.md tells of every command', () => {
  const code = codeOf('docs/operate.md');
  assert.ok(commands.size > 10);
  for (const name of commands.keys())
    assert.ok(
      code.some((span) => span === `spns ${name}` || span.startsWith(`spns ${name} `)),
      `docs/operate.md does not tell of spns ${name}`,
    );
});

/** The keys of each section of spns.ini, by the example that is made of the tables. */
const sections = new Map<string, Set<string>>();
for (const line of read('spns.ini.example').split('\n')) {
  const [, section, key] = /^;?(?:\[([\w-]+)\]|([a-z]\w*(?:-\w+)?) =)/.exec(line) ?? [];
  if (section !== undefined) sections.set(section, new Set());
  else if (key !== undefined) [...sections.values()].at(-1)?.add(key);
}
const notifierKeys = [...sections].flatMap(([name, keys]) => (name.startsWith('notify-') ? [...keys] : []));

/** The keys that a section may have; undefined if it is none of spns.ini. */
function keysOf(section: string): Set<string> | undefined {
  if (/^hivemind-\w+$/.test(section)) return sections.get('hivemind');
  if (/^notify-(?:NAME|…)$/.test(section)) return new Set(notifierKeys);
  return sections.get(section);
}

/** `[section]`, and `key = value` after it or by itself. */
const SETTING = /^(?:\[([A-Za-z][\w…-]*)\](?:\.| +|$))?(?:([a-z]\w*(?:-\w+)?)(?= =|$))?/;

test('every setting that the documentation names with its section exists', () => {
  let found = 0;
  const check = (page: string, section: string, key: string) => {
    // An operator's own notifier reads what it likes; the other is systemd's.
    if (section === 'notify-ntfy' || section === 'Service') return;
    found++;
    const isLevel = section === 'log' && key.startsWith('level-');
    assert.ok(isLevel || keysOf(section)?.has(key), `${page}: [${section}] ${key}`);
  };
  // The specification has settings of the original's as well.
  for (const page of PAGES.filter((name) => !name.startsWith('docs/spec/'))) {
    for (const code of spansOf(page)) {
      const [, section, key] = SETTING.exec(code) ?? [];
      if (section !== undefined && key !== undefined) check(page, section, key);
    }
    for (const block of blocksOf(page)) {
      let section: string | undefined;
      for (const line of block) {
        const [, opened, key] = SETTING.exec(line) ?? [];
        section = opened ?? section;
        if (section !== undefined && key !== undefined) check(page, section, key);
      }
    }
  }
  assert.ok(found > 40, `only ${found} found`);
});

test('every setting, label and result that the pages for operators name is in the code', () => {
  const settings = new Set([...sections.values()].flatMap((keys) => [...keys]));
  const source = globSync('src/**/*.ts', { cwd: ROOT }).map(read).join('\n');
  /** PostgreSQL's and Patroni's. */
  const foreign = ['synchronous_commit', 'synchronous_standby_names', 'synchronous_mode', 'target_session_attrs'];
  let found = 0;
  for (const page of [
    'README.md',
    ...['install', 'operate', 'upgrade', 'several', 'survives'].map((n) => `docs/${n}.md`),
  ]) {
    for (const [word] of spansOf(page)
      .join('\n')
      .matchAll(/^[a-z0-9]+(?:_[a-z0-9]+)+(?=$| =)/gm)) {
      if (word.startsWith('spns_') || word === 'node_modules' || foreign.includes(word)) continue;
      found++;
      assert.ok(settings.has(word) || new RegExp(`\\b${word}\\b`).test(source), `${page}: ${word}`);
    }
  }
  assert.ok(found > 30, `only ${found} found`);
});

test('the categories of the log that are documented are those of the code', () => {
  const source = globSync('src/**/*.ts', { cwd: ROOT }).map(read).join('\n');
  const used = new Set([...source.matchAll(/\bcategory\([\w.]+, '(\w+)'\)/g)].map(([, name]) => name!));
  const example = /^; trace, debug[\s\S]*?single categories: ([\s\S]*?)\.\n/m.exec(read('spns.ini.example'))?.[1] ?? '';
  const named = example.replace(/\n;|\([^)]*\)/g, ' ').match(/[a-z]+/g) ?? [];
  assert.deepEqual(new Set(named.filter((word) => word !== 'and')), used);
  const logs = /\n## Logs\n([\s\S]*?)\n## /.exec(read('docs/operate.md'))?.[1] ?? '';
  for (const name of used)
    assert.ok(logs.includes(`\`${name}\``), `docs/operate.md does not name the category ${name}`);
});

test('every message that the documentation quotes is in the code', () => {
  const source = globSync('src/**/*.ts', { cwd: ROOT }).map(read).join('\n');
  const command = /^(?:apt|docker|man|npm|spns|sudo|systemctl) /;
  let found = 0;
  // The specification quotes other programs, too.
  for (const page of PAGES.filter((name) => !name.startsWith('docs/spec/'))) {
    for (const span of spansOf(page)) {
      // Words, and perhaps what varies in brackets after them.
      const [, text] = /^([A-Za-z']+(?: [a-z']+)+)(?: \(.*\))?$/.exec(span) ?? [];
      if (text === undefined || command.test(span)) continue;
      found++;
      assert.ok(source.includes(text), `${page}: ${span}`);
    }
  }
  assert.ok(found > 5, `only ${found} found`);
});
