import { CANARY } from './canary.ts';
import { type Config, type DaemonName, programOf } from './config.ts';
import { DATABASE } from './database.ts';
import { HIVEMIND } from './hivemind.ts';
import type { IniSection } from './ini.ts';
import { KEYS } from './keys.ts';
import { LOG } from './log.ts';
import { NOTIFIER } from './notifier.ts';
import type { Program, Table } from './table.ts';
import { WEB } from './web.ts';

const SECTIONS: { readonly [name: string]: Table } = {
  canary: CANARY,
  db: DATABASE,
  hivemind: HIVEMIND,
  keys: KEYS,
  log: LOG,
  web: WEB,
};

/**
 * The keys of the common sections that a program reads only when it starts, as `[section].key`; spns.ini.example marks
 * them so.
 */
export const RESTART_KEYS: { readonly [program in Program]: readonly string[] } = {
  hivemind: restartKeys('hivemind'),
  web: restartKeys('web'),
  notifier: restartKeys('notifier'),
  canary: restartKeys('canary'),
};

function restartKeys(program: Program): string[] {
  return Object.entries(SECTIONS).flatMap(([name, table]) => keysOf(name, table, program));
}

function keysOf(section: string, table: Table, program: Program): string[] {
  return Object.values(table.settings).flatMap(({ key, restart }) =>
    restart?.includes(program) ? [`[${section}].${key}`] : [],
  );
}

/** The keys among `changed` that the daemon only reads when it starts. */
export function needRestart(name: DaemonName, changed: readonly string[]): string[] {
  const program = programOf(name);
  const own = program === 'notifier' ? keysOf(name, NOTIFIER, program) : [];
  // Keys of any instance count: whoever reads the line need not know which of them this process reads.
  const common = (key: string) => key.replace(/^\[hivemind-[^\]]+\]/, '[hivemind]');
  return changed.filter((key) => RESTART_KEYS[program].includes(common(key)) || own.includes(key));
}

/**
 * The keys that differ between two configurations, as `[section].key`; never their values, since some are secret.
 */
export function changedKeys(before: Config, after: Config): string[] {
  const changed: string[] = [];
  for (const name of new Set([...before.ini.sections.keys(), ...after.ini.sections.keys()])) {
    changed.push(...changedEntries(name, before.ini.sections.get(name), after.ini.sections.get(name)));
  }
  changed.push(...changedEntries('DEFAULT', before.ini.defaults, after.ini.defaults));
  return changed;
}

function changedEntries(name: string, before: IniSection = new Map(), after: IniSection = new Map()): string[] {
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((key) => before.get(key)?.value !== after.get(key)?.value)
    .map((key) => `[${name}].${key}`);
}
