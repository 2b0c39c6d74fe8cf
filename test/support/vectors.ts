import { readFileSync } from 'node:fs';

/**
 * A file of test/vectors, as its own note describes it. The shape is the caller's claim: a wrong one shows as a failing
 * test.
 */
export function vectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8')) as T;
}
