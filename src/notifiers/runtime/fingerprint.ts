import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Config } from '../../settings/config.ts';
import { NOTIFIER } from '../../settings/notifier.ts';

/** Larger files are no credentials, in bytes. */
const LARGEST = 1_048_576;

/**
 * Tells by one value whether a notifier's settings are still the same: all that its section says, and what the files
 * hold that it names, for a certificate is mostly replaced under its old name.
 */
export function fingerprint(config: Config, service: string): string {
  const name = `notify-${service}`;
  const section = config.section(name);
  const hash = createHash('sha256');
  const keys = new Set([...config.ini.defaults.keys(), ...(config.ini.sections.get(name)?.keys() ?? [])]);
  for (const key of [...keys].sort()) {
    // Taken over at the start alone.
    if (key === NOTIFIER.settings.metricsListen.key) continue;
    const path = section.path(key);
    // Code that has been loaded is not loaded again.
    const content = path === undefined || key === NOTIFIER.settings.module.key ? undefined : contentOf(path);
    hash.update(JSON.stringify([key, section.string(key) ?? null, content?.toString('base64') ?? null]));
  }
  return hash.digest('hex');
}

function contentOf(path: string): Buffer | undefined {
  try {
    const file = statSync(path);
    return file.isFile() && file.size <= LARGEST ? readFileSync(path) : undefined;
  } catch {
    return undefined;
  }
}
