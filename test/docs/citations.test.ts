import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const glob = (...patterns: string[]) => globSync(patterns, { cwd: ROOT });

/** A comment's text without its line breaks, for a citation may go over two lines. */
const unwrapped = (text: string) => text.replace(/\n\s*(?:\*|\/\/|#)?[ \t]*/g, ' ');

const SOURCES = glob('{src,test,bench,ops,systemd}/**/*.{ts,yml,service}', 'test/vectors/README.md').filter(
  (file) => !file.startsWith('test/docs/'),
);
const PAGES = glob('*.md', 'docs/**/*.md');

/** `1.2` of each heading `## 1.2 …`. */
function sectionsOf(page: string): Set<string> {
  return new Set([...read(page).matchAll(/^#+ (\d+(?:\.\d+)*)\.? /gm)].map((match) => match[1]!));
}

/** All numbers of `section 1.2` or `sections 1, 2.1 and 3`; `to` names both ends. */
function numbersOf(words: string | undefined): string[] {
  return words?.match(/\d+(?:\.\d+)*/g) ?? [];
}

const SECTIONS = /(?:, sections? (\d+(?:\.\d+)*(?:(?:, | and | to )\d+(?:\.\d+)*)*))?/.source;

test('every citation in the code names a page and a section that exist', () => {
  let found = 0;
  for (const file of SOURCES) {
    for (const [citation, page, words] of unwrapped(read(file)).matchAll(
      new RegExp(`\\b(docs/[\\w./-]+\\.md)${SECTIONS}`, 'g'),
    )) {
      found++;
      assert.ok(existsSync(join(ROOT, page!)), `${file} cites ${page}, which does not exist`);
      const sections = sectionsOf(page!);
      for (const number of numbersOf(words)) assert.ok(sections.has(number), `${file}: ${citation}`);
    }
  }
  assert.ok(found > 50, `only ${found} found`);
});

test('every decision that the code cites has a page', () => {
  const pages = new Set(glob('docs/decisions/*.md').map((page) => page.slice('docs/decisions/'.length).slice(0, 2)));
  let found = 0;
  for (const file of SOURCES) {
    for (const [citation, number] of unwrapped(read(file)).matchAll(/\bdocs\/decisions\/([\w-]*)/g)) {
      found++;
      assert.ok(/^\d\d$/.test(number!) && pages.has(number!), `${file} cites ${citation}`);
    }
  }
  assert.ok(found > 5, `only ${found} found`);
});

test('nothing is cited in a form that nobody could follow', () => {
  const pages = glob('docs/spec/*.md').map((page) => page.slice('docs/spec/'.length));
  const bare = new RegExp(`(?<!docs/spec/)\\b(?:${pages.map((page) => page.replace('.', '\\.')).join('|')})\\b`);
  for (const file of SOURCES) {
    const text = unwrapped(read(file));
    for (const other of [bare, /(?<!docs\/)\bspec\/\w/, /\bdesign(?:\.md)?[,:] /, /\bdecisions? \d/]) {
      const [citation] = other.exec(text) ?? [];
      assert.equal(citation, undefined, `${file} cites ${citation}: write docs/spec/NAME.md or docs/decisions/NN`);
    }
  }
});

/** A heading's anchor, as GitHub and GitLab make it. */
function anchorsOf(page: string): Set<string> {
  const headings = [...read(page).matchAll(/^#+ (.+)$/gm)].map((match) => match[1]!);
  return new Set(
    headings.map((text) =>
      text
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

const withoutCode = (text: string) => text.replace(/^ *```[\s\S]*?^ *```/gm, '').replace(/`[^`]*`/g, '');

test('every relative link in the documentation leads somewhere', () => {
  let found = 0;
  for (const page of PAGES) {
    for (const [, target] of withoutCode(read(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      found++;
      const [path, anchor] = target!.split('#') as [string, string?];
      const file = path === '' ? page : join(dirname(page), path);
      assert.ok(existsSync(join(ROOT, file)), `${page} links to ${target}`);
      if (anchor !== undefined) assert.ok(anchorsOf(file).has(anchor), `${page} links to ${target}`);
    }
  }
  assert.ok(found > 30, `only ${found} found`);
});

test('every section that one page names of another exists', () => {
  let found = 0;
  for (const page of PAGES) {
    for (const [link, path, words] of unwrapped(read(page)).matchAll(
      new RegExp(`\\]\\(([\\w./-]+\\.md)\\)${SECTIONS}`, 'g'),
    )) {
      const sections = sectionsOf(join(dirname(page), path!));
      for (const number of numbersOf(words)) {
        found++;
        assert.ok(sections.has(number), `${page}: ${link}`);
      }
    }
  }
  assert.ok(found > 10, `only ${found} found`);
});

test('every file and folder of the repository that the documentation names exists', () => {
  let found = 0;
  for (const page of PAGES.filter((name) => name !== 'CHANGELOG.md')) {
    for (const [, path] of read(page).matchAll(/`((?:src|test|ops|bench|systemd|docs)\/[\w./@-]*)`/g)) {
      found++;
      assert.ok(existsSync(join(ROOT, path!)), `${page} names ${path}`);
    }
  }
  assert.ok(found > 10, `only ${found} found`);
});
