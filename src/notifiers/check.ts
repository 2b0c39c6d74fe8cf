import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { systemClock } from '../clock.ts';
import { createLog } from '../daemon/log.ts';
import { parseIni } from '../settings/ini.ts';
import { NOTIFIER } from '../settings/notifier.ts';
import { ConfigError, Section } from '../settings/section.ts';
import { Refusal } from './runtime/backend.ts';
import { loadBackend } from './runtime/load.ts';

/**
 * Checks a notifier's settings and credential without running it: `check.ts NAME`, for "spns check-config". Prints
 * `{ problems, warnings }` as JSON. Sends nothing and needs no key. SPNS_CONFIG must name the file.
 */
async function check(service: string): Promise<{ problems: readonly string[]; warnings: readonly string[] }> {
  const name = `notify-${service}`;
  const ini = parseIni(readFileSync(process.env.SPNS_CONFIG ?? 'spns.ini'));
  const section = new Section(
    name,
    ini.sections.get(name) ?? new Map(),
    ini.defaults,
    process.env.CREDENTIALS_DIRECTORY,
  );
  // Read here so that it does not count as unknown: it is the runtime's, and no backend reads it.
  section.string(NOTIFIER.settings.metricsListen.key);
  const log = createLog({ level: 'none', levels: new Map(), format: 'plain' }, name);
  try {
    const create = await loadBackend(service, section);
    const backend = await create({
      service,
      section,
      log,
      clock: systemClock,
      wallClock: systemClock.now,
      random: randomBytes,
      Refusal,
    });
    await backend.close?.();
    return { problems: [], warnings: [...section.warnings(), ...expiryWarning(name, backend.credentialExpiry)] };
  } catch (error) {
    // A backend's errors about its settings are sentences.
    const problems = error instanceof ConfigError ? error.problems : [`[${name}]: ${(error as Error).message}`];
    return { problems, warnings: section.warnings() };
  }
}

function expiryWarning(name: string, expiry: number | undefined): string[] {
  const days = expiry === undefined ? Number.POSITIVE_INFINITY : (expiry - systemClock.now()) / 86_400_000;
  return days < 30 ? [`[${name}]: the credential expires in ${Math.floor(days)} days: replace it before then`] : [];
}

process.stdout.write(`${JSON.stringify(await check(process.argv[2] ?? ''))}\n`);
// A provider's client may keep connections open.
process.exit(0);
