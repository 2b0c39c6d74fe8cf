import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Postgres } from '../../src/devnet/postgres.ts';
import { COMPILED } from './compile-cache.ts';
import { startTestServer } from './postgres.ts';

let server: Postgres | undefined;
let compiled: string | undefined;

/**
 * Called by `node --test --test-global-setup=…` before the first test file: one PostgreSQL for all of them, and one
 * folder for what Node has compiled. It is made anew for each run, because some tests run copies of the checkout, each
 * at a path of its own.
 */
export async function globalSetup(): Promise<void> {
  compiled = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-test-compiled-'));
  process.env[COMPILED] = compiled;
  server = await startTestServer();
}

export async function globalTeardown(): Promise<void> {
  await server?.remove();
  if (compiled !== undefined) await fs.rm(compiled, { recursive: true, force: true, maxRetries: 5 });
}
