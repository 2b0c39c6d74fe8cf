import { enableCompileCache } from 'node:module';

/** The environment variable that tells the test files the folder for what Node has compiled. */
export const COMPILED = 'SPNS_TEST_COMPILED';

// Imported in the process of each test file before the file. In code that comes from the cache V8 does not count all
// that is run: where coverage is counted, only child processes use it, hundreds that import the same modules.
const folder = process.env[COMPILED];
if (folder !== undefined && process.env.NODE_TEST_CONTEXT !== undefined) {
  if (process.env.NODE_V8_COVERAGE === undefined) enableCompileCache(folder);
  process.env.NODE_COMPILE_CACHE = folder;
}
