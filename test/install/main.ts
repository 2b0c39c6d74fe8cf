// Plays docs/install.md and docs/upgrade.md, command by command as they are printed there, and the Debian package in
// booted containers of Debian 12 and 13: `npm run test:install`. Needs root, systemd-nspawn and debootstrap; without
// one of them it says so and plays nothing.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { fence, script } from './script.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const SUITES = ['bookworm', 'trixie'];
/** What docs/install.md has installed, and what a minimal Debian lacks beside a real one. */
const PACKAGES = ['systemd', 'systemd-sysv', 'dbus', 'adduser', 'sudo', 'procps', 'man-db', 'ca-certificates'];
const ASKED_FOR = ['git', 'nodejs', 'npm', 'postgresql'];
const MACHINE = 'spns-play';
/** A play takes two to five minutes, ms. */
const PATIENCE = 20 * 60_000;

const { values } = parseArgs({
  options: {
    /** Where the Debians are, or are put: a folder for each. */
    folder: { type: 'string', default: '/var/tmp/spns-debian' },
    suite: { type: 'string', multiple: true, default: SUITES },
    /** One that was built by `npm run deb`; else it is built for the play. */
    package: { type: 'string' },
  },
});

const lacking = missing();
if (lacking === undefined) {
  mkdirSync(values.folder, { recursive: true });
  const failed = values.suite.filter((suite) => !play(suite));
  process.exitCode = failed.length > 0 ? 1 : 0;
} else {
  process.stdout.write(`skipped: ${lacking}\n`);
}

function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can boot a container';
  for (const program of ['systemd-nspawn', 'debootstrap', 'git', 'dpkg-deb'])
    if (spawnSync(program, ['--version']).status !== 0) return `${program} is not installed here`;
  return undefined;
}

/** Runs a program, shows what it says, and throws if it fails. */
function run(program: string, ...words: string[]): void {
  const { status, error } = spawnSync(program, words, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${error?.message ?? `exit code ${status}`}`);
}

/** One Debian: true if all went as the pages say. */
function play(suite: string): boolean {
  const pristine = join(values.folder, suite);
  if (!existsSync(join(pristine, 'usr/bin/npm'))) {
    rmSync(pristine, { recursive: true, force: true });
    const include = [...PACKAGES, ...ASKED_FOR].join(',');
    run('debootstrap', '--variant=minbase', `--include=${include}`, suite, pristine, 'http://deb.debian.org/debian');
  }
  const machine = mkdtempSync(join(values.folder, `${suite}-`));
  try {
    run('cp', '-a', `${pristine}/.`, machine);
    furnish(machine);
    const { status, error } = spawnSync(
      'systemd-nspawn',
      [
        ...['--quiet', '--register=no', '--keep-unit', '--boot', `--directory=${machine}`],
        `--machine=${MACHINE}`,
        `--hostname=${MACHINE}`,
        // Of Debian 13 on a machine with the old hierarchy of control groups.
        'SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1',
      ],
      { stdio: 'ignore', timeout: PATIENCE, killSignal: 'SIGTERM' },
    );
    const log = readFileSync(join(machine, 'play/log'), 'utf8');
    const played = log.trimEnd().endsWith('all played');
    // What was played, or what went wrong and all before it.
    process.stdout.write(played ? (log.match(/^== .*\n/gm) ?? []).join('') : log);
    process.stdout.write(`${suite}: ${played ? 'all is as the pages say' : `failed (${error?.message ?? status})`}\n`);
    return played;
  } finally {
    rmSync(machine, { recursive: true, force: true });
  }
}

/** Puts what is played, and what it is played with, into the container. */
function furnish(machine: string): void {
  const at = (path: string) => join(machine, path);
  mkdirSync(at('play'));
  run('git', 'clone', '--quiet', '--bare', ROOT, at('play/spns.git'));
  for (const tag of ['v1', 'v2']) run('git', '-C', at('play/spns.git'), 'tag', '--force', tag, 'HEAD');
  if (values.package !== undefined) copyFileSync(values.package, at('play/spns.deb'));
  else run(join(ROOT, 'src/cli/node'), join(ROOT, 'ops/deb/main.ts'), '--output', at('play/spns.deb'));
  cpSync(join(ROOT, 'src/devnet/providers/certificates/apns.pem'), at('play/apns.pem'));
  // What the page tells to set, and what stands in the example already.
  const keys = '[keys]\nhivemind = hivemind.key\nonionreq = onionreq.key\n';
  writeFileSync(at('play/edited.ini'), `${fence(join(ROOT, 'docs/install.md'), 'ini')[0]}\n${keys}`);
  writeFileSync(at('etc/hosts'), `127.0.0.1 localhost\n127.0.1.1 ${MACHINE} ${hostname()}\n`);
  writeFileSync(at('play/play.sh'), script(ROOT));
  // What npm has fetched for this machine need not be fetched again.
  const cache = spawnSync('npm', ['config', 'get', 'cache'], { encoding: 'utf8' }).stdout.trim();
  if (existsSync(join(cache, '_cacache'))) run('cp', '-a', cache, at('root/.npm'));
  // A certificate authority that only this machine knows, of a proxy before the registry.
  const authority = process.env.NODE_EXTRA_CA_CERTS;
  if (authority !== undefined) copyFileSync(authority, at('play/ca.pem'));
  const settings = ['prefer-offline=true', 'audit=false', 'fund=false', 'update-notifier=false'];
  writeFileSync(at('root/.npmrc'), [...settings, authority ? 'cafile=/play/ca.pem' : '', ''].join('\n'));
  mkdirSync(at('etc/systemd/system/multi-user.target.wants'), { recursive: true });
  symlinkSync('../play.service', at('etc/systemd/system/multi-user.target.wants/play.service'));
  writeFileSync(
    at('etc/systemd/system/play.service'),
    [
      '[Unit]\nAfter=postgresql.service network.target\n[Service]\nType=oneshot\nEnvironment=HOME=/root',
      'ExecStart=/bin/sh -c "bash /play/play.sh >/play/log 2>&1; systemctl poweroff --no-block"\n',
    ].join('\n'),
  );
}
