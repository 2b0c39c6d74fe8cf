import type { NumberReading, Reading, Section, StringReading } from './section.ts';

/** The programs that read spns.ini; all notifiers count as one. */
export type Program = 'hivemind' | 'web' | 'notifier' | 'canary';

/** For whom the configuration is read: each role requires only the keys it needs, but checks all that are set. */
export type Role = Program | 'all';

/** Everything about a key but how its value is read. */
export interface Options {
  /** These programs, or all that read the section, cannot do without it. The example sets it. */
  readonly required?: true | readonly Program[];
  /** Required if this other key of the section is set. */
  readonly requiredWith?: string;
  /** The programs that read it only when they start, and so need a restart to apply a change. */
  readonly restart?: readonly Program[];
  /** The program that listens at this address. */
  readonly listens?: Program;
  /** What it does, for spns.ini.example; a key without a text shares that of the key before it. */
  readonly text?: string;
  /** The value that spns.ini.example shows, if not the default; an array for a value of several lines. */
  readonly example?: string | readonly string[];
  /** Not shown in spns.ini.example, since only tests set it. */
  readonly hidden?: true;
}

/** One key of a section. */
export interface Setting<T = unknown> extends Options {
  readonly key: string;
  /** The default as written in the file; undefined if there is none. */
  readonly default: string | undefined;
  /** A problem is noted in the section, see {@link Section}. */
  read(section: Section, role: Role): T;
}

export interface Settings {
  readonly [name: string]: Setting;
}

/** All keys of a section, in the order in which they are read, reported, and shown in spns.ini.example. */
export interface Table<S extends Settings = Settings> {
  readonly settings: S;
  /** Keys of the original that no longer have a meaning, and why. */
  readonly obsolete?: { readonly [key: string]: string };
}

/** The values of a table's keys, by their names in the code. */
export type Values<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

/** Reads all keys of a section. Problems are noted there: call its `check()` before using the values. */
export function readTable<S extends Settings>(section: Section, table: Table<S>, role: Role = 'all'): Values<S> {
  const values = Object.entries(table.settings).map(([name, setting]) => [name, setting.read(section, role)]);
  for (const [key, why] of Object.entries(table.obsolete ?? {})) section.obsolete(key, why);
  return Object.freeze(Object.fromEntries(values)) as Values<S>;
}

/** Whether a role cannot do without the key. */
export function isRequired({ required, requiredWith }: Options, section: Section, role: Role): boolean {
  if (requiredWith !== undefined) return section.has(requiredWith);
  return required === true || (required !== undefined && (role === 'all' || required.includes(role)));
}

type Value<T, O> = O extends { default: unknown } | { required: true } ? T : T | undefined;
/** How a key is read, and everything else about it; whether it is required depends on the role. */
type Described<R> = Options & Omit<R, 'required'>;

export function string<const O extends Described<StringReading>>(key: string, options: O) {
  return setting<string, StringReading, O>(key, options, (section, reading) => section.string(key, reading));
}

export function integer<const O extends Described<NumberReading>>(key: string, options: O) {
  return setting<number, NumberReading, O>(key, options, (section, reading) => section.integer(key, reading));
}

export function number<const O extends Described<NumberReading>>(key: string, options: O) {
  return setting<number, NumberReading, O>(key, options, (section, reading) => section.number(key, reading));
}

export function boolean<const O extends Described<Reading<boolean>>>(key: string, options: O) {
  return setting<boolean, Reading<boolean>, O>(key, options, (section, reading) => section.boolean(key, reading));
}

/** Words; none if the key is not set. */
export function list(key: string, options: Options): Setting<readonly string[]> {
  return { ...options, key, default: undefined, read: (section) => Object.freeze(section.list(key)) };
}

/** The absolute path of a file, as {@link Section.path} finds it. */
export function path<const O extends Described<Reading<string>>>(key: string, options: O) {
  return setting<string, Reading<string>, O>(key, options, (section, reading) => section.path(key, reading));
}

/**
 * A value of any other type.
 *
 * @param parse throws an Error with a sentence for a wrong value
 * @param options `default` is written as in the file
 */
export function parsed<T, const O extends Described<Reading<string>>>(
  key: string,
  parse: (text: string, section: Section) => T,
  options: O,
) {
  return setting<T, Reading<string>, O>(key, options, (section, { default: text, ...reading }) =>
    section.parsed<T>(key, (value) => parse(value, section), {
      ...reading,
      ...(text !== undefined && { default: parse(text, section) }),
    }),
  );
}

function setting<T, R extends Reading<unknown>, O extends Described<R>>(
  key: string,
  options: O,
  reader: (section: Section, reading: R) => T | undefined,
): Setting<Value<T, O>> {
  return {
    ...(options as Options),
    key,
    default: written((options as Reading<unknown>).default),
    read: (section, role) =>
      reader(section, { ...options, required: isRequired(options, section, role) } as unknown as R) as Value<T, O>,
  };
}

function written(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
}
