import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, cpSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { startTestServer } from '../support/postgres.ts';
import { seededRandom } from '../support/random.ts';
import { AREAS } from './areas.ts';
import { type Mutant, mutantsOf, mutated } from './mutants.ts';

/**
 * `npm run mutate -- AREA [--count N] [--seed N] [--skip N] [--files PART]`: makes small mistakes, one at a time, in a
 * copy of the tree, and prints those that no test of their room notices. Each is a test that is missing, or a line that
 * does nothing, or one whose change makes no difference: somebody has to look.
 */
const ROOT = join(import.meta.dirname, '../..');
const COPIED = ['src', 'test', 'bench', 'ops', 'docs', 'systemd', 'package.json', 'tsconfig.json', 'spns.ini.example'];
/** In ms. A change may make a loop endless: that counts as noticed. Other work on the machine may not. */
const deadline = (baseline: number) => 20_000 + 4 * baseline;
const OWN_DEADLINE = 60_000;

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
const result = { tried: 0, noticed: 0 };
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
  const all = sources
    .filter((file) => file.includes(values.files))
    .flatMap((file) => mutantsOf(readFileSync(join(copy, file), 'utf8')).map((mutant) => ({ file, mutant })));
  const random = seededRandom(Number(values.seed));
  // A shuffle by seed: what is skipped is what an earlier run with the same seed has tried.
  for (let i = all.length - 1; i > 0; i--) {
    const other = random.int(i + 1);
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  const chosen = all.slice(Number(values.skip), Number(values.skip) + Number(values.count));

  const tests = area!.tests.flatMap((glob) => globSync(glob, { cwd: copy })).sort();
  const startedAt = performance.now();
  const failure = await notices(tests, 600_000, area!.inOne);
  if (failure) throw new Error(`the tests fail without any change: ${failure}`);
  const baseline = performance.now() - startedAt;
  print(
    `${chosen.length} of ${all.length} changes, seed ${values.seed}; all tests take ${Math.round(baseline / 1000)} s`,
  );
  for (const { file, mutant } of chosen) {
    const isNoticed = await tryOne(file, mutant, tests, deadline(baseline));
    result.tried++;
    if (isNoticed) result.noticed++;
    else print(`${file}:${mutant.line}  ${mutant.change}`);
  }
  return result.noticed === result.tried;
}

async function tryOne(file: string, mutant: Mutant, tests: string[], ms: number): Promise<boolean> {
  const source = readFileSync(join(copy, file), 'utf8');
  writeFileSync(join(copy, file), mutated(source, mutant));
  // The test that is named after the file is the likeliest to notice, and soonest.
  const name = basename(file, '.ts');
  const own = tests.filter((test) => basename(test, '.test.ts') === name);
  try {
    if (own.length > 0 && (await notices(own, OWN_DEADLINE, true))) return true;
    return (await notices(tests, ms, area!.inOne)) !== undefined;
  } finally {
    writeFileSync(join(copy, file), source);
  }
}

/** The first test that fails, or that they are not done in time; undefined if all pass. */
async function notices(tests: string[], ms: number, inOne = false): Promise<string | undefined> {
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
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const timer = setTimeout(() => resolve('not done in time'), ms);
  let line = '';
  child.stdout.on('data', (data) => {
    const lines = (line + data).split('\n');
    line = lines.pop()!;
    const failed = lines.find((text) => /^\s*not ok /.test(text));
    if (failed) resolve(failed.trim());
  });
  child.on('close', (code) => resolve(code === 0 ? undefined : `code ${code}`));
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
  const { tried, noticed } = result;
  if (tried > 0) print(`${Math.round((100 * noticed) / tried)} % noticed: ${noticed} of ${tried}`);
  killRunning();
  await server?.remove();
  rmSync(copy, { recursive: true, force: true, maxRetries: 3 });
  process.exit(code);
}

function fail(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(2);
}
