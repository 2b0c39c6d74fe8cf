import type { Setting, Table } from './table.ts';

/** Longest line, in characters. */
const WIDTH = 118;

/** A section as spns.ini.example shows it. */
export interface ShownSection {
  readonly name: string;
  /** A comment in front of the section. */
  readonly text?: string;
  /** The tables whose keys it shows, in this order. */
  readonly tables: readonly Table[];
  /** Shows only these keys, without their texts, which another section has. */
  readonly only?: readonly string[];
  /** Values to show for keys that have no example in their table. */
  readonly values?: { readonly [key: string]: string };
  /** Whether the whole section is commented out, since an installation may do without it. */
  readonly optional?: boolean;
  /** Whether it marks keys that need a restart. Off for notifiers, where only metrics_listen does. */
  readonly marked?: boolean;
}

/**
 * The text of a section: each key with its default or example, commented out unless it must be set, below its text from
 * the table, which ends with a mark if the key needs a restart.
 *
 * @throws Error if keys that share a text differ in whether they need a restart: readers could not tell them apart
 */
export function renderSection(section: ShownSection): string {
  const { name, text, tables, only, values = {}, optional = false, marked = !optional } = section;
  const shown = tables
    .flatMap(({ settings }) => Object.values(settings))
    .filter(({ key, hidden }) => !hidden && (only?.includes(key) ?? true))
    .map(({ text: said, ...setting }): Setting => {
      const example = values[setting.key] ?? setting.example;
      return {
        ...setting,
        ...(said !== undefined && !only && { text: said }),
        ...(example !== undefined && { example }),
      };
    })
    .filter(({ example, default: value }) => example !== undefined || value !== undefined);
  const paragraphs: Setting[][] = [];
  for (const setting of shown) {
    const last = paragraphs.at(-1);
    if (last && setting.text === undefined) last.push(setting);
    else paragraphs.push([setting]);
  }
  const bodies = paragraphs.map((settings) =>
    [...comment(settings[0]?.text, marked ? restartMark(settings) : undefined), ...settings.map(line)].join('\n'),
  );
  const head = `${optional ? ';' : ''}[${name}]`;
  const body = optional ? bodies.join('\n').replace(/^(?=[^;])/gm, ';') : bodies.join('\n\n');
  return [...comment(text), head, ...(body === '' ? [] : [body])].join('\n');
}

/**
 * `text` as comment lines.
 *
 * @param mark a final sentence that is kept on one line, so that one can search for it
 */
export function comment(text: string | undefined, mark?: string): string[] {
  if (text === undefined) return [];
  const lines: string[] = [];
  let line = ';';
  for (const word of [...text.trim().split(/\s+/), ...(mark === undefined ? [] : [mark])]) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = ';';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}

function restartMark(settings: readonly Setting[]): string | undefined {
  const restart = settings.filter((setting) => setting.restart !== undefined).length;
  if (restart === 0) return undefined;
  if (restart < settings.length)
    throw new Error(`${settings[0]?.key}: only some of the keys that share its text need a restart`);
  return `${restart === 1 ? 'Needs' : restart === 2 ? 'Both need' : 'All need'} a restart.`;
}

function line({ key, required, default: value, example = value ?? '' }: Setting): string {
  const written = typeof example === 'string' ? ` ${example}` : example.map((word) => `\n    ${word}`).join('');
  const whole = `${key} =${written}`;
  return required === undefined ? whole.replace(/^/gm, ';') : whole;
}
