import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Message, readMessage, refusalFrames } from '../../src/oxenmq/message.ts';

function read(...frames: (string | Buffer)[]): Message {
  return readMessage(['route', ...frames].map((frame) => Buffer.from(frame)));
}

test('a name with a dot is a call, of a command or a request', () => {
  assert.deepEqual(read('a.b', 'x'), { kind: 'call', name: 'a.b' });
  assert.deepEqual(read('a.b.c'), { kind: 'call', name: 'a.b.c' });
  assert.deepEqual(read(Buffer.from([0xff, 0x2e])), { kind: 'call', name: '\xff.' });
  assert.equal(read(`a.${'b'.repeat(249)}`).kind, 'call');
  assert.deepEqual(read(`a.${'b'.repeat(250)}`), { kind: 'garbage', reason: 'name too long' });
});

test('the words of the protocol have no dot', () => {
  assert.equal(read('HI').kind, 'hi');
  assert.equal(read('HELLO').kind, 'hello');
  assert.equal(read('BYE').kind, 'bye');
  assert.equal(read('').kind, 'notice');
  assert.deepEqual(read('REPLY', 't'), { kind: 'reply', tag: Buffer.from('t'), parts: [] });
  assert.deepEqual(read('REPLY', 't', 'x', ''), {
    kind: 'reply',
    tag: Buffer.from('t'),
    parts: [Buffer.from('x'), Buffer.alloc(0)],
  });
});

test('a refusal names a request by its tag and anything else by its name', () => {
  for (const word of ['UNKNOWNCOMMAND', 'FORBIDDEN', 'NOT_A_SERVICE_NODE', 'FORBIDDEN_SN', 'NO_REPLY_TAG'] as const) {
    assert.deepEqual(read(word, 'REPLY', 't'), { kind: 'refusal', word, tag: Buffer.from('t') });
    assert.deepEqual(read(word, 'a.b'), { kind: 'refusal', word, name: 'a.b' });
    assert.equal(read(word).kind, 'garbage');
    assert.equal(read(word, 'a.b', 'more').kind, 'garbage');
    assert.equal(read(word, 'x'.repeat(251)).kind, 'refusal');
    assert.equal(read(word, 'x'.repeat(252)).kind, 'garbage');
  }
});

test('a refusal returns a name as the bytes that came', () => {
  assert.deepEqual(refusalFrames('UNKNOWNCOMMAND', '\xff.x', undefined), [
    'UNKNOWNCOMMAND',
    Buffer.from([0xff, 0x2e, 0x78]),
  ]);
  const tag = Buffer.from('t');
  assert.deepEqual(refusalFrames('FORBIDDEN', 'a.b', tag), ['FORBIDDEN', 'REPLY', tag]);
});

test('everything else is garbage', () => {
  for (const frames of [['nodot'], ['.a'], ['.'], ['hi'], ['REPLY'], ['', ''], ['', 'a.b']]) {
    assert.equal(read(...frames).kind, 'garbage', frames.join());
  }
});
