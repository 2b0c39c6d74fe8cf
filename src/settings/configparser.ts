/**
 * The name of a key or a section, and its line: `LINE:NAME`, as {@link toIni} writes it and {@link readTag} reads it.
 */
export interface Tag {
  /** Line of the file, counted from 1. */
  readonly line: number;
  readonly name: string;
}

/** A file in the dialect of the package `ini`. */
export interface Rewritten {
  readonly text: string;
  /** What could not be read, each with its line. Never the line itself: it may hold a password. */
  readonly problems: readonly string[];
}

/** What ends a line of the file. */
export const LINE_END: RegExp = /\r\n|\n|\r/;
const HEADER = /^\[(.+)\]/s;
const OPTION = /^(.*?)\s*[=:]\s*(.*)$/s;

/**
 * Rewrites a file that is in the dialect of Python's configparser, which operators bring along from the original
 * (docs/spec/hivemind.md, section 5), so that the package `ini` reads the same from it. Where the two differ:
 * - `#` and `;` start a comment only at the start of a line; within a value they are text, and so are quotes and `\`;
 * - a key ends at the first `=` or `:`; keys are case-insensitive, section names are not;
 * - a line that is indented deeper than its key continues the value;
 * - dots, `[]` and `__proto__` have no special meaning in names;
 * - a repeated section or key is a problem, not a silent choice between the two.
 *
 * So each name is written quoted, with its line in front: no two are the same, and errors can tell the line.
 */
export function toIni(text: string): Rewritten {
  const problems: string[] = [];
  const out: string[] = [];
  /** Lines of the keys seen, by section and lower-case key. */
  const seen = new Map<string, Map<string, number>>();
  let keys: Map<string, number> | undefined;
  let section = '';
  let open: { readonly tag: string; readonly lines: string[] } | undefined;
  let indent = 0;
  const close = () => {
    if (open) out.push(`${open.tag}=${quote(open.lines.join('\n').trimEnd())}`);
    open = undefined;
  };

  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split(LINE_END)
    .entries()) {
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
    close();
    const header = HEADER.exec(line)?.[1];
    if (header !== undefined) {
      section = header;
      if (seen.has(section) && section !== 'DEFAULT')
        problems.push(`line ${number}: section [${section}] appears a second time: merge the two`);
      keys = seen.get(section) ?? new Map();
      seen.set(section, keys);
      // `ini` splits section names into a tree at dots, even in quotes, unless they are escaped.
      out.push(`[${quote(`${number}:${section.replaceAll('.', '\\.')}`)}]`);
      continue;
    }
    if (!keys) {
      problems.push(`line ${number}: comes before the first [section]: move it into one`);
      continue;
    }
    const option = OPTION.exec(line);
    if (!option?.[1]) {
      problems.push(`line ${number}: no "key = value": correct it, or put a # in front of it`);
      continue;
    }
    const key = option[1].toLowerCase();
    const earlier = keys.get(key);
    if (earlier !== undefined)
      problems.push(`line ${number}: [${section}].${key} was already set on line ${earlier}: remove one of the two`);
    else keys.set(key, number);
    open = { tag: quote(`${number}:${key}`), lines: [option[2] ?? ''] };
  }
  close();
  return { text: out.join('\n'), problems };
}

/** @param text a name that {@link toIni} wrote, as `ini` returns it */
export function readTag(text: string): Tag {
  const colon = text.indexOf(':');
  return { line: Number(text.slice(0, colon)), name: text.slice(colon + 1) };
}

/**
 * A string in quotes as `ini` reads them: JSON. `=`, `]` and non-ASCII characters such as Unicode's line separators are
 * escaped, too, since its patterns for a line stop at them.
 */
function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[=\]\u0080-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
