import { isUtf8 } from 'node:buffer';
import { parse } from 'ini';
import { LINE_END, readTag, toIni } from './configparser.ts';

/** One `key = value` of an INI file. */
export interface IniEntry {
  readonly value: string;
  /** The line of the key, counted from 1. */
  readonly line: number;
}

/** A section's entries by lower-case key. */
export type IniSection = ReadonlyMap<string, IniEntry>;

export interface Ini {
  /** Sections by their exact name, without `DEFAULT`. */
  readonly sections: ReadonlyMap<string, IniSection>;
  /** The entries of `DEFAULT`, which apply to every section that lacks them. */
  readonly defaults: IniSection;
  /** What could not be read, each with its line, and nothing of the content but keys. */
  readonly problems: readonly string[];
}

type Entries = Map<string, IniEntry>;

const REFERENCE = /%%|%\(([^)]*)\)s/g;
const MAX_REFERENCE_DEPTH = 10;
/** How many characters all values of a file may have together once their references are filled in. */
const MAX_EXPANDED = 1024 * 1024;

/**
 * Reads an INI file as Python's configparser does, by the package `ini` after {@link toIni}. `%%` is a percent sign,
 * `%(key)s` the value of another key of the section; a lone `%`, which configparser refuses, stands for itself. Never
 * throws: whatever is wrong is among the problems.
 *
 * @param file its bytes, which must be UTF-8, or its text
 */
export function parseIni(file: string | Uint8Array): Ini {
  const { text, problem } = typeof file === 'string' ? { text: file } : decodeText(file);
  const rewritten = toIni(text);
  const problems = [...(problem === undefined ? [] : [problem]), ...rewritten.problems];

  const sections = new Map<string, Entries>();
  // `ini` moves sections with dots in their names to the end, so they are put back into the order of their lines.
  const found = Object.entries<Record<string, unknown>>(parse(rewritten.text, { bracketedArray: false }))
    .map(([tag, values]) => ({ ...readTag(tag), values }))
    .sort((a, b) => a.line - b.line);
  for (const { name, values } of found) {
    const entries = sections.get(name) ?? new Map();
    sections.set(name, entries);
    for (const [tag, value] of Object.entries(values)) {
      const { name: key, line } = readTag(tag);
      // `ini` turns true, false and null into values of those types: here everything is text.
      entries.set(key, { value: String(value), line });
    }
  }
  const defaults = sections.get('DEFAULT') ?? new Map();
  sections.delete('DEFAULT');

  const budget = { left: MAX_EXPANDED };
  const fill = (name: string, entries: Entries): IniSection => {
    const filled: Entries = new Map();
    for (const [key, { value, line }] of entries) {
      const expanded = expand(value, entries, defaults, budget);
      if (expanded === undefined)
        problems.push(`line ${line}: [${name}].${key} becomes too long by its %(…)s: write it out`);
      filled.set(key, { value: expanded ?? '', line });
    }
    return filled;
  };
  const filledDefaults = fill('DEFAULT', defaults);
  return {
    sections: new Map([...sections].map(([name, entries]) => [name, fill(name, entries)])),
    defaults: filledDefaults,
    problems,
  };
}

/** Fills in the references in a value; undefined if that takes more characters than the budget has left. */
function expand(value: string, entries: Entries, defaults: Entries, budget: { left: number }): string | undefined {
  let text = '';
  const append = (part: string) => {
    budget.left -= part.length;
    if (budget.left >= 0) text += part;
  };
  const walk = (from: string, depth: number) => {
    let at = 0;
    for (const match of from.matchAll(REFERENCE)) {
      if (budget.left < 0) return;
      append(from.slice(at, match.index));
      at = match.index + match[0].length;
      const key = match[1]?.toLowerCase();
      const entry = key === undefined ? undefined : (entries.get(key) ?? defaults.get(key));
      if (key === undefined) append('%');
      else if (entry && depth < MAX_REFERENCE_DEPTH) walk(entry.value, depth + 1);
      else append(match[0]);
    }
    append(from.slice(at));
  };
  walk(value, 0);
  return budget.left < 0 ? undefined : text;
}

/** The text of a file, and what is wrong with its encoding. */
function decodeText(bytes: Uint8Array): { text: string; problem?: string } {
  const utf16 = ['utf-16le', 'utf-16be'].find((_, n) => bytes[n] === 0xff && bytes[1 - n] === 0xfe);
  if (utf16 !== undefined)
    return { text: new TextDecoder(utf16).decode(bytes), problem: 'the file is in UTF-16: save it as UTF-8' };
  if (bytes.includes(0))
    return { text: '', problem: 'the file is not UTF-8 text, it contains zero bytes: save it as UTF-8' };
  const text = new TextDecoder('utf-8').decode(bytes);
  if (isUtf8(bytes)) return { text };
  const lines = Buffer.from(bytes).toString('latin1').split(LINE_END);
  const bad = lines.findIndex((line) => !isUtf8(Buffer.from(line, 'latin1')));
  return { text, problem: `line ${bad + 1} is not in UTF-8 (in Latin-1?): save the file as UTF-8` };
}
