import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spareDescriptors } from '../../src/daemon/descriptors.ts';

test('clients get what the limit of file descriptors leaves, and the default where it cannot be read', () => {
  assert.equal(
    spareDescriptors(() => 'Max open files            65536                65536                files\n'),
    65_436,
  );
  assert.equal(
    spareDescriptors(() => 'Max open files            64                   64                   files\n'),
    8,
  );
  assert.equal(
    spareDescriptors(() => {
      throw new Error('ENOENT');
    }),
    924,
  );
});
