import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  AGREE,
  doubtOf,
  firstJudgement,
  type JudgedTime,
  judge,
  judgedNow,
  LASTING,
  PROGRAM_TIME,
  possibleTimes,
  withFloor,
} from '../src/judged-time.ts';
import { createFuzz } from './support/fuzz.ts';

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;
const START = PROGRAM_TIME + YEAR;
const EVERY = 10 * SECOND;

/** A machine: the true time, what its clock and the database's say beside it, and what is judged of them every 10 s. */
class Machine {
  monotonic = 1_000;
  truth = START;
  wallOff = 0;
  databaseOff: number | undefined;
  readonly needsDatabase: boolean;
  time: JudgedTime;

  constructor({
    wallOff = 0,
    databaseOff = undefined as number | undefined,
    needsDatabase = true,
    floor = PROGRAM_TIME,
  } = {}) {
    this.wallOff = wallOff;
    this.databaseOff = databaseOff;
    this.needsDatabase = needsDatabase;
    this.time = firstJudgement(this.#look(), floor);
  }

  /** How far the judged time is from the true one, in ms. */
  get error(): number {
    return judgedNow(this.time, this.monotonic) - this.truth;
  }

  get doubt(): string | undefined {
    return doubtOf(this.time, this.monotonic);
  }

  get possible(): number[] {
    return possibleTimes(this.time, this.monotonic).map((time) => time - this.truth);
  }

  run(ms: number): this {
    for (let left = ms; left > 0; left -= EVERY) {
      this.monotonic += Math.min(left, EVERY);
      this.truth += Math.min(left, EVERY);
      this.time = judge(this.time, this.#look(), this);
    }
    return this;
  }

  step(ms: number, ofDatabase: boolean): this {
    this.wallOff += ms;
    if (ofDatabase) this.databaseOff = (this.databaseOff ?? 0) + ms;
    this.time = judge(this.time, this.#look(), this);
    return this;
  }

  #look() {
    const database = this.databaseOff === undefined ? undefined : this.truth + this.databaseOff;
    return { monotonic: this.monotonic, wall: this.truth + this.wallOff, database };
  }
}

const steps = [15 * DAY, -15 * DAY, 3 * DAY, -3 * DAY, 10 * 60 * SECOND, -10 * 60 * SECOND, 30 * YEAR, -56 * YEAR];

describe('the judged time', () => {
  for (const step of steps) {
    const days = step / DAY;
    it(`does not follow a step of ${days.toFixed(2)} days that is taken back, whether the database steps along or not`, () => {
      for (const along of [true, false]) {
        for (const lasts of [EVERY, 40 * SECOND, 50 * 60 * SECOND]) {
          const machine = new Machine({ databaseOff: 0 }).run(HOUR);
          machine.step(step, along);
          assert.ok(machine.doubt, 'at once');
          machine.run(lasts);
          assert.equal(machine.error, 0);
          assert.ok(machine.doubt);
          assert.ok(machine.possible.includes(0) && machine.possible.includes(step));
          machine.step(-step, along).run(EVERY);
          assert.equal(machine.error, 0);
          assert.equal(machine.doubt, undefined);
          assert.deepEqual(machine.possible, [0]);
        }
      }
    });
  }

  it('adopts a step that lasts and that the database agrees with: the clock was wrong, or the machine suspended', () => {
    const machine = new Machine({ databaseOff: 0 }).run(HOUR);
    machine.step(3 * DAY, true).run(LASTING - EVERY);
    assert.equal(machine.error, 0);
    machine.run(2 * EVERY);
    assert.equal(machine.error, 3 * DAY);
    assert.equal(machine.doubt, undefined);
  });

  it('never adopts a step that the database does not agree with, or that nobody could ask it about', () => {
    const apart = new Machine({ databaseOff: 0 }).step(15 * DAY, false).run(20 * LASTING);
    assert.equal(apart.error, 0);
    assert.match(apart.doubt ?? '', /by what it said before/);
    const silent = new Machine().step(15 * DAY, false).run(20 * LASTING);
    assert.equal(silent.error, 0);
    silent.databaseOff = 15 * DAY;
    silent.run(EVERY);
    assert.equal(silent.error, 15 * DAY, 'it answers at last');
  });

  it('adopts what has lasted where there is no database to ask', () => {
    const machine = new Machine({ needsDatabase: false }).step(-2 * DAY, false).run(LASTING - EVERY);
    assert.equal(machine.error, 0);
    machine.run(2 * EVERY);
    assert.equal(machine.error, -2 * DAY);
  });

  it('counts the time of a step anew with each further step', () => {
    const machine = new Machine({ databaseOff: 0 });
    for (let n = 1; n <= 20; n++) {
      machine.step(15 * DAY + n * HOUR, true).run(LASTING / 2);
      assert.equal(machine.error, 0);
      machine.step(-15 * DAY - n * HOUR, true).run(LASTING / 4);
    }
    assert.equal(machine.error, 0);
  });

  it('follows small corrections at once, and a clock that drifts by less than one per cent', () => {
    const machine = new Machine({ databaseOff: 0 });
    machine.step(3 * SECOND, true);
    assert.equal(machine.error, 3 * SECOND);
    machine.step(-5 * SECOND, true).run(10 * 60 * SECOND);
    assert.equal(machine.error, -2 * SECOND);
    for (let n = 0; n < 10_000; n++) machine.step(5, true).run(EVERY);
    assert.equal(machine.error, machine.wallOff);
    assert.equal(machine.doubt, undefined);
  });

  it('does not creep after a clock that runs at double speed', () => {
    const machine = new Machine({ databaseOff: 0 });
    for (let n = 0; n < 5_000; n++) machine.step(EVERY, true).run(EVERY);
    assert.ok(machine.error < 10 * 60 * SECOND, `${machine.error / SECOND} s of ${machine.wallOff / SECOND} s`);
    assert.ok(machine.doubt);
  });

  it("recognises a clock that is earlier than the program's own date, and adopts the right one as soon as it is there", () => {
    for (const databaseOff of [-56 * YEAR, undefined]) {
      const machine = new Machine({ wallOff: -56 * YEAR, databaseOff });
      assert.match(machine.doubt ?? '', /must be later than/);
      machine.run(HOUR);
      assert.match(machine.doubt ?? '', /must be later than/);
      machine.step(56 * YEAR, databaseOff !== undefined);
      assert.equal(machine.error, 0);
      assert.equal(machine.doubt, undefined);
    }
  });

  it("uses the database's time from the start where the machine has the wrong one, and the other way round", () => {
    const rows: [wall: number, database: number, judged: number][] = [
      [-56 * YEAR, 0, 0],
      [15 * DAY, 0, 0],
      [30 * YEAR, 0, 0],
      [0, 15 * DAY, 0],
      [0, -56 * YEAR, 0],
      [SECOND, 0, SECOND],
    ];
    for (const [wallOff, databaseOff, judged] of rows) {
      const machine = new Machine({ wallOff, databaseOff });
      assert.equal(machine.error, judged, `${wallOff} ${databaseOff}`);
      assert.equal(machine.doubt === undefined, Math.abs(wallOff - databaseOff) <= AGREE);
      machine.run(3 * LASTING);
      assert.equal(machine.error, judged);
      machine.step(-wallOff, false);
      machine.databaseOff = 0;
      machine.run(EVERY);
      assert.equal(machine.error, 0);
      assert.equal(machine.doubt, undefined);
    }
  });

  it('learns that it must be later than what was signed, and uses the clock that says so', () => {
    const machine = new Machine({ wallOff: -15 * DAY, databaseOff: -15 * DAY });
    assert.equal(machine.doubt, undefined);
    machine.time = withFloor(machine.time, START - DAY);
    assert.match(machine.doubt ?? '', /must be later than/);
    machine.run(2 * LASTING);
    machine.step(15 * DAY, true);
    assert.equal(machine.error, 0);
    // Going back there is no step to be believed, however long it lasts.
    machine.step(-15 * DAY, true).run(5 * LASTING);
    assert.equal(machine.error, 0);
  });

  it('with any steps of any lengths that are taken back within the hour, is never off and never without the true time', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const fuzz = createFuzz(seed);
      const along = fuzz.below(2) === 0;
      const machine = new Machine({ databaseOff: 0 });
      for (let n = 0; n < 60; n++) {
        const step = (fuzz.below(2) ? 1 : -1) * (20 + fuzz.below(40) ** 4) * SECOND;
        machine.step(step, along);
        machine.run(1 + fuzz.below(LASTING - 2 * EVERY));
        assert.equal(machine.error, 0, `seed ${seed}`);
        assert.ok(machine.possible.some((time) => Math.abs(time) <= AGREE));
        machine.step(-step, along).run(1 + fuzz.below(HOUR));
        assert.equal(machine.error, 0, `seed ${seed}`);
        assert.equal(machine.doubt, undefined, `seed ${seed}`);
      }
    }
  });

  it('logs a clock beyond every calendar as such, and goes on', () => {
    const machine = new Machine({ databaseOff: 0 }).step(9e15, false).run(EVERY);
    assert.match(machine.doubt ?? '', /nonsense/);
    assert.equal(machine.error, 0);
  });
});
