import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { applyLogSettings, category, createLog, flushLog, type Logger, repeated } from '../../src/daemon/log.ts';
import { detectStyle, type Output, type Style, streamOutput } from '../../src/daemon/output.ts';
import type { LogLevel, LogSettings } from '../../src/settings/log.ts';
import { FakeClock } from '../support/fake-clock.ts';

function settings(
  level: LogLevel,
  levels: Record<string, LogLevel> = {},
  format: LogSettings['format'] = 'auto',
): LogSettings {
  return { level, levels: new Map(Object.entries(levels)), format };
}

function logTo(
  style: Style,
  chosen = settings('info'),
  name = 'hivemind',
  shared = false,
): { log: Logger; lines: string[]; clock: FakeClock } {
  const lines: string[] = [];
  const output: Output = { write: (line) => void lines.push(line), flush: async () => {}, dropped: 0 };
  const clock = new FakeClock(1_700_000_000_123);
  return { log: createLog(chosen, name, { clock, output, style, shared }), lines, clock };
}

test('under systemd a line is a priority, the category and the text', () => {
  const { log, lines } = logTo('journal', settings('trace'));
  const snode = category(log, 'snode');
  log.info('started');
  snode.trace('t');
  snode.debug('d');
  snode.info('i');
  snode.warn('w');
  snode.error('e');
  snode.fatal('f');
  assert.deepEqual(lines, [
    '<6>started',
    '<7>snode: t',
    '<7>snode: d',
    '<6>snode: i',
    '<4>snode: w',
    '<3>snode: e',
    '<2>snode: f',
  ]);
});

test('where daemons share one journal, a line says which of them wrote it', () => {
  const { log, lines } = logTo('journal', settings('info'), 'hivemind', true);
  log.info('started');
  category(log, 'hivemind').info('ready');
  category(log, 'snode').warn('w');
  assert.deepEqual(lines, ['<6>hivemind: started', '<6>hivemind: ready', '<4>hivemind/snode: w']);
});

test('elsewhere it has the time, the level by its original name, and the daemon', () => {
  const { log, lines } = logTo('plain');
  log.warn('one');
  category(log, 'pg').fatal('two');
  category(log, 'hivemind').info('three');
  assert.deepEqual(lines, [
    '2023-11-14T22:13:20.123Z warning hivemind: one',
    '2023-11-14T22:13:20.123Z critical hivemind/pg: two',
    '2023-11-14T22:13:20.123Z info hivemind: three',
  ]);
});

test('on a terminal it is coloured, unless plain lines are configured', () => {
  const coloured = logTo('terminal');
  coloured.log.error('red');
  assert.equal(coloured.lines[0], '\x1b[90m22:13:20.123\x1b[0m \x1b[31merror   \x1b[0m \x1b[36mhivemind\x1b[0m red');
  const plain = logTo('terminal', settings('info', {}, 'plain'));
  plain.log.error('not red');
  assert.equal(plain.lines[0], '2023-11-14T22:13:20.123Z error hivemind: not red');
});

test('fields follow as key=value; integers beyond 2^53 keep their digits', () => {
  const { log, lines } = logTo('journal');
  log.info(
    { node: '10.0.0.1:22', swarm: 2n ** 63n + 1n, n: 3, text: 'two words', empty: '', list: [1, 'a'], no: null },
    'seen',
  );
  assert.deepEqual(lines, [
    '<6>seen node=10.0.0.1:22 swarm=9223372036854775809 n=3 text="two words" empty="" list=[1,"a"] no=null',
  ]);
});

