import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, cpSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { startTestServer } from '../support/postgres.ts';
import { seededRandom } from '../support/random.ts';
import { AREAS } from './areas.ts';
import { isJudgedEqual } from './judged.ts';
import { type Mutant, mutantsOf, mutated } from './mutants.ts';

/**
 * `npm run mutate -- AREA [--count N] [--seed N] [--skip N] [--files PART]`: makes small mistakes, one at a time, in a
 * copy of the tree, and prints those that no test of their room notices. Each is a test that is missing, or a line that
 * does nothing, or one whose change makes no difference: somebody has to look. What was seen to make no difference
 * stands in `judged.ts` and is left out.
 */
const ROOT = join(import.meta.dirname, '../..');
const COPIED = ['src', 'test', 'bench', 'ops', 'docs', 'systemd', 'package.json', 'tsconfig.json', 'spns.ini.example'];
/** In ms. */
const deadline = (baseline: number) => 20_000 + 4 * baseline;
const OWN_DEADLINE = 60_000;
/** A failed test in TAP, with what is told about it, up to the line of three dots. */
const FAILURE = /^ *not ok [\s\S]*?^ *\.\.\.$/m;
/** The runner gave up a test, or `until` in test/support a condition. */
const LATE = /failureType: 'testTimeoutFailure'|error: .*not (?:so after|within) \d+ s/;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: 'string', default: '40' },
    seed: { type: 'string', default: '1' },
    skip: { type: 'string', default: '0' },
    files: { type: 'string', default: '' },
  },
});
const area = AREAS[positionals[0] ?? ''];
if (!area || positionals.length > 1) fail(`npm run mutate -- AREA, one of ${Object.keys(AREAS).join(', ')}`);
const print = (text: string) => process.stdout.write(`${text}\n`);

const copy = mkdtempSync(join(tmpdir(), 'spns-mutate-'));
// Some tests start servers under another user.
chmodSync(copy, 0o755);
let running: ChildProcess | undefined;
const result = { tried: 0, noticed: 0, stopped: 0, timedOut: 0 };
let ending = false;
const server = area.database ? await startTestServer() : undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void end(1));
try {
  for (const name of [...COPIED, ...globSync('*.md', { cwd: ROOT })])
    cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  await end((await run()) ? 0 : 1);
} catch (error) {
  print(String(error));
  await end(1);
}

async function run(): Promise<boolean> {
  const sources = area!.sources.flatMap((glob) => globSync(glob, { cwd: copy })).sort();
  const every = sources
    .filter((file) => file.includes(values.files))
    .flatMap((file) => mutantsOf(readFileSync(join(copy, file), 'utf8')).map((mutant) => ({ file, mutant })));
  const random = seededRandom(Number(values.seed));
  // A shuffle by seed: what is skipped is what an earlier run with the same seed has tried.
  for (let i = every.length - 1; i > 0; i--) {
    const other = random.int(i + 1);
    [every[i], every[other]] = [every[other]!, every[i]!];
  }
  const picked = every.slice(Number(values.skip), Number(values.skip) + Number(values.count));
  const chosen = picked.filter(({ file, mutant }) => !isJudgedEqual(file, mutant));

  const tests = area!.tests.flatMap((glob) => globSync(glob, { cwd: copy })).sort();
  const startedAt = performance.now();
  const failure = await notices(tests, 600_000, area!.inOne);
  if (failure) throw new Error(`the tests fail without any change: ${failure.text}`);
  const baseline = performance.now() - startedAt;
  print(
    `${chosen.length} of ${every.length} changes, seed ${values.seed}, and ${picked.length - chosen.length} that were ` +
      `judged to make no difference; all tests take ${Math.round(baseline / 1000)} s`,
  );
  for (const { file, mutant } of chosen) {
    const outcome = await tryOne(file, mutant, tests, deadline(baseline));
    result.tried++;
    if (outcome === 'failed' || outcome === 'stopped') result.noticed++;
    if (outcome === 'stopped') result.stopped++;
    if (outcome === 'timed out') result.timedOut++;
    const what = outcome === 'passed' ? '' : `${outcome}: `;
    if (outcome !== 'failed') print(`${what}${file}:${mutant.line}  ${mutant.change}`);
  }
  return result.noticed === result.tried;
}

/**
 * How the tests end with a change: they pass, one fails, they are `stopped` by it, as by a loop without an end, or they
 * are not done in time, and are not without it either.
 */
async function tryOne(
  file: string,
  mutant: Mutant,
  tests: string[],
  ms: number,
): Promise<'passed' | 'failed' | 'stopped' | 'timed out'> {
  const source = readFileSync(join(copy, file), 'utf8');
  // The test that is named after the file is the likeliest to notice, and soonest.
  const name = basename(file, '.ts');
  const own = tests.filter((test) => basename(test, '.test.ts') === name);
  const runs = [() => notices(tests, ms, area!.inOne)];
  if (own.length > 0) runs.unshift(() => notices(own, OWN_DEADLINE, true));
  for (const run of runs) {
    writeFileSync(join(copy, file), mutated(source, mutant));
    const failure = await run();
    writeFileSync(join(copy, file), source);
    if (!failure) continue;
    if (!failure.isLate) return 'failed';
    return (await run()) ? 'timed out' : 'stopped';
  }
  return 'passed';
}

interface Failure {
  readonly text: string;
  /** A test or the run was given up: because of the change, or because the machine had no time for it. */
  readonly isLate: boolean;
}

/** How the first test fails, or that they are not done in time; undefined if all pass. */
async function notices(tests: string[], ms: number, inOne = false): Promise<Failure | undefined> {
  const options = [
    '--test',
    ...(inOne ? ['--test-isolation=none'] : []),
    '--test-timeout=60000',
    '--test-concurrency=2',
    '--test-reporter=tap',
  ];
  const env = { ...process.env, TMPDIR: copy };
  const child = spawn(join(copy, 'src/cli/node'), [...options, ...tests], {
    cwd: copy,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  running = child;
  const { promise, resolve } = Promise.withResolvers<Failure | undefined>();
  const timer = setTimeout(() => resolve({ text: 'not done in time', isLate: true }), ms);
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
    const text = FAILURE.exec(output)?.[0].trim();
    if (text) resolve({ text, isLate: LATE.test(text) });
  });
  child.on('close', (code) => resolve(code === 0 ? undefined : { text: `code ${code}`, isLate: false }));
  const noticed = await promise;
  clearTimeout(timer);
  killRunning();
  return noticed;
}

/** With the processes that it started: theirs end when they do. */
function killRunning(): void {
  try {
    if (running?.pid) process.kill(-running.pid, 'SIGKILL');
  } catch {
    // All are gone.
  }
  running = undefined;
}

async function end(code: number): Promise<void> {
  // Stopped by a signal: the run that this kills is none.
  if (ending) return;
  ending = true;
  const { tried, noticed, stopped, timedOut } = result;
  const share = Math.round((100 * noticed) / tried);
  const what = `${noticed} of ${tried}, of which ${stopped} stopped the tests; ${timedOut} timed out`;
  if (tried > 0) print(`${share} % noticed: ${what}`);
  killRunning();
  await server?.remove();
  rmSync(copy, { recursive: true, force: true, maxRetries: 3 });
  process.exit(code);
}

function fail(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(2);
}
