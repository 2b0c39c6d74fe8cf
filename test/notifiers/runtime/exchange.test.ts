import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2';
import { test } from 'node:test';
import { LONGEST_ANSWER } from '../../../src/notifiers/runtime/body.ts';
import { Exchange, outliveGoaway } from '../../../src/notifiers/runtime/exchange.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** A stream that does what the test says, and what is asked of it. */
class FakeStream extends EventEmitter {
  id: number | undefined = 1;
  rstCode = constants.NGHTTP2_NO_ERROR;
  readonly asked: unknown[][] = [];
  write(...what: unknown[]): boolean {
    this.asked.push(['write', ...what]);
    return false;
  }
  end(...what: unknown[]): void {
    this.asked.push(['end', ...what]);
  }
  close(...what: unknown[]): void {
    this.asked.push(['close', ...what]);
  }
  destroy(...what: unknown[]): void {
    this.asked.push(['destroy', ...what]);
  }
}

function setUp() {
  const clock = new FakeClock();
  const stream = new FakeStream();
  const exchange = new Exchange(stream as unknown as ClientHttp2Stream, clock, 1_000);
  const shown: unknown[][] = [];
  for (const event of ['response', 'data', 'end']) exchange.on(event, (what) => shown.push([event, what]));
  exchange.on('error', (error: NodeJS.ErrnoException) => shown.push(['error', error.code, error.message]));
  const answer = (...chunks: string[]) => {
    stream.emit('response', { ':status': 200, 'content-type': 'text/x', 'content-encoding': 'gzip', date: 'now' });
    for (const chunk of chunks) stream.emit('data', Buffer.from(chunk));
  };
  return { clock, stream, exchange, shown, answer };
}

test('an answer is shown when it is whole, without what would have it read in another way', () => {
  const { clock, stream, exchange, shown, answer } = setUp();
  assert.equal(exchange.status, undefined);
  answer('one ', 'two');
  assert.deepEqual([shown, exchange.status], [[], 200]);
  stream.emit('end');
  const whole = [
    ['response', { ':status': 200, date: 'now' }],
    ['data', Buffer.from('one two')],
    ['end', undefined],
  ];
  assert.deepEqual(shown, whole);
  stream.emit('close');
  stream.emit('error', new Error('late'));
  stream.emit('end');
  stream.emit('data', Buffer.from('late'));
  assert.deepEqual([shown, clock.pending], [whole, 0]);
});

test('a library that wants text gets text, and an empty body is none', () => {
  const { stream, exchange, shown, answer } = setUp();
  exchange.setEncoding();
  answer('ü');
  stream.emit('end');
  assert.deepEqual(shown[1], ['data', 'ü']);
  const empty = setUp();
  empty.answer();
  empty.stream.emit('end');
  assert.deepEqual(
    empty.shown.map(([event]) => event),
    ['response', 'end'],
  );
});

test('a body that is too long is cut, and the stream closed', () => {
  const { clock, stream, shown, answer } = setUp();
  answer('x'.repeat(LONGEST_ANSWER));
  assert.deepEqual(shown, [], 'it just fits');
  stream.emit('data', Buffer.from('x'));
  assert.equal((shown[1]![1] as Buffer).length, LONGEST_ANSWER);
  assert.deepEqual([shown.length, stream.asked, clock.pending], [3, [['close', constants.NGHTTP2_CANCEL]], 0]);
});

test('an answer that is not whole in time is an error, however much of it has come', () => {
  const { clock, stream, exchange, shown, answer } = setUp();
  // How long there is, is not the library's affair.
  exchange.setTimeout();
  answer('half');
  clock.run(999);
  assert.deepEqual(shown, []);
  clock.run(1);
  const late = [['error', 'ETIMEDOUT', 'timeout: no answer in time']];
  assert.deepEqual([shown, stream.asked], [late, [['close', constants.NGHTTP2_CANCEL]]]);
  stream.emit('end');
  assert.deepEqual([shown, exchange.status], [late, 200]);
});

test('a stream that ends without an answer, breaks, or could not be sent, is one error', () => {
  for (const [what, expected] of [
    [(stream: FakeStream) => stream.emit('end'), ['error', 'ECONNRESET', 'closed without an answer']],
    [(stream: FakeStream) => stream.emit('error', new Error('reset')), ['error', undefined, 'reset']],
    [(stream: FakeStream) => stream.emit('frameError', 0, 7), ['error', 'ECONNRESET', 'frame not sent (7)']],
  ] as const) {
    const { clock, stream, shown } = setUp();
    what(stream);
    stream.emit('close');
    assert.deepEqual([shown, clock.pending], [[expected], 0]);
  }
});

test('a request may be sent again if the server is known not to have looked at it', () => {
  const after = (change: (stream: FakeStream, answer: () => void) => void) => {
    const { stream, exchange, answer } = setUp();
    change(stream, answer);
    return exchange.unprocessed;
  };
  const refuse = (stream: FakeStream) => {
    stream.rstCode = constants.NGHTTP2_REFUSED_STREAM;
  };
  assert.equal(
    after(() => {}),
    false,
  );
  assert.equal(after(refuse), true);
  assert.equal(
    after((stream) => {
      stream.id = undefined;
    }),
    true,
  );
  assert.equal(
    after((stream) => stream.emit('frameError', 0, 7)),
    true,
  );
  assert.equal(
    after((stream, answer) => {
      answer();
      refuse(stream);
    }),
    false,
    'it has begun to answer',
  );
});

test('what a library writes, ends, closes and destroys is done to the stream', () => {
  const { stream, exchange } = setUp();
  const error = new Error('x');
  assert.equal(exchange.write('a'), false);
  exchange.end('b');
  exchange.close(8);
  exchange.destroy(error);
  assert.deepEqual(stream.asked, [
    ['write', 'a'],
    ['end', 'b'],
    ['close', 8],
    ['destroy', error],
  ]);
});

test('a connection that gets a GOAWAY with an error comes to its end by itself, once', () => {
  const asked: string[] = [];
  class FakeSession extends EventEmitter {
    close() {
      asked.push('close');
    }
    destroy() {
      asked.push('destroy');
    }
  }
  const session = new FakeSession();
  outliveGoaway(session as unknown as ClientHttp2Session);
  session.emit('goaway', constants.NGHTTP2_NO_ERROR);
  session.destroy();
  session.emit('goaway', constants.NGHTTP2_INTERNAL_ERROR);
  session.destroy();
  session.destroy();
  assert.deepEqual(asked, ['destroy', 'close', 'destroy']);
});