test('an error is its message and those of its causes, in one line, with the stack only at debug', () => {
  const error = new Error('cannot subscribe', {
    cause: new Error('cannot connect', {
      cause: new AggregateError([new Error('refused by ::1'), new Error('refused by 127.0.0.1')], ''),
    }),
  });
  const quiet = logTo('journal');
  quiet.log.error({ err: error, node: 1 }, 'a request failed');
  quiet.log.error(error);
  quiet.log.error({ err: 'only text' }, 'thrown');
  assert.deepEqual(quiet.lines, [
    '<3>a request failed: cannot subscribe: cannot connect: refused by ::1; refused by 127.0.0.1 node=1',
    '<3>cannot subscribe: cannot connect: refused by ::1; refused by 127.0.0.1',
    '<3>thrown: only text',
  ]);
  const loud = logTo('journal', settings('warning', { snode: 'debug' }));
  category(loud.log, 'snode').error({ err: error }, 'failed');
  loud.log.error({ err: error }, 'failed');
  assert.match(loud.lines[0]!, /^<3>snode: failed: .* stack="at .*log\.test\.ts.* \| at /);
  assert.doesNotMatch(loud.lines[1]!, /stack/);
  assert.equal(loud.lines.join('').includes('\n'), false);
});

test('no text can break a line or repaint the terminal', () => {
  const { log, lines } = logTo('journal');
  log.info({ evil: '\n<0>fake' }, 'line\nbreak \x1b[31m \u2028 \x85');
  assert.deepEqual(lines, ['<6>line\\nbreak \\x1b[31m \\x2028 \\x85 evil="\\n<0>fake"']);
});

test("a field may share its name with one of the event's own, and a part may bind fields of its own", () => {
  const { log, lines } = logTo('journal');
  log.child({ node: 5 }).warn({ level: 'x', time: 1, name: 'n', category: 'c', msg: 'm' }, 'text');
  assert.deepEqual(lines, ['<4>text node=5 level=x time=1 name=n category=c msg=m']);
});

test('json is one object a line', () => {
  const { log, lines } = logTo('journal', settings('info', {}, 'json'));
  category(log, 'pg').warn({ err: new Error('gone', { cause: new Error('reset') }), n: 1 }, 'lost');
  assert.deepEqual(JSON.parse(lines[0]!), {
    time: '2023-11-14T22:13:20.123Z',
    level: 'warning',
    name: 'hivemind',
    category: 'pg',
    msg: 'lost',
    n: 1,
    err: { type: 'Error', message: 'gone: reset' },
  });
});

test('a category can be louder or quieter than the rest, and none means silence', () => {
  const { log, lines } = logTo('journal', settings('warning', { snode: 'debug', pg: 'none' }));
  log.info('no');
  category(log, 'snode').debug('yes');
  category(log, 'pg').fatal('no');
  category(log, 'SNODE').debug('yes');
  category(log, 'other').info('no');
  assert.deepEqual(lines, ['<7>snode: yes', '<7>SNODE: yes']);
});

test('levels and format change without a restart, also for loggers handed out before', () => {
  const { log, lines } = logTo('journal');
  const pg = category(log, 'pg');
  pg.debug('before');
  assert.equal(applyLogSettings(pg, settings('info', { pg: 'debug' })), true);
  assert.equal(applyLogSettings(log, settings('info', { pg: 'debug' })), false);
  pg.debug('after');
  applyLogSettings(log, settings('none', {}, 'json'));
  pg.fatal('never');
  assert.deepEqual(lines, ['<7>pg: after']);
});

test('a repeated fault is logged once, then with a count, at ever longer intervals', async () => {
  const { log, lines, clock } = logTo('journal');
  const faults = repeated(log, clock, 1000);
  for (let i = 1; i <= 5; i++) faults.warn('cannot connect', { node: i });
  faults.warn('another');
  assert.deepEqual(lines, ['<4>cannot connect node=1', '<4>another']);
  await clock.advance(1000);
  assert.deepEqual(lines.splice(0).slice(2), ['<4>cannot connect node=5 again=4 seconds=1']);
  faults.warn('cannot connect', { node: 6 });
  await clock.advance(1999);
  assert.deepEqual(lines, []);
  await clock.advance(1);
  assert.deepEqual(lines.splice(0), ['<4>cannot connect node=6 again=1 seconds=2']);
  await clock.advance(4000);
  assert.equal(clock.pending, 0, 'a fault that has gone is forgotten');
  faults.warn('cannot connect', { node: 7 });
  assert.deepEqual(lines.splice(0), ['<4>cannot connect node=7']);
  faults.warn('cannot connect', { node: 8 });
  faults.stop();
  assert.deepEqual(lines, ['<4>cannot connect node=8 again=1 seconds=1']);
  assert.equal(clock.pending, 0);
});

test('a reader that does not read costs bounded memory, and is told what it missed', async () => {
  const taken: string[] = [];
  let release: (() => void) | undefined;
  const stream = new Writable({
    write(chunk, _, done) {
      if (chunk.length > 0) taken.push(String(chunk));
      if (taken.length === 1) release = done;
      else done();
    },
  });
  const output = streamOutput(stream);
  const line = 'x'.repeat(1000);
  for (let i = 0; i < 3000; i++) output.write(line);
  assert(stream.writableLength < 1_100_000);
  assert(output.dropped > 1900);
  const { dropped } = output;
  await output.flush(1);
  release!();
  await output.flush(10_000);
  output.write('again');
  await output.flush(10_000);
  assert.equal(taken.at(-1), 'again\n');
  assert.equal(taken.at(-2), `(${dropped} lines of the log are missing here: nobody read them in time)\n`);
  assert.equal(taken.length, 3000 - dropped + 2);
});

test('a reader that has gone does no harm', async () => {
  const stream = new Writable({
    write(_chunk, _, done) {
      done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    },
  });
  const output = streamOutput(stream);
  for (let i = 0; i < 10; i++) {
    output.write('nobody hears this');
    await new Promise((resolve) => setImmediate(resolve));
  }
  await output.flush(100);
});

test('the journal is recognised by its socket, other services by their invocation', () => {
  const { dev, ino } = fstatSync(1, { bigint: true });
  assert.equal(detectStyle({ JOURNAL_STREAM: `${dev}:${ino}` }, false), 'journal');
  assert.equal(detectStyle({ JOURNAL_STREAM: '1:2', INVOCATION_ID: 'x' }, false), 'plain');
  assert.equal(detectStyle({ JOURNAL_STREAM: '1:2' }, true), 'terminal');
  assert.equal(detectStyle({ INVOCATION_ID: 'x' }, false), 'journal');
  assert.equal(detectStyle({ INVOCATION_ID: 'x' }, true), 'terminal');
  assert.equal(detectStyle({}, false), 'plain');
});

test('flushing waits for the lines that are on their way', async () => {
  const { log } = logTo('plain');
  await flushLog(log, 10);
});
