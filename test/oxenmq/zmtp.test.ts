import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  checkGreeting,
  decodeCommand,
  encodeCommand,
  encodeFrame,
  greeting,
  Inbox,
  ROUTER_METADATA,
} from '../../src/oxenmq/zmtp.ts';

/** Memory that a chunk takes besides its bytes, as the inbox counts it. */
const CHUNK = 512;

function inbox(...chunks: (readonly number[] | Buffer)[]): Inbox {
  const made = new Inbox();
  for (const chunk of chunks) made.add(Buffer.from(chunk as number[]));
  return made;
}

/** Bytes of an inbox that holds so many in so many chunks. */
const held = (bytes: number, chunks: number) => bytes + CHUNK * chunks;

describe('greetings', () => {
  test('ours has the signature, version 3.1, the mechanism, and who is the server', () => {
    const signature = 'ff00000000000000007f0301';
    assert.equal(
      greeting('NULL', false).toString('hex'),
      `${signature}${Buffer.from('NULL').toString('hex').padEnd(40, '0')}${'0'.repeat(64)}`,
    );
    assert.equal(
      greeting('CURVE', true).toString('hex'),
      `${signature}${Buffer.from('CURVE').toString('hex').padEnd(40, '0')}01${'0'.repeat(62)}`,
    );
  });

  const changed = (at: number, value: number) => {
    const bytes = greeting('NULL', false);
    bytes[at] = value;
    return bytes;
  };

  test('any of ZMTP 3 and later is accepted, and nothing else', () => {
    for (const fine of [changed(10, 4), changed(11, 0), changed(9, 1), changed(5, 9), changed(32, 1)])
      checkGreeting(fine, 'NULL');
    for (const bad of [changed(0, 0xfe), changed(9, 0x7e), changed(10, 2)])
      assert.throws(() => checkGreeting(bad, 'NULL'), { name: 'ProtocolError', message: 'not a greeting of ZMTP 3' });
  });

  test('another mechanism is refused, also one that begins with the same letters', () => {
    const other = { name: 'ProtocolError', message: 'a security mechanism other than NULL' };
    assert.throws(() => checkGreeting(greeting('CURVE', false), 'NULL'), other);
    assert.throws(() => checkGreeting(changed(16, 0x58), 'NULL'), other);
    assert.throws(() => checkGreeting(changed(31, 0x58), 'NULL'), other);
    checkGreeting(greeting('CURVE', true), 'CURVE');
  });
});

