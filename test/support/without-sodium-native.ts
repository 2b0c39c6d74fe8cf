/** For `node --import`: the process cannot load sodium-native, as if it were not installed. */

import assert from 'node:assert/strict';
import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    if (specifier === 'sodium-native') throw new Error('not installed, for this test');
    return next(specifier, context);
  },
});

const { build } = await import('../../src/session/sodium.ts');
assert.equal(build, 'wasm');
