import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { createLog, type Logger } from '../../src/daemon/log.ts';
import { type BackendContext, type Delivery, Refusal } from '../../src/notifiers/runtime/backend.ts';
import { Section } from '../../src/settings/section.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** A folder of its own, removed after the test. */
export async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'spns-n-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A log that keeps its lines, as `level message`. */
export function keepLog(): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const log = createLog({ level: 'debug', levels: new Map(), format: 'json' }, 'test', {
    output: { write: (line: string) => void lines.push(line), flush: async () => {} } as never,
  });
  return { log, lines };
}

/** A section of spns.ini with these keys. */
export function sectionOf(name: string, keys: Record<string, string>): Section {
  const entries = new Map(
    Object.entries(keys).map(([key, value], index) => [key, { value, line: index + 1 }] as const),
  );
  return new Section(name, entries as never, new Map());
}

/** What a backend is made with; time is real unless a test brings its own. */
export function contextOf(
  service: string,
  keys: Record<string, string>,
  more: Partial<BackendContext> = {},
): BackendContext {
  return {
    service,
    section: sectionOf(`notify-${service}`, keys),
    log: keepLog().log,
    clock: systemClock,
    wallClock: () => (more.clock ?? systemClock).now(),
    random: randomBytes,
    Refusal,
    ...more,
  };
}

export { FakeClock };

/** A device token as Apple makes them. */
export function apnsToken(seed: number): string {
  return seed.toString(16).padStart(64, '0');
}

/** A push as the runtime hands it to a backend, good for an hour. */
export function delivery(id: string, more: Partial<Delivery> = {}): Delivery {
  return {
    id,
    data: null,
    payload: Buffer.from(`payload for ${id}`),
    expiry: Date.now() + 3_600_000,
    urgent: true,
    ...more,
  };
}
