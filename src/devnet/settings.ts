import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';

/** The text of a spns.ini. A `%` would begin a reference, so it is doubled. */
export function formatIni(sections: Readonly<Record<string, Readonly<Record<string, string | number>>>>): string {
  return Object.entries(sections)
    .map(([name, entries]) => {
      const lines = Object.entries(entries).map(([key, value]) => `${key} = ${String(value).replaceAll('%', '%%')}`);
      return `[${name}]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

/** Reads a secret key, 32 bytes, which `file` has in hex; makes one if there is none, for later runs as well. */
export async function keyFile(file: string): Promise<Buffer> {
  const known = await fs.readFile(file, 'utf8').catch(() => undefined);
  if (known !== undefined && /^[0-9a-f]{64}\s*$/.test(known)) return Buffer.from(known.trim(), 'hex');
  const key = randomBytes(32);
  await fs.mkdir(path.dirname(file), { recursive: true });
  await fs.writeFile(file, `${key.toString('hex')}\n`, { mode: 0o600 });
  return key;
}
