import type { Postgres } from '../../src/devnet/postgres.ts';
import { startTestServer } from './postgres.ts';

let server: Postgres | undefined;

/** Called by `node --test --test-global-setup=…` before the first test file: one PostgreSQL for all of them. */
export async function globalSetup(): Promise<void> {
  server = await startTestServer();
}

export async function globalTeardown(): Promise<void> {
  await server?.remove();
}
