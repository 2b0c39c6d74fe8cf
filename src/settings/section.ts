import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { IniSection } from './ini.ts';
import { nearest } from './nearest.ts';

/**
 * The configuration cannot be used. `problems` holds everything that is wrong with it, each a sentence that says where
 * and what to do. `warnings` matter as well: a required key that is missing is often there, but misspelt.
 */
export class ConfigError extends Error {
  readonly problems: readonly string[];
  readonly warnings: readonly string[];

  constructor(problems: readonly string[], warnings: readonly string[] = []) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
    this.warnings = warnings;
  }
}

/** How a key of a section is read. */
export interface Reading<T> {
  /** The value if the key is missing or empty. */
  readonly default?: T;
  /** A missing key is a problem, and the returned value a placeholder that must not be used. */
  readonly required?: boolean;
  /** Never repeat the value in a message. Values of keys with "secret" or "password" in their name never are. */
  readonly secret?: boolean;
}

export interface NumberReading extends Reading<number> {
  readonly min?: number;
  readonly max?: number;
}

export interface StringReading extends Reading<string> {
  /** What the whole value must match. */
  readonly pattern?: RegExp;
  /** The pattern in words, as in "must be …". */
  readonly what?: string;
}

type Given<T> = { readonly default: T } | { readonly required: true };

/** As Python reads numbers: an underscore may stand between two digits. */
const FLOAT = /^[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)(e[+-]?\d+(_\d+)*)?$/i;
const YES = new Set(['1', 'yes', 'true', 'on']);
const NO = new Set(['0', 'no', 'false', 'off']);
/** Up to the last @: a password may contain one, though it should be written %40. */
const URL_PASSWORD = /(:\/\/[^:/@\s]*:)\S*@/g;

/**
 * One section of the configuration, whose owner reads it key by key, so that a new notifier declares its keys in its
 * own files. A wrong value is noted and a placeholder returned: read everything first, then call {@link Section.check},
 * so that the operator sees every problem at once.
 */
export class Section {
  readonly name: string;
  readonly problems: string[] = [];
  readonly #entries: IniSection;
  readonly #defaults: IniSection;
  readonly #credentials: string | undefined;
  readonly #asked = new Set<string>();
  readonly #prefixes: string[] = [];
  readonly #obsolete = new Map<string, string>();

  /** @param credentials systemd's `$CREDENTIALS_DIRECTORY`, where {@link Section.path} looks first */
  constructor(name: string, entries: IniSection, defaults: IniSection, credentials?: string) {
    this.name = name;
    this.#entries = entries;
    this.#defaults = defaults;
    this.#credentials = credentials;
  }

  /** Whether the key is there and not empty. */
  has(key: string): boolean {
    return this.#raw(key) !== undefined;
  }

