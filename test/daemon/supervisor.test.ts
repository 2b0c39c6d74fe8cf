import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Run, type Supervised, type Supervisor, supervise } from '../../src/daemon/supervisor.ts';
import { FakeClock } from '../support/fake-clock.ts';

interface FakeRun {
  name: string;
  signals: string[];
  start(): void;
  end(how?: string): void;
}

const PROGRAMS: readonly Supervised[] = [{ name: 'hivemind', last: true }, { name: 'web' }, { name: 'notify-apns' }];

function stage(onDeath?: (name: string, how: string) => void) {
  const clock = new FakeClock();
  const runs: FakeRun[] = [];
  const said: string[] = [];
  const told: string[] = [];
  const start = ({ name }: Supervised): Run => {
    const signals: string[] = [];
    let end = (_how?: string) => {};
    let begin = () => {};
    const ended = new Promise<string | undefined>((resolve) => (end = resolve));
    const ready = new Promise<void>((resolve) => (begin = resolve));
    runs.push({ name, signals, start: () => begin(), end: (how) => end(how) });
    return { kill: (signal) => signals.push(signal), ready, ended };
  };
  const supervisor: Supervisor = supervise(PROGRAMS, {
    ...(onDeath && { onDeath }),
    clock,
    start,
    log: (level, text) => said.push(`${level} ${text}`),
    systemd: {
      ready: () => told.push('ready'),
      status: (text) => told.push(text),
      stopping: () => told.push('stopping'),
    },
  });
  const last = (name: string) => runs.findLast((run) => run.name === name)!;
  return { clock, runs, said, told, supervisor, last };
}

