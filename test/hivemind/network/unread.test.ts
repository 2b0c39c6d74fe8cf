import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Unread } from '../../../src/hivemind/network/unread.ts';

const MB = 1024 ** 2;

/** A process with so many MB of V8's heap, of its buffers, and of everything else. */
function aProcess() {
  const state = { heap: 50, buffers: 400, native: 60, busy: 1 };
  const memory = () => ({
    rss: (state.heap + state.buffers + state.native) * MB,
    heapTotal: state.heap * MB,
    external: state.buffers * MB,
  });
  return { state, unread: new Unread({ memory, busy: () => state.busy }) };
}

describe('what lies unread', () => {
  test('is what comes on top while the event loop finds no rest', () => {
    const { state, unread } = aProcess();
    assert.equal(unread.estimate(), 0);
    state.native += 100;
    assert.equal(unread.estimate(), 100 * MB);
    state.native += 50;
    assert.equal(unread.estimate(), 150 * MB);
    state.native -= 120;
    assert.equal(unread.estimate(), 30 * MB);
  });

  test('is nothing once the event loop has rested, whatever malloc has kept', () => {
    const { state, unread } = aProcess();
    state.native += 100;
    state.busy = 0.9;
    assert.equal(unread.estimate(), 0);
    state.busy = 1;
    state.native += 10;
    assert.equal(unread.estimate(), 10 * MB);
  });

  test('is not what V8 and its buffers hold, nor what they held before', () => {
    const { state, unread } = aProcess();
    state.buffers += 300;
    state.heap += 100;
    assert.equal(unread.estimate(), 0);
    // Freed, and kept by malloc.
    state.buffers -= 300;
    state.native += 300;
    assert.equal(unread.estimate(), 0);
    state.native += 20;
    assert.equal(unread.estimate(), 20 * MB);
    unread.settle();
    assert.equal(unread.estimate(), 0);
  });
});
