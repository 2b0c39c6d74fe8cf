import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { CANARY } from '../settings/canary.ts';
import { HIVEMIND } from '../settings/hivemind.ts';
import { hivemindSectionNames } from '../settings/hivemind-instances.ts';
import type { Ini } from '../settings/ini.ts';
import { NOTIFIER } from '../settings/notifier.ts';
import type { Program, Table } from '../settings/table.ts';
import { WEB } from '../settings/web.ts';
import { findUser, mayRead } from './child.ts';
import type { Unit } from './unit.ts';

/** A unit, and what tells which sections of the configuration its daemon reads. */
export interface Deployed {
  readonly unit: Unit;
  readonly kind: Program;
  /** For a notifier: its service. */
  readonly service?: string;
  /** For one of several hiveminds: the NAME of its section `[hivemind-NAME]`. */
  readonly instance?: string;
}

/** Keys whose values are files that a daemon reads. */
const FILES = /_file$|^module$/;

/**
 * The problems that a configuration would have under the units, though it may run elsewhere: other users, another
 * folder, other rights.
 *
 * @param file the absolute path of the configuration
 */
export function underUnits(file: string, ini: Ini, deployed: readonly Deployed[]): string[] {
  // The front-end may have its own file.
  const readers = deployed.filter(({ unit }) => configOf(unit) === file);
  const [first] = deployed;
  const astray =
    readers.length === 0 && first !== undefined
      ? [
          `${first.unit.name} reads ${configOf(first.unit)}, not this file: put it there, or set SPNS_CONFIG by "systemctl edit ${first.unit.name}"`,
        ]
      : [];
  // A file that is not in its place yet is checked as if it were.
  const found = (readers.length === 0 ? deployed : readers).flatMap((one) => [
    ...ofUnit(one.unit),
    ...listening(ini, one),
    ...reading(ini, one),
  ]);
  return [...new Set([...astray, ...found])];
}

/** Whether systemd hands the notifier a file that its section names: then only systemd need be able to read it. */
export function isHandedOver(ini: Ini, { unit, service }: Deployed): boolean {
  return [...(ini.sections.get(`notify-${service}`) ?? [])].some(
    ([key, { value }]) => FILES.test(key) && unit.credentials.has(value.trim()),
  );
}

/** The configuration that the unit's daemon reads. */
export function configOf({ folder, environment }: Unit): string {
  return resolve(folder, environment.get('SPNS_CONFIG') ?? 'spns.ini');
}

function ofUnit(unit: Unit): string[] {
  const found: string[] = [];
  const { name, user, credentials, programs } = unit;
  if (user !== undefined && !findUser(user))
    found.push(
      `${name} runs as the user ${user}, who does not exist on this machine: adduser --system, as docs/install.md says`,
    );
  for (const program of programs)
    if (!existsSync(program))
      found.push(
        `${name} starts ${program}, which does not exist: put this program where the unit looks, or edit the unit`,
      );
  if (!existsSync(unit.folder)) found.push(`${name} works in ${unit.folder}, which does not exist`);
  for (const [credential, source] of credentials)
    if (isAbsolute(source) && !existsSync(source))
      found.push(
        `${name} is handed ${credential} from ${source}, which does not exist: without it systemd does not start it`,
      );
  return found;
}

/**
 * Problems with where the daemon would listen: a socket file that it may not create, or a port that it may not have.
 */
function listening(ini: Ini, deployed: Deployed): string[] {
  const { unit, kind } = deployed;
  const tables: Table[] = kind === 'notifier' ? [NOTIFIER] : [HIVEMIND, WEB, CANARY];
  const keys = tables.flatMap((table) =>
    Object.values(table.settings)
      .filter(({ listens }) => listens === kind)
      .map((setting) => ({ sections: sectionsOf(table, deployed), ...setting })),
  );
  return keys.flatMap(({ sections, key, default: otherwise }) => {
    const section = sections.find((name) => ini.sections.get(name)?.has(key)) ?? sections[0];
    const value = settingOf(ini, section, key);
    const text = value ?? otherwise;
    if (text === undefined) return [];
    const where = value === undefined ? `[${section}].${key} is not set, and` : `[${section}].${key} = ${value}:`;
    const path = /^(?:ipc:\/\/|unix:)(.+)$/.exec(text)?.[1];
    if (path !== undefined) return path.startsWith('@') ? [] : socketFile(resolve(unit.folder, path), where, unit);
    const port = Number(/:(\d+)$/.exec(text)?.[1] ?? 0);
    if (port === 0 || unit.lowPorts || port >= lowestPort()) return [];
    return [
      `${where} ${unit.name} may not listen below port ${lowestPort()}: choose another, and let a web server or the firewall pass it on`,
    ];
  });
}

