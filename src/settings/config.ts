import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { x25519Public } from '../session/sodium.ts';
import { CANARY, type CanarySettings } from './canary.ts';
import { DATABASE, type DatabaseSettings } from './database.ts';
import { type HivemindSettings, readHivemind } from './hivemind.ts';
import { hivemindSection, instancesIn } from './hivemind-instances.ts';
import { type Ini, type IniSection, parseIni } from './ini.ts';
import { type Keys, readKeys } from './keys.ts';
import { type LogSettings, readLog } from './log.ts';
import { nearest } from './nearest.ts';
import { BUILT_IN_SERVICES, NOTIFIER } from './notifier.ts';
import { ConfigError, Section } from './section.ts';
import { type Program, type Role, readTable } from './table.ts';
import { readWeb, type WebSettings } from './web.ts';

/** The name of a daemon, which is also that of its section in spns.ini. */
export type DaemonName = 'hivemind' | 'web' | 'canary' | `notify-${string}`;

export function programOf(name: DaemonName): Program {
  return name === 'hivemind' || name === 'web' || name === 'canary' ? name : 'notifier';
}

/** The whole of spns.ini, checked and frozen. */
export interface Config {
  /** Absolute path of the file; empty if none was read. */
  readonly file: string;
  readonly db: DatabaseSettings;
  readonly hivemind: HivemindSettings;
  readonly keys: Keys;
  readonly web: WebSettings;
  /** undefined if the file has no section for it: then there is no canary. */
  readonly canary: CanarySettings | undefined;
  readonly log: LogSettings;
  /**
   * What is odd but does not stop a daemon: unknown keys, obsolete keys, key files that anybody may read. To be logged.
   */
  readonly warnings: readonly string[];
  /**
   * Opens a `[notify-…]` section, empty if the file has none. After reading its keys the caller must call its `check()`
   * and log its `warnings()`.
   */
  section(name: string): Section;
  /** Where a daemon serves metrics and health: its section's `metrics_listen`. */
  metricsListen(name: DaemonName): string | undefined;
  /** All sections as written, to tell what differs between two configurations (changes.ts). */
  readonly ini: Ini;
}

export interface LoadOptions {
  /** Default: `all`. */
  readonly role?: Role;
  /**
   * Reads further sections, so that their problems are reported together with all others. The values are not kept: to
   * use them, the owner opens the section again by {@link Config.section}.
   */
  readonly read?: (section: (name: string) => Section) => void;
}

const SECTIONS = ['canary', 'db', 'hivemind', 'keys', 'log', 'web'];

/**
 * Reads the configuration from the file that `SPNS_CONFIG` names, or else from `spns.ini` in the current folder; an
 * empty `SPNS_CONFIG` means no file, only defaults (docs/spec/hivemind.md, section 5).
 *
 * @throws ConfigError with everything that is wrong
 */
export function loadConfig(env: NodeJS.ProcessEnv, { role = 'all', read }: LoadOptions = {}): Config {
  const file = env.SPNS_CONFIG === '' ? '' : resolve(env.SPNS_CONFIG ?? 'spns.ini');
  const ini = parseIni(file === '' ? '' : readBytes(file));
  const warnings: string[] = [];
  const opened: Section[] = [];

  const open = (name: string) => openSection(ini, name, role, env.CREDENTIALS_DIRECTORY);
  const collect = <T>(name: string, reader: (section: Section) => T): T => {
    const section = open(name);
    opened.push(section);
    return reader(section);
  };

  const db = collect('db', (section) => readTable(section, DATABASE));
  const [hivemind, hiveminds] = readHiveminds(ini, env, role, warnings);
  opened.push(...hiveminds);
  const keys = collect('keys', (section) => readKeys(section, role, warnings));
  const log = collect('log', (section) => readLog(section, warnings));
  const web = collect('web', (section) => readWeb(section, warnings));
  const canary =
    ini.sections.has('canary') || role === 'canary'
      ? collect('canary', (section) => readTable(section, CANARY, role))
      : undefined;
  read?.((name) => collect(name, (section) => section));

  checkAll(file, ini, opened, warnings);
  warnings.push(...canaryWarnings(canary, keys));

  return Object.freeze({
    file,
    db,
    hivemind,
    keys,
    web,
    canary,
    log,
    warnings: Object.freeze(warnings),
    section: open,
    metricsListen: (name: DaemonName) => {
      if (name === 'hivemind') return hivemind.metricsListen;
      if (name === 'web') return web.metricsListen;
      if (name === 'canary') return canary?.metricsListen;
      const section = open(name);
      section.check();
      return NOTIFIER.settings.metricsListen.read(section, role);
    },
    ini,
  });
}