describe('frames', () => {
  test('are written with one byte for their length up to 255, and eight from there', () => {
    for (const size of [0, 1, 255]) {
      const body = Buffer.alloc(size, 7);
      assert.deepEqual(encodeFrame(body), Buffer.concat([Buffer.from([0, size]), body]));
    }
    const body = Buffer.alloc(256, 7);
    assert.deepEqual(encodeFrame(body), Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 1, 0]), body]));
    assert.equal(encodeFrame(body, { more: true })[0], 3);
    assert.equal(encodeFrame(body, { command: true })[0], 6);
    assert.equal(encodeFrame(Buffer.alloc(0), { more: true })[0], 1);
    assert.equal(encodeFrame(Buffer.alloc(0), { command: true })[0], 4);
  });

  test('are read as they were written', () => {
    for (const size of [0, 1, 255, 256, 70_000]) {
      for (const flags of [
        { command: false, more: false },
        { command: false, more: true },
        { command: true, more: false },
      ]) {
        const body = Buffer.alloc(size, 7);
        const bytes = encodeFrame(body, flags);
        assert.deepEqual(inbox(bytes).frame(size), { ...flags, body });
        assert.equal(inbox(bytes.subarray(0, -1)).frame(size), undefined, 'one byte is missing');
      }
    }
  });

  test('may come in any pieces, and what follows them stays', () => {
    const [long, short] = [encodeFrame(Buffer.alloc(300, 1)), encodeFrame(Buffer.from('two'), { more: true })];
    const all = Buffer.concat([long, short]);
    for (const cut of [1, 2, 5, 9, 10, long.length - 1, long.length, long.length + 1, long.length + 3]) {
      const box = inbox(all.subarray(0, cut));
      assert.equal(box.frame(300) === undefined, cut < long.length);
      box.add(all.subarray(cut));
      if (cut < long.length) assert.deepEqual(box.frame(300)!.body, Buffer.alloc(300, 1));
      assert.deepEqual(box.frame(300), { command: false, more: true, body: Buffer.from('two') });
      assert.equal(box.frame(300), undefined);
      assert.equal(box.size, 0, `cut at ${cut}`);
    }
  });

  test('of no kind are refused with their first two bytes', () => {
    for (const flags of [5, 7, 8, 0x10, 0xff])
      assert.throws(() => inbox([flags, 0]).frame(300), { name: 'ProtocolError', message: 'not a frame' }, `${flags}`);
    assert.equal(inbox([0xff]).frame(300), undefined);
  });

  test('that are too long are refused as soon as they say so', () => {
    const tooLong = { name: 'ProtocolError', message: 'a frame that is too long' };
    assert.equal(inbox([0, 100]).frame(100), undefined);
    assert.throws(() => inbox([0, 101]).frame(100), tooLong);
    assert.equal(inbox([2, 0, 0, 0, 0, 0, 0, 1, 0]).frame(256), undefined);
    assert.throws(() => inbox([2, 0, 0, 0, 0, 0, 0, 1, 1]).frame(256), tooLong);
    assert.equal(inbox([2, 0, 0, 0, 0, 0, 0, 1]).frame(0), undefined, 'the length itself is not complete');
    for (const [at, byte] of [1, 2, 3, 4].map((at) => [at, 1] as const)) {
      const head = [2, 0, 0, 0, 0, 0, 0, 0, 0];
      head[at] = byte;
      assert.throws(() => inbox(head).frame(2 ** 31), tooLong, `byte ${at}`);
    }
  });
});

describe('the memory of unfinished pieces', () => {
  test('is their bytes, and half a kilobyte for each chunk that they came in', () => {
    const box = inbox([0, 5], [1], [2]);
    assert.equal(box.size, held(4, 3));
    assert.equal(box.frame(300), undefined);
    assert.equal(box.size, held(4, 3));
    assert.equal(inbox().size, 0);
  });

  test('falls when they are taken, whole or in part', () => {
    const box = inbox([1, 2, 3, 4, 5], [6, 7]);
    assert.deepEqual(box.take(2), Buffer.from([1, 2]));
    assert.equal(box.size, held(5, 2));
    assert.deepEqual(box.take(3), Buffer.from([3, 4, 5]));
    assert.equal(box.size, held(2, 1));
    assert.equal(box.take(3), undefined);
    box.add(Buffer.from([8, 9]));
    assert.deepEqual(box.take(3), Buffer.from([6, 7, 8]));
    assert.equal(box.size, held(1, 1));
    assert.deepEqual(box.take(1), Buffer.from([9]));
    assert.equal(box.size, 0);
  });
});

test('commands have a name of one byte length, and may have no data', () => {
  const bytes = encodeCommand('PING', Buffer.from([9]));
  assert.deepEqual(bytes, Buffer.from([4, ...Buffer.from('PING'), 9]));
  assert.deepEqual(decodeCommand(bytes), { name: 'PING', data: Buffer.from([9]) });
  assert.deepEqual(decodeCommand(encodeCommand('P', Buffer.alloc(0))), { name: 'P', data: Buffer.alloc(0) });
  for (const bad of [[], [0], [0, 1], [4, 1, 2, 3]])
    assert.throws(() => decodeCommand(Buffer.from(bad)), {
      name: 'ProtocolError',
      message: 'a command without a name',
    });
});

test('a ROUTER tells its type and an empty identity', () => {
  assert.deepEqual(ROUTER_METADATA, Buffer.from('\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0', 'latin1'));
});
