/** One `key = value` of an INI file. */
export interface IniEntry {
  readonly value: string;
  /** Line of the file on which the key stands, counted from 1. */
  readonly line: number;
}

/** A section's entries by lower-case key. */
export type IniSection = ReadonlyMap<string, IniEntry>;

export interface Ini {
  /** Sections by their exact name; `DEFAULT` is not among them, its entries stand in every section that lacks them. */
  readonly sections: ReadonlyMap<string, IniSection>;
  readonly defaults: IniSection;
  /** What could not be read, each with its line. */
  readonly problems: readonly string[];
}

const HEADER = /^\[(.+)\]/;
const OPTION = /^(.*?)\s*[=:]\s*(.*)$/;
const REFERENCE = /%%|%\(([^)]*)\)s/g;
const MAX_REFERENCE_DEPTH = 10;

interface OpenEntry {
  lines: string[];
  line: number;
}

/**
 * Reads an INI file the way Python's configparser does, because operators bring the original's file along (spec/hivemind.md, section 5).
 * That is not what the usual INI readers of npm do: they cut values at `;` and `#`, split `[a.b]`, turn `true` into a boolean, know no `:`, no
 * continuation lines and no line numbers. Here:
 * - `#` and `;` start a comment only at the start of a line; within a value they are text;
 * - a key ends at the first `=` or `:`; keys are case-insensitive, section names are not;
 * - a line that is indented deeper than its key continues the value;
 * - `%%` is a percent sign, `%(key)s` the value of another key of the section; a lone `%`, which configparser refuses, is itself;
 * - a repeated section or key is a problem, not a silent choice between the two.
 */
export function parseIni(text: string): Ini {
  const problems: string[] = [];
  const sections = new Map<string, Map<string, OpenEntry>>();
  const defaults = new Map<string, OpenEntry>();
  let section: Map<string, OpenEntry> | undefined;
  let name = '';
  let open: OpenEntry | undefined;
  let indent = 0;

  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\n|\r/);
  for (const [index, raw] of lines.entries()) {
    const number = index + 1;
    const line = raw.trim();
    if (line === '') {
      open?.lines.push('');
      continue;
    }
    if (line.startsWith('#') || line.startsWith(';')) continue;
    const depth = raw.length - raw.trimStart().length;
    if (open && depth > indent) {
      open.lines.push(line);
      continue;
    }
    indent = depth;
    open = undefined;
    const header = HEADER.exec(line);
    if (header) {
      name = header[1]!;
      if (name === 'DEFAULT') {
        section = defaults;
        continue;
      }
      if (sections.has(name))
        problems.push(`line ${number}: section [${name}] stands here a second time: join the two`);
      section = sections.get(name) ?? new Map();
      sections.set(name, section);
      continue;
    }
    if (!section) {
      problems.push(`line ${number}: "${line}" stands before the first [section]: move it into one`);
      continue;
    }
    const option = OPTION.exec(line);
    if (!option?.[1]) {
      problems.push(`line ${number}: "${line}" is no "key = value": correct it, or put a # in front of it`);
      continue;
    }
    const key = option[1].toLowerCase();
    const earlier = section.get(key);
    if (earlier) {
      problems.push(`line ${number}: [${name}].${key} was already set on line ${earlier.line}: remove one of the two`);
    }
    open = { lines: [option[2]!], line: number };
    section.set(key, open);
  }

  const defaultEntries = close(defaults, new Map());
  const expanded = new Map<string, IniSection>();
  for (const [key, entries] of sections) expanded.set(key, close(entries, defaults));
  return { sections: expanded, defaults: defaultEntries, problems };
}

/** Joins continued lines and puts in what `%(key)s` refers to. */
function close(entries: Map<string, OpenEntry>, defaults: Map<string, OpenEntry>): IniSection {
  const text = (entry: OpenEntry) => entry.lines.join('\n').trimEnd();
  const expand = (value: string, depth: number): string =>
    value.replace(REFERENCE, (found: string, key: string | undefined) => {
      if (key === undefined) return '%';
      const entry = entries.get(key.toLowerCase()) ?? defaults.get(key.toLowerCase());
      return entry && depth < MAX_REFERENCE_DEPTH ? expand(text(entry), depth + 1) : found;
    });
  const closed = new Map<string, IniEntry>();
  for (const [key, entry] of entries) closed.set(key, { value: expand(text(entry), 0), line: entry.line });
  return closed;
}