function openSection(ini: Ini, name: string, role: Role, credentials: string | undefined): Section {
  const section = new Section(name, ini.sections.get(name) ?? new Map(), ini.defaults, credentials);
  // A notifier does not read its own metrics_listen, run.ts does: read here, so that it does not count as unknown.
  if (name.startsWith('notify-')) NOTIFIER.settings.metricsListen.read(section, role);
  return section;
}

/** Reads the hivemind's settings, of the instance that this process belongs to if it is one of several. */
function readHiveminds(
  ini: Ini,
  env: NodeJS.ProcessEnv,
  role: Role,
  warnings: string[],
): [own: HivemindSettings, opened: Section[]] {
  const instance = env.SPNS_INSTANCE || ini.sections.get('hivemind')?.get('instance')?.value || undefined;
  const own = hivemindSection(ini, instance, env.CREDENTIALS_DIRECTORY);
  const opened = [own];
  const settings = readHivemind(own, role, warnings, instance);
  const named = instancesIn(ini);
  if (role === 'hivemind' && instance === undefined && named.length > 0) {
    const sections = named.map((name) => `[hivemind-${name}]`).join(', ');
    warnings.push(
      `this hivemind has no name, but the file has ${sections}: the front-end, the notifiers and the commands connect only to those. Remove them, or start spns-hivemind@NAME instead`,
    );
  }
  // The sections of other instances are checked as well: those processes read the same file.
  for (const other of [undefined, ...named]) {
    const section = hivemindSection(ini, other);
    if (section.name === own.name) continue;
    readHivemind(section, 'web', [], other);
    opened.push(section);
  }
  return [settings, opened];
}

/**
 * Adds what is odd in the file and its sections to the warnings.
 *
 * @throws ConfigError with everything that is wrong in them
 */
function checkAll(file: string, ini: Ini, opened: readonly Section[], warnings: string[]): void {
  const problems = [...ini.problems];
  for (const section of opened) {
    problems.push(...section.problems);
    warnings.push(...section.warnings());
  }
  warnings.push(...unknownSections(ini), ...foreignNotifiers(ini));
  if (problems.length === 0) return;
  const located = problems.map((problem) => (file === '' ? problem : `${file}: ${problem}`));
  throw new ConfigError(located, warnings);
}

/**
 * The services whose notifier we can run: those with a `[notify-NAME]` section that is built in or names a `module`.
 * Other such sections belong to programs of the operator's own, as they may in the original's file.
 */
export function runnableServices(ini: Ini): string[] {
  return notifySections(ini)
    .filter(([name, section]) => BUILT_IN_SERVICES.some((known) => known === name) || section.has('module'))
    .map(([name]) => name);
}

function notifySections(ini: Ini): [name: string, section: IniSection][] {
  return [...ini.sections].flatMap(([name, section]) =>
    /^notify-./.test(name) ? [[name.slice('notify-'.length), section]] : [],
  );
}

function foreignNotifiers(ini: Ini): string[] {
  const runnable = new Set(runnableServices(ini));
  return notifySections(ini)
    .filter(([name]) => !runnable.has(name))
    .map(([name]) => {
      const near = nearest(name, BUILT_IN_SERVICES);
      const help = near ? `did you mean [notify-${near}]?` : 'for a notifier written for this server, set module in it';
      return `[notify-${name}] is left to a program of your own, since SPNS has no notifier of that name: ${help}`;
    });
}

function readBytes(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const where =
      'name your configuration in the environment variable SPNS_CONFIG, or copy spns.ini.example to spns.ini here and edit it';
    if (code === 'ENOENT') throw new ConfigError([`${file} is not there: ${where}`]);
    if (code === 'EACCES')
      throw new ConfigError([`${file} may not be read by this user: give it the right owner or group`]);
    throw new ConfigError([`${file} cannot be read (${code ?? error}): ${where}`]);
  }
}

/** Only a process that has the front-end's secret key can tell whether the canary encrypts for it. */
function canaryWarnings(canary: CanarySettings | undefined, { onionreq }: Keys): string[] {
  if (!canary || !onionreq || x25519Public(onionreq).equals(canary.frontEndKey)) return [];
  return [
    '[canary].front_end_key is not the public key of [keys].onionreq: the front-end will not understand the canary',
  ];
}

function unknownSections(ini: Ini): string[] {
  return [...ini.sections.keys()]
    .filter((name) => !SECTIONS.includes(name) && !/^(notify|hivemind)-./.test(name))
    .map((name) => {
      const near = nearest(name, [...SECTIONS, ...BUILT_IN_SERVICES.map((service) => `notify-${service}`)]);
      return `section [${name}] is not known and is ignored: ${near ? `did you mean [${near}]?` : 'remove it'}`;
    });
}
