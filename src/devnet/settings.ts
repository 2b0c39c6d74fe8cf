import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';

/** Writes a spns.ini. A `%` would be read as the beginning of a reference, so it is doubled. */
export function formatIni(sections: Readonly<Record<string, Readonly<Record<string, string | number>>>>): string {
  return Object.entries(sections)
    .map(([name, entries]) => {
      const lines = Object.entries(entries).map(([key, value]) => `${key} = ${String(value).replaceAll('%', '%%')}`);
      return `[${name}]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

/** The secret key in `file` as hex, 32 bytes; made at the first run, and kept, as the hivemind's identity is. */
export async function keyFile(file: string): Promise<Buffer> {
  const known = await fs.readFile(file, 'utf8').catch(() => undefined);
  if (known !== undefined && /^[0-9a-f]{64}\s*$/.test(known)) return Buffer.from(known.trim(), 'hex');
  const key = randomBytes(32);
  await fs.mkdir(path.dirname(file), { recursive: true });
  await fs.writeFile(file, `${key.toString('hex')}\n`, { mode: 0o600 });
  return key;
}
