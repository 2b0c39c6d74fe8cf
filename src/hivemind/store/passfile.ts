import fs from 'node:fs';
import type { Conninfo, Host } from './conninfo.ts';

const FIELD = String.raw`((?:\\.|[^:\\])*)`;
const LINE = new RegExp(`^${FIELD}:${FIELD}:${FIELD}:${FIELD}:${FIELD}`);

/**
 * Finds the password for a server in libpq's password file (PostgreSQL's documentation, "The Password File"): lines
 * `host:port:database:user:password`, where `*` matches anything and `\` escapes the next character.
 *
 * @returns undefined if there is none, or if anybody but its owner may use the file
 */
export function passwordFor(info: Conninfo, host: Host): string | undefined {
  let text: string;
  try {
    const { mode } = fs.statSync(info.passfile);
    if ((mode & 0o077) !== 0) return undefined;
    text = fs.readFileSync(info.passfile, 'utf8');
  } catch {
    // The file is optional.
    return undefined;
  }
  // In the file, localhost stands for a Unix socket.
  const name = host.host.startsWith('/') ? 'localhost' : host.host || (host.hostaddr ?? '');
  const wanted = [name, String(host.port), info.database, info.user];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    const [, ...fields] = LINE.exec(line) ?? [];
    if (wanted.every((value, n) => fields[n] === '*' || unescaped(fields[n] ?? '') === value))
      return unescaped(fields[4] ?? '');
  }
  return undefined;
}

function unescaped(field: string): string {
  return field.replace(/\\(.)/g, '$1');
}
