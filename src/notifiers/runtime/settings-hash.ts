import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Config } from '../../settings/config.ts';
import { NOTIFIER } from '../../settings/notifier.ts';

/** The largest file that can be a credential, in bytes. */
const LARGEST = 1_048_576;

/**
 * A hash by which to tell whether a notifier's settings have changed: over all keys of its section and the contents of
 * the files that it names, since a new certificate usually replaces the file of the old one.
 */
export function settingsHash(config: Config, service: string): string {
  const name = `notify-${service}`;
  const section = config.section(name);
  const hash = createHash('sha256');
  const keys = new Set([...config.ini.defaults.keys(), ...(config.ini.sections.get(name)?.keys() ?? [])]);
  for (const key of [...keys].sort()) {
    // Only read at the start.
    if (key === NOTIFIER.settings.metricsListen.key) continue;
    const path = section.path(key);
    // Code is not loaded again.
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
