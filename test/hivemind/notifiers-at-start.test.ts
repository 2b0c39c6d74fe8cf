import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outbox } from '../../src/hivemind/notifications/outbox/outbox.ts';
import { type NotifierWait, waitForNotifiers } from '../../src/hivemind/notifiers-at-start.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { silentLog } from '../support/log.ts';

const SECOND = 1_000;

function start(given: Partial<NotifierWait>) {
  const clock = new FakeClock();
  const outbox = new Outbox({
    clock,
    limits: { maxBytes: 1e6, maxAge: 60 * SECOND },
    breaker: { share: 1, minimum: 100 },
    random: (size) => Buffer.alloc(size),
    log: silentLog,
  });
  const remote = { id: 'one', send: () => true, request: () => Promise.reject(new Error('nobody asks')) };
  const stopping = new AbortController();
  let waited: number | undefined;
  const done = waitForNotifiers({
    clock,
    outbox,
    expected: ['apns'],
    wait: 10,
    othersWork: () => false,
    stopping: stopping.signal,
    ...given,
  });
  void done.then(() => {
    waited = clock.monotonic() / SECOND;
  });
  return {
    clock,
    stop: () => stopping.abort(),
    register: (service: string) => outbox.register(service, remote, 10),
    /** Seconds; undefined while it waits. */
    waited: () => waited,
  };
}

test('a start waits for the expected notifiers, and no longer', async () => {
  const { clock, register, waited } = start({ expected: ['apns', 'firebase'] });
  register('apns');
  await clock.advance(3 * SECOND);
  assert.equal(waited(), undefined);
  register('firebase');
  await clock.advance(SECOND);
  assert.equal(waited(), 3.025);
});

test('a start waits no longer than it may, for all that time if nobody is expected, and not at all if it is to end', async () => {
  for (const expected of [['apns'], []]) {
    const { clock, waited } = start({ expected });
    await clock.advance(20 * SECOND);
    assert.equal(waited(), 10);
  }
  const { clock, stop, waited } = start({});
  stop();
  await clock.advance(SECOND);
  assert.equal(waited(), 0.025);
});

test('beside other hiveminds at work a start waits until all notifiers may have come, not just for the first', async () => {
  const { clock, register, waited } = start({ othersWork: () => true });
  register('apns');
  await clock.advance(20 * SECOND);
  assert.equal(waited(), 7);
  const short = start({ othersWork: () => true, wait: 2 });
  short.register('apns');
  await short.clock.advance(20 * SECOND);
  assert.equal(short.waited(), 2);
});

test('a start no longer waits for the notifiers of members that die', async () => {
  let others = true;
  const { clock, register, waited } = start({ othersWork: () => others });
  register('apns');
  await clock.advance(2 * SECOND);
  others = false;
  await clock.advance(SECOND);
  assert.equal(waited(), 2.025);
});