test('what dies is restarted, after a wait that grows while it keeps dying', async () => {
  const { clock, runs, said, last } = stage();
  assert.deepEqual(
    runs.map(({ name }) => name),
    ['hivemind', 'web', 'notify-apns'],
  );
  const waits: number[] = [];
  for (let times = 0; times < 9; times++) {
    last('web').end('exit code 1');
    await clock.advance(0);
    const before = runs.length;
    let waited = 0;
    while (runs.length === before && waited < 60_000) {
      await clock.advance(100);
      waited += 100;
    }
    waits.push(waited);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  assert.equal(said[1], 'error web ended by itself (exit code 1) and is restarted in 0.5 s');
  assert.equal(runs.filter(({ name }) => name !== 'web').length, 2);
});

test('a good run makes earlier failures forgotten; exit code 0 counts as a death too', async () => {
  const { clock, runs, last } = stage();
  last('web').end('exit code 1');
  await clock.advance(0);
  await clock.advance(500);
  last('web').end('exit code 1');
  await clock.advance(0);
  await clock.advance(1000);
  assert.equal(runs.length, 5);
  await clock.advance(60_000);
  last('web').end();
  await clock.advance(0);
  await clock.advance(499);
  assert.equal(runs.length, 5);
  await clock.advance(1);
  assert.equal(runs.length, 6);
});

test('with a callback for deaths nothing is restarted, and the others stop when told to', async () => {
  const deaths: string[] = [];
  const { clock, runs, supervisor, last } = stage((name, how) => deaths.push(`${name} ${how}`));
  last('web').end('by SIGKILL');
  last('notify-apns').end();
  await clock.advance(60_000);
  assert.deepEqual(deaths, ['web by SIGKILL', 'notify-apns exit code 0']);
  assert.equal(runs.length, 3);
  supervisor.stop();
  last('hivemind').end();
  assert.equal(await supervisor.done, true);
});

test('a kill on purpose is not a death, and the program comes back after the time asked for', async () => {
  const deaths: string[] = [];
  const { clock, runs, supervisor, last } = stage((name) => deaths.push(name));
  supervisor.kill('hivemind', 4000);
  assert.deepEqual(last('hivemind').signals, ['SIGKILL']);
  last('hivemind').end('by SIGKILL');
  await clock.advance(0);
  await clock.advance(3999);
  assert.equal(runs.length, 3);
  // Again while it is away: there is nothing to kill.
  supervisor.kill('hivemind', 9000);
  await clock.advance(1);
  assert.equal(runs.length, 4);
  assert.deepEqual(deaths, []);
  last('hivemind').end('exit code 1');
  await clock.advance(0);
  assert.deepEqual(deaths, ['hivemind'], 'the next death is one');
});

test('on stop, the hivemind ends last, so that the others can hand over to it', async () => {
  const { clock, supervisor, last } = stage();
  supervisor.stop();
  assert.deepEqual(last('web').signals, ['SIGTERM']);
  assert.deepEqual(last('notify-apns').signals, ['SIGTERM']);
  assert.deepEqual(last('hivemind').signals, []);
  last('web').end();
  await clock.advance(0);
  assert.deepEqual(last('hivemind').signals, []);
  last('notify-apns').end();
  await clock.advance(0);
  assert.deepEqual(last('hivemind').signals, ['SIGTERM']);
  last('hivemind').end();
  assert.equal(await supervisor.done, true);
  assert.equal(clock.pending, 0);
});

test('what waits for its restart is not started once everything is to stop', async () => {
  const { clock, runs, supervisor, last } = stage();
  last('hivemind').end('by SIGKILL');
  last('web').end('by SIGKILL');
  await clock.advance(0);
  supervisor.stop();
  await clock.advance(5_000);
  last('notify-apns').end();
  assert.equal(await supervisor.done, true);
  assert.equal(runs.length, 3);
  assert.equal(clock.pending, 0);
});

test('a program that does not stop in order is reported, and makes the whole stop count as not in order', async () => {
  const { supervisor, said, last } = stage();
  supervisor.stop();
  last('web').end('exit code 1');
  last('notify-apns').end();
  last('hivemind').end();
  assert.equal(await supervisor.done, false);
  assert.ok(said.includes('warn web did not stop in order: exit code 1'));
});

test('one that SIGTERM ends before it has started loses nothing: it stopped in order', async () => {
  const { clock, supervisor, said, last } = stage();
  for (const name of ['hivemind', 'notify-apns']) last(name).start();
  await clock.advance(0);
  supervisor.stop();
  last('web').end('by SIGTERM');
  last('notify-apns').end();
  await clock.advance(0);
  last('hivemind').end('by SIGTERM');
  assert.equal(await supervisor.done, false, 'the hivemind had started');
  assert.deepEqual(
    said.filter((text) => text.startsWith('warn')),
    ['warn hivemind did not stop in order: by SIGTERM'],
  );
});

test('a second stop signals all programs at once', async () => {
  const { supervisor, last } = stage();
  supervisor.stop();
  supervisor.stop();
  assert.deepEqual(last('web').signals, ['SIGTERM', 'SIGTERM']);
  assert.deepEqual(last('hivemind').signals, ['SIGTERM']);
});

test('systemd is told what is not running, once when all are, and what is being stopped', async () => {
  const { clock, told, supervisor, last } = stage();
  assert.deepEqual(told, ['Not running: hivemind, web, notify-apns']);
  for (const name of ['hivemind', 'web']) last(name).start();
  await clock.advance(0);
  assert.equal(told.at(-1), 'Not running: notify-apns');
  last('notify-apns').start();
  await clock.advance(0);
  assert.deepEqual(told.slice(-2), ['Running: hivemind, web, notify-apns', 'ready']);
  last('web').end('by SIGKILL');
  await clock.advance(0);
  assert.equal(told.at(-1), 'Not running: web');
  await clock.advance(500);
  last('web').start();
  await clock.advance(0);
  assert.equal(told.at(-1), 'Running: hivemind, web, notify-apns');
  supervisor.stop();
  assert.deepEqual(told.slice(-2), ['stopping', 'Stopping: hivemind, web, notify-apns']);
  assert.equal(told.filter((text) => text === 'ready').length, 1);
});

test('a program that is stuck and does not end is killed', async () => {
  const { clock, supervisor, said, last } = stage();
  supervisor.stop();
  last('notify-apns').end();
  await clock.advance(14_999);
  assert.deepEqual(last('web').signals, ['SIGTERM']);
  await clock.advance(1);
  assert.deepEqual(last('web').signals, ['SIGTERM', 'SIGKILL']);
  last('web').end('by SIGKILL');
  await clock.advance(0);
  last('hivemind').end();
  assert.equal(await supervisor.done, false);
  assert.ok(said.includes('warn web did not stop in order: by SIGKILL'));
  assert.equal(clock.pending, 0);
});

test('SIGHUP is passed on to all that run', async () => {
  const { clock, supervisor, last } = stage();
  last('web').end('exit code 1');
  await clock.advance(0);
  supervisor.signal('SIGHUP');
  assert.deepEqual(last('hivemind').signals, ['SIGHUP']);
  assert.deepEqual(last('notify-apns').signals, ['SIGHUP']);
  assert.deepEqual(last('web').signals, []);
});
