/** A cell; numbers are written with separators and aligned to the right. */
export type Cell = string | number;

/** Rows as aligned columns under their heads, for a terminal. */
export function table(heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const written = rows.map((row) => row.map(format));
  const columns = heads.map((head, column) => ({
    width: Math.max(head.length, ...written.map((row) => row[column]?.length ?? 0)),
    // By its values alone: heads are texts, and so are dashes for missing values.
    isRight: rows.some((row) => typeof row[column] === 'number'),
  }));
  const line = (cells: readonly string[]) =>
    columns
      .map(({ width, isRight }, column) => (isRight ? cells[column]?.padStart(width) : cells[column]?.padEnd(width)))
      .join('  ')
      .trimEnd();
  return [line(heads), ...written.map(line)].join('\n');
}

/** Named lines, with the names in their own column. */
export function list(lines: readonly (readonly [name: string, text: string])[]): string {
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, text]) => `${name.padEnd(width)}  ${text}`.trimEnd()).join('\n');
}

export function format(cell: Cell): string {
  return typeof cell === 'number' ? cell.toLocaleString('en') : printable(cell);
}

/** Without control characters: names and error texts come from outside, and must not control the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}

/** A number of seconds in the unit that a person would use. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** As {@link duration}, but with two significant digits below ten seconds. */
export function latency(seconds: number): string {
  return seconds < 10 ? `${Number(seconds.toPrecision(2))} s` : duration(seconds);
}
