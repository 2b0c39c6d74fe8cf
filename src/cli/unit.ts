import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a systemd unit changes for the daemon that it starts. */
export interface Unit {
  /** Such as `spns-notifier@apns`. */
  readonly name: string;
  readonly user: string | undefined;
  /** The working directory, to which relative paths are relative. */
  readonly folder: string;
  readonly environment: ReadonlyMap<string, string>;
  /** The files that systemd hands over, by the names under which it does. */
  readonly credentials: ReadonlyMap<string, string>;
  /** The folders that it may write to; undefined: wherever its user may. */
  readonly writable: readonly string[] | undefined;
  /** Folders that are empty or private for the daemon, with the setting that makes them so. */
  readonly hidden: ReadonlyMap<string, string>;
  /** Whether it may listen on ports below 1024. */
  readonly lowPorts: boolean;
  /** The files of ExecStart. */
  readonly programs: readonly string[];
}

/** In the order in which systemd looks for units; the last folder is the one that comes with this program. */
const FOLDERS = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  fileURLToPath(new URL('../../systemd', import.meta.url)),
];

/**
 * Reads a unit and its drop-ins.
 *
 * @param name with the instance, such as `spns-notifier@apns`
 * @returns undefined if it is in none of the folders
 */
export function readUnit(name: string, folders: readonly string[] = FOLDERS): Unit | undefined {
  const [template, instance] = name.split('@');
  const file = instance === undefined ? `${name}.service` : `${template}@.service`;
  const found = folders.map((folder) => join(folder, file)).find((path) => existsSync(path));
  if (found === undefined) return undefined;
  const dropIns = folders
    .flatMap((folder) => [`${folder}/${file}.d`, `${folder}/${name}.service.d`])
    .filter((folder, at, all) => existsSync(folder) && all.indexOf(folder) === at)
    .flatMap((folder) =>
      readdirSync(folder)
        .filter((one) => one.endsWith('.conf'))
        .sort()
        .map((one) => join(folder, one)),
    );
  const settings = new Map<string, string[]>();
  for (const path of [found, ...dropIns]) readSettings(readFileSync(path, 'utf8'), settings);
  return interpret(name, (key) =>
    (settings.get(key) ?? []).map((value) => value.replaceAll('%i', instance ?? '').replaceAll('%%', '%')),
  );
}

/** Whether the unit is installed on this machine. */
export function isInstalled(name: string): boolean {
  return FOLDERS.slice(0, -1).some((folder) => existsSync(join(folder, `${name}.service`)));
}

/** Collects the values of each key of [Service]; an empty value removes the earlier ones. */
function readSettings(text: string, settings: Map<string, string[]>): void {
  let section = '';
  for (const line of text.replaceAll('\\\n', ' ').split('\n')) {
    section = /^\[(.+)\]\s*$/.exec(line)?.[1] ?? section;
    const match = /^\s*([A-Za-z]+)\s*=\s*(.*?)\s*$/.exec(line);
    if (!match || section !== 'Service') continue;
    const [, key = '', value = ''] = match;
    settings.set(key, value === '' ? [] : [...(settings.get(key) ?? []), value]);
  }
}

function interpret(name: string, all: (key: string) => string[]): Unit {
  const last = (key: string) => all(key).at(-1);
  const words = (key: string) =>
    all(key)
      .flatMap((value) => value.split(/\s+/))
      .filter((word) => word !== '');
  const paths = (key: string) => words(key).map((path) => path.replace(/^[-+]+/, ''));
  /** Without what follows a colon in some settings: options, or the path where the folder is to appear. */
  const folders = (key: string) => paths(key).map((path) => path.replace(/:.*/, ''));
  const on = (key: string) => /^(yes|true|on|1|disconnected)$/.test(last(key) ?? '');

  const hidden = new Map<string, string>();
  if (on('ProtectHome') || last('ProtectHome') === 'tmpfs')
    for (const folder of ['/home', '/root', '/run/user']) hidden.set(folder, 'ProtectHome');
  if (on('PrivateTmp')) for (const folder of ['/tmp', '/var/tmp']) hidden.set(folder, 'PrivateTmp');
  for (const folder of paths('InaccessiblePaths')) hidden.set(folder, 'InaccessiblePaths');
  for (const folder of folders('TemporaryFileSystem')) hidden.set(folder, 'TemporaryFileSystem');
  for (const folder of [...folders('BindPaths'), ...folders('BindReadOnlyPaths')]) hidden.delete(folder);

  const own = [
    ...folders('RuntimeDirectory').map((folder) => join('/run', folder)),
    ...folders('CacheDirectory').map((folder) => join('/var/cache', folder)),
    ...folders('StateDirectory').map((folder) => join('/var/lib', folder)),
    ...folders('LogsDirectory').map((folder) => join('/var/log', folder)),
  ];
  const bounding = all('CapabilityBoundingSet');
  return {
    name,
    user: last('User'),
    folder: last('WorkingDirectory')?.replace(/^-/, '') ?? '/',
    environment: new Map(
      all('Environment')
        .flatMap((value) => value.match(/"[^"]*"|\S+/g) ?? [])
        .map((word) => word.replace(/^"|"$/g, ''))
        .map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]),
    ),
    credentials: new Map(
      [...all('LoadCredential'), ...all('LoadCredentialEncrypted')].map((value) => {
        const [id = '', ...file] = value.split(':');
        return [id, file.join(':')];
      }),
    ),
    writable:
      last('ProtectSystem') === 'strict'
        ? [...own, ...paths('ReadWritePaths'), ...paths('BindPaths').map((path) => path.replace(/^.*:/, ''))].map(
            (path) => resolve(path),
          )
        : undefined,
    hidden,
    lowPorts:
      last('User') === undefined ||
      words('AmbientCapabilities').includes('CAP_NET_BIND_SERVICE') ||
      bounding.includes('~'),
    programs: (last('ExecStart') ?? '').split(/\s+/).filter((word) => word.startsWith('/')),
  };
}
