import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { createLog, type Logger } from '../../src/daemon/log.ts';
import type { WebAnswer } from '../../src/devnet/providers/http.ts';
import type { Script } from '../../src/devnet/providers/script.ts';
import {
  type Backend,
  type BackendContext,
  type Delivery,
  type Outcome,
  Refusal,
} from '../../src/notifiers/runtime/backend.ts';
import type { NotifierOptions } from '../../src/notifiers/runtime/notifier.ts';
import type { Address } from '../../src/oxenmq/address.ts';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
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

/** What a notifier with that backend is made with; it has keys of its own, and logs nowhere. */
export function notifierOptions(
  service: string,
  backend: Backend,
  hiveminds: readonly { readonly address: Address }[],
): NotifierOptions {
  return {
    service,
    backend,
    addresses: hiveminds.map(({ address }) => address),
    keys: randomKeyPair(),
    clusterKeys: randomKeyPair(),
    pushLifetime: 3_600_000,
    clock: systemClock,
    random: randomBytes,
    breaker: { share: 0.5, minimum: 10 },
    log: keepLog().log,
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

/** An outcome in a few words: its kind, and its reason if it has one. */
export function brief(outcome: Outcome): string {
  return 'reason' in outcome ? `${outcome.kind}: ${outcome.reason}` : outcome.kind;
}

/**
 * A provider's answer, the outcome in words, the least wait in milliseconds for a retry, and whom that concerns; the
 * provider unless given.
 */
export type AnswerRow = readonly [answer: WebAnswer, expected: string, after?: number, whom?: string];

/** Has a fake provider give each answer once, and checks what becomes of the push and of the one after it. */
export async function checkAnswers(
  rows: readonly AnswerRow[],
  fake: { readonly script: Script<WebAnswer> },
  send: () => Promise<Outcome>,
): Promise<void> {
  for (const [answer, expected, after, whom = 'provider'] of rows) {
    fake.script.next(answer);
    const before = Date.now();
    const outcome = await send();
    assert.equal(brief(outcome), expected, JSON.stringify(answer));
    if (outcome.kind === 'gone') assert.ok(outcome.time >= before && outcome.time <= Date.now());
    if (outcome.kind === 'retry') {
      assert.equal(outcome.after, after, expected);
      assert.equal(outcome.whom, whom, expected);
    }
    assert.deepEqual(await send(), { kind: 'accepted' }, `after ${JSON.stringify(answer)}`);
  }
}
