import { nearest } from './nearest.ts';
import type { Section } from './section.ts';
import { parsed, readTable, type Table } from './table.ts';

/** The original's level names (docs/spec/hivemind.md, section 5). */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warning' | 'error' | 'critical' | 'none';

/** `auto`: for journald under systemd, coloured on a terminal, else plain lines with the time. */
export type LogFormat = 'auto' | 'plain' | 'json';

export interface LogSettings {
  readonly level: LogLevel;
  /** Levels of single categories, by lower-case name. */
  readonly levels: ReadonlyMap<string, LogLevel>;
  readonly format: LogFormat;
}

const LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warning', 'error', 'critical', 'none'];
/** Other names that the original accepts. */
const LEVEL_ALIASES: ReadonlyMap<string, LogLevel> = new Map([
  ['warn', 'warning'],
  ['err', 'error'],
  ['crit', 'critical'],
  ['off', 'none'],
]);
/**
 * Known categories, ours and those that only the original has: names that are nearly one of these get a warning. Any
 * others are accepted.
 */
const CATEGORIES = ['hivemind', 'snode', 'oxenmq', 'stats', 'pg', 'utils', 'web', 'notifier'];

/** `[log]`, which every program reads. */
export const LOG = {
  settings: {
    level: parsed('level', compoundLevel, {
      default: 'info',
      text: `trace, debug, info, warning, error, critical or none; for everything, and for single categories: hivemind,
        snode (connections to storage servers), pg (database) and web (front-end).`,
    }),
    /** One key for each category, `level-` and its name. */
    single: { key: 'level-snode', default: undefined, example: 'warning', read: singleLevels },
    format: parsed('format', logFormat, {
      default: 'auto',
      text: `auto: one plain line per event, with journald's priorities under systemd, coloured on a terminal. plain:
        never coloured. json: one JSON object per line.`,
    }),
  },
} satisfies Table;

export function readLog(section: Section, warnings: string[]): LogSettings {
  const { level: compound, single, format } = readTable(section, LOG);
  const { level } = compound;
  const levels = new Map([...compound.levels, ...single]);
  for (const category of levels.keys()) {
    const near = nearest(category, CATEGORIES);
    if (near !== undefined && near !== category) {
      const [here, there] = single.has(category)
        ? [`level-${category}`, `level-${near}`]
        : [`level = ${category}=…`, near];
      warnings.push(`[log].${here} names a category that may not exist: did you mean ${there}?`);
    }
  }
  return Object.freeze({ level, levels, format });
}

function singleLevels(section: Section): ReadonlyMap<string, LogLevel> {
  return new Map(
    section.startingWith('level-').flatMap(([category]) => {
      const level = section.parsed(`level-${category}`, logLevel);
      return level === undefined ? [] : [[category, level] as const];
    }),
  );
}

function logLevel(text: string): LogLevel {
  const word = text.toLowerCase();
  const level = LEVEL_ALIASES.get(word) ?? LEVELS.find((known) => known === word);
  if (!level) throw new Error(`must be one of ${LEVELS.join(', ')}`);
  return level;
}

/**
 * Reads `info`, or the original's `info, snode=debug, *=warning` (docs/spec/upstream.md, section 2.4). If a category is
 * named more than once, the last one counts.
 */
function compoundLevel(text: string): { level: LogLevel; levels: ReadonlyMap<string, LogLevel> } {
  const levels = new Map<string, LogLevel>();
  let level: LogLevel = 'info';
  for (const word of text.split(/[\s,;]+/).filter((part) => part !== '')) {
    const [category = '', value = ''] = word.includes('=') ? word.split('=', 2) : ['*', word];
    if (category === '') throw new Error('must name a category in front of each =, as in: info, snode=debug');
    if (category === '*') level = logLevel(value);
    else levels.set(category.toLowerCase(), logLevel(value));
  }
  return { level, levels };
}

function logFormat(text: string): LogFormat {
  if (text !== 'auto' && text !== 'plain' && text !== 'json') throw new Error('must be auto, plain or json');
  return text;
}
