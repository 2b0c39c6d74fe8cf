import fs from 'node:fs';
import type { Conninfo, Host } from './conninfo.ts';

/**
 * The password that a file of libpq's kind has for a server (PostgreSQL's documentation, "The Password File"): lines
 * `host:port:database:user:password`, where `*` stands for anything and `\` takes the next character as it is.
 *
 * @returns undefined if there is none, or if others than its owner may read the file
 */
export function passwordFor(info: Conninfo, host: Host): string | undefined {
  let text: string;
  try {
    const { mode } = fs.statSync(info.passfile);
    if ((mode & 0o077) !== 0) return undefined;
    text = fs.readFileSync(info.passfile, 'utf8');
  } catch {
    // There need not be one.
    return undefined;
  }
  // For a Unix socket it says localhost.
  const name = host.host.startsWith('/') ? 'localhost' : host.host || (host.hostaddr ?? '');
  const wanted = [name, String(host.port), info.database, info.user];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    const fields = [...line.matchAll(/((?:\\.|[^:\\])*)(?::|$)/g)].map(([, field]) => field);
    const [, , , , password] = fields;
    if (password === undefined) continue;
    if (wanted.every((value, n) => fields[n] === '*' || unescaped(fields[n] ?? '') === value))
      return unescaped(password);
  }
  return undefined;
}

function unescaped(field: string): string {
  return field.replace(/\\(.)/g, '$1');
}
