// `npm run deb`: a Debian package of what stands in this folder, for this machine's kind of processor, with Node and
// all packages of the lock file in it. Needs dpkg-deb and npm.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { VERSION } from '../../src/version.ts';
import { slim } from '../slim.ts';
import { packagedConfig } from './config.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const ARCHITECTURE = { x64: 'amd64', arm64: 'arm64' }[process.arch as string];
const COPYRIGHT = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: spns

Files: *
License: GPL-3+
 On Debian systems the whole text is in /usr/share/common-licenses/GPL-3.

Files: usr/lib/spns/node_modules/*
License: each as its own LICENSE beside it tells`;
/** Where the program is, in place of docs/install.md's /opt/spns. */
const PROGRAM = '/usr/lib/spns';

const { values } = parseArgs({
  options: { output: { type: 'string', default: `spns_${VERSION}_${ARCHITECTURE}.deb` } },
});
if (ARCHITECTURE === undefined) throw new Error(`there is no Node for ${process.arch} among the packages`);

const stage = mkdtempSync(join(tmpdir(), 'spns-deb-'));
try {
  build(stage, resolve(values.output));
} finally {
  rmSync(stage, { recursive: true });
}

function build(root: string, output: string): void {
  const at = (path: string) => {
    mkdirSync(join(root, dirname(path)), { recursive: true, mode: 0o755 });
    return join(root, path);
  };
  const put = (path: string, content: string | Buffer, mode = 0o644) => writeFileSync(at(path), content, { mode });
  const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
  const zipped = (text: string) => gzipSync(text, { level: 9 });
  chmodSync(root, 0o755);

  for (const name of ['src', 'package.json', 'package-lock.json', '.npmrc'])
    cpSync(join(ROOT, name), at(`${PROGRAM}/${name}`), { recursive: true });
  run('npm', ['ci', '--omit=dev', '--prefix', join(root, PROGRAM)]);
  slim(join(root, PROGRAM, 'node_modules'), process.arch);
  mkdirSync(join(root, 'usr/bin'));
  symlinkSync('../lib/spns/src/cli/spns', join(root, 'usr/bin/spns'));

  // All that there are.
  for (const unit of readdirSync(join(ROOT, 'systemd')))
    put(
      `usr/lib/systemd/system/${unit}`,
      read(`systemd/${unit}`)
        .replaceAll('file:/opt/spns/README.md', 'man:spns(1) file:/usr/share/doc/spns/README.md')
        .replaceAll('/opt/spns/', `${PROGRAM}/`),
    );
  put('etc/spns/spns.ini', packagedConfig(read('spns.ini.example')));

  const spns = (word: string) => run(process.execPath, [join(ROOT, 'src/cli/main.ts'), word]);
  put('usr/share/man/man1/spns.1.gz', zipped(spns('man')));
  put('usr/share/bash-completion/completions/spns', spns('completion'));
  for (const name of [
    'README.md',
    'DOCUMENTATION.md',
    'spns.ini.example',
    'docs',
    'ops/alerts.yml',
    'ops/prometheus.yml',
  ])
    cpSync(join(ROOT, name), at(`usr/share/doc/spns/${name}`), { recursive: true });
  cpSync(join(ROOT, 'ops/grafana-dashboard.json'), at('usr/share/doc/spns/ops/grafana-dashboard.json'));
  put('usr/share/doc/spns/copyright', `${COPYRIGHT}\n`);
  put('usr/share/doc/spns/changelog.gz', zipped(read('CHANGELOG.md')));

  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => {
    const file = join(root, name);
    const stat = lstatSync(file);
    // Whoever made this checkout, with whatever umask.
    if (!stat.isSymbolicLink()) chmodSync(file, stat.isDirectory() || stat.mode & 0o100 ? 0o755 : 0o644);
    return stat.isFile();
  });
  const size = files.reduce((sum, name) => sum + Math.ceil(lstatSync(join(root, name)).size / 1024), 0);
  const sums = files.map(
    (name) =>
      `${createHash('md5')
        .update(readFileSync(join(root, name)))
        .digest('hex')}  ${name}\n`,
  );
  put('DEBIAN/control', control(size));
  put('DEBIAN/conffiles', '/etc/spns/spns.ini\n');
  put('DEBIAN/md5sums', sums.join(''));
  for (const name of ['postinst', 'prerm', 'postrm']) put(`DEBIAN/${name}`, read(`ops/deb/${name}`), 0o755);
  run('dpkg-deb', ['--root-owner-group', '-Zxz', '-z3', '--build', root, output]);
  process.stdout.write(`${output}\n`);
}

/** @param size of all files, KiB */
function control(size: number): string {
  const { description } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { description: string };
  const [name, does] = description.split(': ');
  return [
    'Package: spns',
    `Version: ${VERSION}`,
    `Architecture: ${ARCHITECTURE}`,
    'Maintainer: SPNS <root@localhost>',
    `Installed-Size: ${size}`,
    'Depends: adduser, libc6 (>= 2.36), libstdc++6',
    'Recommends: postgresql, systemd',
    'Section: net',
    'Priority: optional',
    `Description: ${name}`,
    ` It ${does}, through Apple, Firebase, Huawei`,
    ' or Web Push, without seeing what they say. Node and all that it needs is in',
    ' this package.',
    '',
  ].join('\n');
}

/** Runs a program to its end. Throws an Error with its last words if it fails. */
function run(program: string, words: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${error?.message ?? stderr}`);
  return stdout;
}
