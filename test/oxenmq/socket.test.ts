import assert from 'node:assert/strict';
import { test } from 'node:test';
import { context, type Router } from 'zeromq';
import {
  excess,
  FAILED_LINGER,
  MAX_MESSAGE_SIZE,
  NOTIFY_DISCONNECT,
  openRouter,
  quietly,
  receiveAll,
  sizeOf,
  unreadSize,
} from '../../src/oxenmq/socket.ts';

test('a ROUTER has the options of the original, and no limit on what it receives', (t) => {
  const socket = openRouter(12_345, NOTIFY_DISCONNECT);
  t.after(() => socket.close());
  const { sendTimeout, linger, maxMessageSize, receiveHighWaterMark, sendHighWaterMark } = socket;
  const { handshakeInterval, heartbeatInterval, heartbeatTimeout, connectTimeout } = socket;
  const { reconnectInterval, reconnectMaxInterval } = socket;
  assert.deepEqual(
    { sendTimeout, linger, maxMessageSize, receiveHighWaterMark, sendHighWaterMark },
    {
      sendTimeout: 0,
      linger: 1_000,
      maxMessageSize: 12_345,
      receiveHighWaterMark: 0,
      sendHighWaterMark: 1_000,
    },
  );
  assert.deepEqual(
    { handshakeInterval, heartbeatInterval, heartbeatTimeout, connectTimeout },
    { handshakeInterval: 10_000, heartbeatInterval: 15_000, heartbeatTimeout: 30_000, connectTimeout: 10_000 },
  );
  assert.deepEqual(
    { reconnectInterval, reconnectMaxInterval },
    { reconnectInterval: 250, reconnectMaxInterval: 5_000 },
  );
  assert.ok(FAILED_LINGER[1] < reconnectInterval, 'or a failed connection would be made once more');
});

test('messages are copied out of the buffers in which libzmq receives them', () => {
  const ZERO_COPY_RECV = 10;
  assert.equal((context as unknown as { getInt32Option(option: number): number }).getInt32Option(ZERO_COPY_RECV), 0);
});

test('the size of a message is that of its parts, without the routing id', () => {
  const frames = ['route', 'name', '', 'part'].map((text) => Buffer.from(text));
  assert.equal(sizeOf(frames), 8);
  assert.equal(unreadSize(8, 4), 408);
});

test('more than a hundred parts or the most bytes are too much', () => {
  const frames = (parts: number) => Array.from({ length: parts + 1 }, () => Buffer.alloc(0));
  assert.equal(excess(frames(100), 10, 10), undefined);
  assert.equal(excess(frames(101), 10, 10), 'a message of 101 parts');
  assert.equal(excess(frames(100), 11, 10), 'a message of 11 bytes');
  assert.equal(MAX_MESSAGE_SIZE, 10 * 1024 * 1024);
});

/** A socket whose `receive()` does what is next in the list; then it is closed. */
function scripted(...steps: (string | Error)[]): Router {
  const socket = {
    closed: false,
    async receive() {
      const step = steps.shift();
      if (step === undefined) socket.closed = true;
      if (typeof step === 'string') return [Buffer.from(step)];
      throw step ?? new Error('Socket is closed');
    },
  };
  return socket as unknown as Router;
}

async function received(socket: Router): Promise<string[]> {
  const seen: string[] = [];
  await receiveAll(
    socket,
    ([frame]) => seen.push(String(frame)),
    (error) => seen.push(`failed: ${error.message}`),
  );
  return seen;
}

test('receiving ends without a word when the socket is closed, goes on when it was woken in vain, and else tells', async () => {
  const woken = Object.assign(new Error('nothing there'), { code: 'EAGAIN' });
  assert.deepEqual(await received(scripted('a', woken, 'b')), ['a', 'b']);
  const broken = Object.assign(new Error('broken'), { code: 'EFAULT' });
  assert.deepEqual(await received(scripted('a', broken, 'b')), ['a', 'failed: broken']);
});

test('warnings are suppressed while an option is changed, and no longer, even if that fails', () => {
  const { emitWarning } = process;
  quietly(() => assert.notEqual(process.emitWarning, emitWarning));
  assert.equal(process.emitWarning, emitWarning);
  assert.throws(
    () =>
      quietly(() => {
        throw new Error('refused');
      }),
    /refused/,
  );
  assert.equal(process.emitWarning, emitWarning);
});
