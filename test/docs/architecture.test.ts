import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const PAGE = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8');

/** The rooms below each; those of one floor do not know each other. */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  codec: [],
  session: ['codec'],
  oxenmq: ['codec'],
  settings: ['codec', 'session', 'oxenmq'],
  daemon: ['codec', 'session', 'oxenmq', 'settings'],
};
const ALL_BELOW = Object.keys(BELOW);

interface Import {
  readonly file: string;
  /** As a path from the root of the repository. */
  readonly of: string;
}

const IMPORTS: readonly Import[] = globSync('src/**/*.ts', { cwd: ROOT }).flatMap((file) =>
  [...readFileSync(join(ROOT, file), 'utf8').matchAll(/(?:from|import\() ?'(\.[^']+)'/g)].map(([, path]) => ({
    file,
    of: normalize(join(dirname(file), path!)),
  })),
);

/** The folder of a file below `base`; undefined for a file in `base` itself. */
function roomOf(file: string, base: string): string | undefined {
  const [room, ...rest] = file.slice(base.length).split('/');
  return rest.length > 0 ? room : undefined;
}

test('a room imports from the floors below it and from itself, and from nowhere else', () => {
  assert.ok(IMPORTS.length > 1000, `only ${IMPORTS.length} found`);
  for (const { file, of } of IMPORTS) {
    const [from, to] = [roomOf(file, 'src/'), roomOf(of, 'src/')];
    // Files in src/ itself are shared by all, and import nothing but each other.
    if (to === undefined || from === to) continue;
    assert.ok(from !== undefined && (BELOW[from] ?? ALL_BELOW).includes(to), `${file} imports ${of}`);
  }
});

/** A circle in a graph, from a node back to itself; undefined if there is none. */
function circleIn(graph: ReadonlyMap<string, ReadonlySet<string>>): readonly string[] | undefined {
  const done = new Set<string>();
  const path: string[] = [];
  const search = (node: string): readonly string[] | undefined => {
    if (path.includes(node)) return [...path.slice(path.indexOf(node)), node];
    if (done.has(node)) return undefined;
    path.push(node);
    for (const next of graph.get(node) ?? []) {
      const circle = search(next);
      if (circle) return circle;
    }
    path.pop();
    done.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const circle = search(node);
    if (circle) return circle;
  }
  return undefined;
}

/** What imports what, types included, where a file counts as `nameOf` says; files without a name are left out. */
function graphOf(nameOf: (file: string) => string | undefined): Map<string, Set<string>> {
  const graph = new Map<string, Set<string>>();
  for (const { file, of } of IMPORTS) {
    const [from, to] = [nameOf(file), nameOf(of)];
    if (from !== undefined && to !== undefined && from !== to) graph.set(from, (graph.get(from) ?? new Set()).add(to));
  }
  return graph;
}

test('neither files nor the rooms of the hivemind and the notifiers import each other in a circle', () => {
  const circle = new Map(['ab', 'bc', 'cb'].map((arrow) => [arrow[0]!, new Set(arrow[1])]));
  assert.deepEqual(circleIn(circle), ['b', 'c', 'b']);
  assert.equal(circleIn(graphOf((file) => file))?.join(' → '), undefined);
  for (const base of ['src/hivemind/', 'src/notifiers/']) {
    const rooms = graphOf((file) => (file.startsWith(base) ? roomOf(file, base) : undefined));
    assert.ok(rooms.size > 2, base);
    assert.equal(circleIn(rooms)?.join(' → '), undefined);
  }
});

test('the table of rooms has all of them, and what the rooms of the hivemind import of each other', () => {
  for (const room of new Set(IMPORTS.map(({ file }) => roomOf(file, 'src/')))) {
    if (room !== undefined) assert.ok(PAGE.includes(`| \`src/${room}/\` |`), `src/${room}/ has no row`);
  }
  const base = 'src/hivemind/';
  const imported = new Map<string, Set<string>>();
  for (const { file, of } of IMPORTS) {
    if (!file.startsWith(base)) continue;
    const [from, to] = [roomOf(file, base), of.startsWith(base) ? roomOf(of, base) : undefined];
    if (from === undefined) continue;
    const those = imported.get(from) ?? new Set();
    imported.set(from, those);
    if (to !== undefined && to !== from) those.add(to);
  }
  assert.ok(imported.size > 5);
  for (const [room, those] of imported) {
    const cells = PAGE.split('\n')
      .find((line) => line.startsWith(`| \`${base}${room}/\` |`))
      ?.split(' | ');
    const written = cells?.at(-1)?.replace(/\(.*?\)|\|/g, '');
    assert.ok(written, `${base}${room}/ has no row`);
    const named = [...imported.keys()].filter((other) => new RegExp(`\\b${other}\\b`).test(written));
    const expected = written.includes('all but')
      ? [...imported.keys()].filter((other) => other !== room && !named.includes(other))
      : named;
    assert.deepEqual(expected.sort(), [...those].sort(), `what ${base}${room}/ imports`);
  }
});
