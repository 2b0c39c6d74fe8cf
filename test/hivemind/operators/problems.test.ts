import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problemsOf } from '../../../src/hivemind/operators/problems.ts';
import type { CanaryReport, StatusSample } from '../../../src/hivemind/operators/report.ts';
import { report, sampleWith } from './samples.ts';

const NOW = 1_750_000_000;
const DAY = 86_400;
const LATER = 3_600;

function told(sample: Partial<StatusSample>, up = LATER): string[] {
  return problemsOf(sampleWith(sample), up, NOW).map(({ level, text }) => `${level} ${text}`);
}

const CANARY: CanaryReport = {
  isRunning: true,
  lastSeconds: 0.4,
  silentSeconds: 30,
  delivered: 100,
  lost: 0,
  problem: '',
};

test('a healthy suite has no problem; each problem is named, the worst first', () => {
  assert.deepEqual(told({ canary: CANARY }), []);
  const trouble: Partial<StatusSample> = {
    complaints: ['the database does not answer'],
    fresh: 1_000,
    uncovered: 1,
    services: [
      report('apns', { notifiers: 0, queued: 1_200 }),
      report('firebase', { oldest_seconds: 90, credential_expires: NOW + 3.5 * DAY }),
      report('huawei', { breaker_open: true, credential_expires: NOW - 1 }),
      report('retired', { notifiers: 0, subscriptions: 0, credential_expires: NOW + 30 * DAY }),
    ],
  };
  assert.deepEqual(told(trouble), [
    'bad the database does not answer',
    'bad 1 account is confirmed by no storage server of its swarm.',
    'bad apns: no notifier is connected; 1,200 pushes wait.',
    'bad huawei: the provider reports so many devices as gone that none is removed.',
    'bad huawei: the credential for the provider has expired.',
    'odd Only 1000 of 2000 storage servers are fresh.',
    'odd firebase: the oldest push has been waiting for 90 s.',
    'odd firebase: the credential for the provider expires in 3 days.',
  ]);
  for (const { text, advice } of problemsOf(sampleWith(trouble), LATER, NOW)) {
    assert.ok(advice.length > 5, `nobody is told what to do: ${text}`);
  }
});

test('what is part of a start is waited for, and no longer than a start takes', () => {
  const young: Partial<StatusSample> = {
    complaints: ['waiting for notifiers', 'oxend: not connected yet'],
    fresh: 0,
    uncovered: 80_000,
    services: [report('apns', { notifiers: 0 })],
  };
  for (const text of told(young, 5)) assert.match(text, /^starting /);
  // Notifiers and oxend are there sooner than a confirmation of every account.
  assert.deepEqual(
    told(young, 300).map((text) => text.split(' ')[0]),
    ['bad', 'bad', 'bad', 'starting', 'starting'],
  );
  for (const text of told(young, 601)) assert.match(text, /^bad /);
  // A provider that calls everybody gone is no part of a start.
  assert.match(told({ services: [report('apns', { breaker_open: true })] }, 5)[0] ?? '', /^bad /);
});

test('the tile to blame is named', () => {
  const tiles = (sample: Partial<StatusSample>) => problemsOf(sampleWith(sample), LATER, NOW).map(({ tile }) => tile);
  assert.deepEqual(tiles({ fresh: 0 }), ['fresh']);
  assert.deepEqual(tiles({ uncovered: 3 }), ['stalest']);
  assert.deepEqual(tiles({ services: [report('apns', { notifiers: 0 })] }), ['waiting']);
  assert.deepEqual(tiles({ canary: { ...CANARY, problem: 'x' } }), ['canary']);
  assert.deepEqual(tiles({ complaints: ['3 of 256 slots are covered by no hivemind'] }), ['hiveminds']);
});

test('slots that too few hiveminds cover, and one that cannot be reached, need attention; slots that none covers are critical', () => {
  const fewer = '6 of 256 slots are covered by fewer than 2 hiveminds';
  const none = '3 of 256 slots are covered by no hivemind';
  const alone = 'no other hivemind is alive: if this one stops, pushes are lost';
  assert.deepEqual(told({ complaints: [fewer, none] }), [`bad ${none}`, `odd ${fewer}`]);
  assert.deepEqual(told({ complaints: [alone] }), [`odd ${alone}`]);
  const unreached = 'the hivemind b cannot be reached: the connection broke (ipc:///run/spns/b.sock)';
  assert.deepEqual(told({ complaints: [unreached] }), [`odd ${unreached}`]);
  assert.deepEqual(told({ complaints: [alone, none] }, 5), [`starting ${alone}`, `starting ${none}`]);
});

test('storage servers that only other hiveminds need are not missed', () => {
  assert.deepEqual(told({ nodes: 2_000, unneeded: 1_400, fresh: 600 }), []);
  assert.deepEqual(told({ nodes: 2_000, unneeded: 2_000, fresh: 0 }), []);
});

test('the canary: what it complains of, its silence, and its absence', () => {
  assert.deepEqual(told({ canary: { ...CANARY, problem: 'the front-end cannot be reached' } }), [
    'odd The canary: the front-end cannot be reached.',
  ]);
  assert.deepEqual(told({ canary: { ...CANARY, silentSeconds: 301 } }), ['bad The canary: no push comes.']);
  assert.match(told({ canary: { ...CANARY, problem: 'no message has come back yet' } }, 5)[0] ?? '', /^starting /);
  assert.deepEqual(told({ canary: { ...CANARY, isRunning: false, silentSeconds: 1_200 } }), [
    'odd The canary is not running; it was last heard of 20 min ago.',
  ]);
  assert.deepEqual(told({ canary: { ...CANARY, isRunning: false } }), [], 'it is only being restarted');
  // Its own pushes wait for nobody else: no notifier of it is no trouble of phones.
  assert.deepEqual(told({ services: [report('canary', { notifiers: 0, queued: 3 })] }), []);
});
