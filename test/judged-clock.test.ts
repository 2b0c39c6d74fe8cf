import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JudgedClock } from '../src/judged-clock.ts';
import { FakeClock } from './support/fake-clock.ts';
import { logTo, silentLog } from './support/log.ts';

const DAY = 86_400_000;
const START = 1_800_000_000_000;

test("without a database a step of the machine's clock is believed after an hour, and logged when it begins and when it ends", async () => {
  const machine = new FakeClock(START);
  const log: string[] = [];
  const clock = new JudgedClock({ clock: machine, log: logTo((text, level) => log.push(`${level}: ${text}`)) });
  machine.jump(15 * DAY);
  assert.equal(clock.now(), START);
  await machine.advance(3_590_000);
  assert.equal(clock.now(), START + 3_590_000);
  assert.match(clock.doubt ?? '', /this machine's clock says/);
  assert.deepEqual(clock.possible(), [START + 3_590_000, START + 3_590_000 + 15 * DAY]);
  assert.equal(clock.earliest(), START + 3_590_000);
  await machine.advance(30_000);
  assert.equal(clock.now(), machine.now());
  assert.equal(clock.doubt, undefined);
  assert.equal(log.length, 2);
  assert.match(log[0]!, /^error: the time is in doubt/);
  assert.match(log[1]!, /^info: the time is no longer in doubt: a step of 1296000 s was accepted$/);
  clock.stop();
  assert.equal(machine.pending, 0);
});

test('a database that answers slowly, or with an error, is asked again, but never twice at a time', async () => {
  const machine = new FakeClock(START);
  const answers: ((time: number | Error) => void)[] = [];
  const database = () =>
    new Promise<number>((resolve, reject) =>
      answers.push((time) => (time instanceof Error ? reject(time) : resolve(time))),
    );
  const starting = JudgedClock.start({ clock: machine, database, log: silentLog });
  answers[0]!(START);
  const clock = await starting;
  await machine.advance(60_000);
  assert.equal(answers.length, 2);
  answers[1]!(new Error('gone'));
  await machine.advance(0);
  await machine.advance(10_000);
  assert.equal(answers.length, 3);
  // It read its clock in the middle of those 20 s.
  await machine.advance(20_000);
  answers[2]!(machine.now() - 10_000);
  await machine.advance(0);
  assert.equal(clock.doubt, undefined);
  assert.equal(clock.now(), machine.now());
  clock.stop();
});