/** The sections from which a table is read: keys that the first does not have are taken from the next. */
function sectionsOf(table: Table, { service, instance }: Deployed): [string, ...string[]] {
  if (table === NOTIFIER) return [`notify-${service}`];
  if (table === WEB) return ['web'];
  if (table === CANARY) return ['canary'];
  return hivemindSectionNames(instance);
}

function socketFile(path: string, where: string, { name, writable, hidden }: Unit): string[] {
  const cover = coverOf(path, hidden);
  if (cover)
    return [
      `${where} ${name} would create its socket in ${cover[0]}, which nobody else can see (${cover[1]}): set it to a path in ${suggestion(writable)}`,
    ];
  if (writable === undefined || writable.some((folder) => isIn(path, folder))) return [];
  return [
    `${where} ${name} would create its socket at ${path}, in a folder that it may not write to: set it to a path in ${suggestion(writable)}`,
  ];
}

/** Problems with files that the daemon opens, and with sockets that it connects to. */
function reading(ini: Ini, { unit, kind, service, instance }: Deployed): string[] {
  const found: string[] = [];
  const user = unit.user === undefined ? undefined : findUser(unit.user);
  const read = (section: string, key: string, text: string, connecting: boolean) => {
    const handedOver = !isAbsolute(text) && unit.credentials.has(text);
    const path = resolve(unit.folder, text);
    if (handedOver) return;
    const cover = coverOf(path, unit.hidden);
    if (cover) found.push(`[${section}].${key}: ${path} is hidden from ${unit.name} (${cover[1]}): put it elsewhere`);
    else if (!connecting && user && process.getuid?.() === 0 && existsSync(path) && !mayRead(path, user)) {
      const credential = [...unit.credentials].find(([, source]) => source === path)?.[0];
      const advice = credential
        ? `write it as ${credential}, which systemd hands over`
        : `let it be handed over (LoadCredential=NAME:${path} by "systemctl edit ${unit.name}", and NAME here), or chgrp and chmod 640 it`;
      found.push(`[${section}].${key}: the user ${user.name} of ${unit.name} may not read ${path}: ${advice}`);
    }
  };
  const sections = {
    hivemind: ['db', ...hivemindSectionNames(instance)],
    web: [],
    notifier: [`notify-${service}`],
    canary: ['hivemind'],
  }[kind];
  for (const section of sections) {
    for (const [key, { value }] of ini.sections.get(section) ?? []) {
      if (section !== 'db' && FILES.test(key)) read(section, key, value.trim(), false);
      else for (const path of otherPaths(key, value)) read(section, key, path, true);
    }
  }
  const key = settingOf(ini, 'keys', kind === 'web' ? 'onionreq' : 'hivemind');
  if (key !== undefined) read('keys', kind === 'web' ? 'onionreq' : 'hivemind', key, false);
  return found;
}

/**
 * Paths within addresses: oxend's socket, PostgreSQL's folder and certificates. Addresses to listen on are left to
 * {@link listening}.
 */
function otherPaths(key: string, value: string): string[] {
  if (/listen/.test(key)) return [];
  return [...value.matchAll(/(?:ipc:\/\/|[=@])(\/|%2F)([^?&@]*)/gi)].map(([, , rest = '']) => `/${decode(rest)}`);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function settingOf(ini: Ini, section: string, key: string): string | undefined {
  return (ini.sections.get(section)?.get(key) ?? ini.defaults.get(key))?.value.trim() || undefined;
}

function coverOf(path: string, hidden: Unit['hidden']): readonly [string, string] | undefined {
  return [...hidden].find(([folder]) => isIn(path, folder));
}

function isIn(path: string, folder: string): boolean {
  return join(path, '/').startsWith(join(folder, '/'));
}

function suggestion(writable: readonly string[] | undefined): string {
  return writable?.find((folder) => folder.startsWith('/run/')) ?? writable?.[0] ?? 'another folder';
}

function lowestPort(): number {
  try {
    return Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
  } catch {
    return 1024;
  }
}
