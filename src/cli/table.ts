/** A cell; numbers are written with separators and stand to the right. */
export type Cell = string | number;

/** Rows as aligned columns under their heads, for a terminal. */
export function table(heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const written = rows.map((row) => row.map(write));
  const columns = heads.map((head, column) => ({
    width: Math.max(head.length, ...written.map((row) => row[column]?.length ?? 0)),
    // It is to the right if its values are numbers, heads and dashes aside.
    isRight: rows.some((row) => typeof row[column] === 'number'),
  }));
  const line = (cells: readonly string[]) =>
    columns
      .map(({ width, isRight }, column) => (isRight ? cells[column]?.padStart(width) : cells[column]?.padEnd(width)))
      .join('  ')
      .trimEnd();
  return [line(heads), ...written.map(line)].join('\n');
}

/** Named lines, the names in a column of their own. */
export function list(lines: readonly (readonly [name: string, text: string])[]): string {
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, text]) => `${name.padEnd(width)}  ${text}`.trimEnd()).join('\n');
}

export function write(cell: Cell): string {
  return typeof cell === 'number' ? cell.toLocaleString('en') : printable(cell);
}

/** Names and error texts come from elsewhere: nothing of them may steer the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}

/** Seconds as a person says them. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** As {@link duration}, and what is below ten seconds to two figures. */
export function latency(seconds: number): string {
  return seconds < 10 ? `${Number(seconds.toPrecision(2))} s` : duration(seconds);
}