  string(key: string, reading: StringReading & Given<string>): string;
  string(key: string, reading?: StringReading): string | undefined;
  string(key: string, reading: StringReading = {}): string | undefined {
    return this.#read(key, reading, '', (text) => {
      if (reading.pattern && !reading.pattern.test(text)) {
        throw new Error(`must be ${reading.what ?? `like ${reading.pattern.source}`}`);
      }
      return text;
    });
  }

  integer(key: string, reading: NumberReading & Given<number>): number;
  integer(key: string, reading?: NumberReading): number | undefined;
  integer(key: string, reading: NumberReading = {}): number | undefined {
    return this.#read(key, reading, 0, (text) => {
      const value = /^[+-]?\d+(_\d+)*$/.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
      if (!Number.isSafeInteger(value)) throw new Error('must be a whole number');
      return inRange(value, reading);
    });
  }

  number(key: string, reading: NumberReading & Given<number>): number;
  number(key: string, reading?: NumberReading): number | undefined;
  number(key: string, reading: NumberReading = {}): number | undefined {
    return this.#read(key, reading, 0, (text) => {
      const value = FLOAT.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
      if (!Number.isFinite(value)) throw new Error('must be a number');
      return inRange(value, reading);
    });
  }

  /** yes/no, true/false, on/off, 1/0 in any case. */
  boolean(key: string, reading: Reading<boolean> & Given<boolean>): boolean;
  boolean(key: string, reading?: Reading<boolean>): boolean | undefined;
  boolean(key: string, reading: Reading<boolean> = {}): boolean | undefined {
    return this.#read(key, reading, false, (text) => {
      if (YES.has(text.toLowerCase())) return true;
      if (NO.has(text.toLowerCase())) return false;
      throw new Error('must be yes or no');
    });
  }

  /** Words separated by commas, blanks or line ends; empty if the key is missing. */
  list(key: string, reading: Reading<readonly string[]> = {}): readonly string[] {
    return (
      this.#read(key, { default: [], ...reading }, [], (text) => text.split(/[\s,]+/).filter((word) => word !== '')) ??
      []
    );
  }

  /**
   * The absolute path of a file or folder, which need not exist. A relative one is resolved in systemd's
   * `$CREDENTIALS_DIRECTORY` if there is such a file (LoadCredential), otherwise, as in the original, in the folder in
   * which the daemon was started.
   */
  path(key: string, reading: Reading<string> & Given<string>): string;
  path(key: string, reading?: Reading<string>): string | undefined;
  path(key: string, reading: Reading<string> = {}): string | undefined {
    return this.#read(key, reading, '', (text) => resolvePath(text, this.#credentials));
  }

  /** The value that `parse` returns; the message of an Error that it throws becomes the problem. */
  parsed<T>(key: string, parse: (text: string) => T, reading: Reading<T> & Given<T>): T;
  parsed<T>(key: string, parse: (text: string) => T, reading?: Reading<T>): T | undefined;
  parsed<T>(key: string, parse: (text: string) => T, reading: Reading<T> = {}): T | undefined {
    return this.#read(key, reading, undefined as T, parse);
  }

  /** All keys that start with `prefix` and have a value, as [rest of the key, value]. */
  startingWith(prefix: string): readonly (readonly [string, string])[] {
    this.#prefixes.push(prefix);
    return [...this.#entries.keys()]
      .filter((key) => key.startsWith(prefix) && key !== prefix)
      .map((key) => [key.slice(prefix.length), this.#raw(key) ?? ''] as const)
      .filter(([, value]) => value !== '');
  }

  /** Declares that a key of the original no longer has a meaning; if it is set, a warning says `why`. */
  obsolete(key: string, why: string): void {
    this.#obsolete.set(key, why);
  }

  /** Notes that a key has a wrong value: "[section].key = value: `sentence`". */
  problem(key: string, sentence: string, secret = false): void {
    this.problems.push(`${this.#place(key, secret)}: ${sentence}`);
  }

  /** Throws {@link ConfigError} with everything that was wrong with the keys read so far. */
  check(): void {
    if (this.problems.length > 0) throw new ConfigError(this.problems);
  }

  /** A sentence for each key of the section that was not read; call it after the owner has read its keys. */
  warnings(): string[] {
    return [...this.#entries]
      .filter(([key]) => !this.#asked.has(key) && !this.#prefixes.some((prefix) => key.startsWith(prefix)))
      .map(([key, entry]) => {
        const why = this.#obsolete.get(key);
        if (why !== undefined)
          return `[${this.name}].${key} (line ${entry.line}) has no meaning for this server: ${why}. Keep it if you may go back to the original`;
        const near = nearest(key, this.#asked);
        const help = near ? `did you mean ${near}?` : 'remove it, or see spns.ini.example for all keys';
        return `[${this.name}].${key} (line ${entry.line}) is not a known key and is ignored: ${help}`;
      });
  }

  #raw(key: string): string | undefined {
    const value = (this.#entries.get(key) ?? this.#defaults.get(key))?.value.trim();
    return value === '' ? undefined : value;
  }

  #read<T>(key: string, reading: Reading<T>, placeholder: T, parse: (text: string) => T): T | undefined {
    this.#asked.add(key);
    const text = this.#raw(key);
    if (text === undefined) {
      if (reading.required) this.problem(key, 'is required and not set: add it');
      return reading.required ? placeholder : reading.default;
    }
    try {
      return parse(text);
    } catch (error) {
      this.problem(key, (error as Error).message, reading.secret);
      return reading.default ?? placeholder;
    }
  }

  #place(key: string, secret: boolean): string {
    const value = this.#raw(key);
    if (value === undefined) return `[${this.name}].${key}`;
    if (secret || isSecretKey(key)) return `[${this.name}].${key} = (not shown)`;
    return `[${this.name}].${key} = ${value.replace(/\s+/g, ' ').replace(URL_PASSWORD, '$1***@')}`;
  }
}

/** Whether the name of a key says that its value must not be shown. */
export function isSecretKey(key: string): boolean {
  return /secret|password/.test(key);
}

function inRange(value: number, { min, max }: NumberReading): number {
  if (min !== undefined && value < min) throw new Error(`must be at least ${min}`);
  if (max !== undefined && value > max) throw new Error(`must be at most ${max}`);
  return value;
}

/** See {@link Section.path}. */
function resolvePath(text: string, credentials: string | undefined): string {
  if (credentials && !text.startsWith('/')) {
    const credential = join(credentials, text);
    if (existsSync(credential)) return credential;
  }
  return resolve(text);
}
