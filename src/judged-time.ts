/**
 * What time it is, judged by several witnesses, for everything that cannot be had back when it is judged wrongly.
 *
 * A wall clock may be wrong from the start, may step by years, and may step back. The monotonic clock cannot step, but
 * knows no date. So the judged time runs with the monotonic clock from where it once was, follows small corrections,
 * and takes over a step of the wall clock only when that has lasted and the database's clock agrees. The database
 * usually runs on the same machine and steps with it: its agreement alone proves nothing, but a database that did not
 * step with the machine proves the machine wrong.
 *
 * Pure: the looks at the clocks come in. Times are unix milliseconds; an offset is a time less the monotonic clock of
 * the same moment, so that the offset of a clock that does not step stays as it is.
 */
export interface JudgedTime {
  /** Of the judged time. */
  readonly offset: number;
  /** Of the wall clock and of the database's, when they were last looked at. */
  readonly wall: number;
  readonly database: number | undefined;
  /** The last look, by the monotonic clock. */
  readonly at: number;
  /** By how much the wall clock may still be followed at once, in milliseconds. */
  readonly slack: number;
  /** Where the wall clock stepped to and since when (monotonic) it has stayed there. */
  readonly step: { readonly offset: number; readonly since: number } | undefined;
  /** No time before this can be right. */
  readonly floor: number;
}

/** One look at the clocks. */
export interface Look {
  readonly monotonic: number;
  readonly wall: number;
  /** Undefined if it did not answer. */
  readonly database?: number | undefined;
}

/** What the judgement goes by beside the clocks. */
export interface JudgementRules {
  /** Whether a step needs the agreement of the database's clock. */
  readonly needsDatabase: boolean;
}

/** How far apart two clocks may be and still agree: nothing that is judged here hangs on minutes. */
export const AGREE = 300_000;
/**
 * A step is believed when the wall clock has stayed where it went for this long. A machine that was suspended looks
 * like a step, too.
 */
export const LASTING = 3_600_000;
/**
 * What a wall clock is corrected by without anybody's noticing, at once and then by one per cent of the time that
 * passes. NTP slews twenty times slower.
 */
const SLACK = 5_000;
const SLACK_RATE = 0.01;
/**
 * This program is younger than any clock that says less: a machine without a battery starts in 1970, or when its system
 * was made.
 */
export const PROGRAM_TIME = Date.UTC(2026, 0, 1);

/** The judgement at the start: of two clocks that disagree the earlier one is taken, unless it cannot be right. */
export function firstJudgement(look: Look, floor = PROGRAM_TIME): JudgedTime {
  const clocks = look.database === undefined ? [look.wall] : [look.wall, look.database];
  const good = clocks.filter((time) => time >= floor);
  const isApart = look.database !== undefined && !agree(look.wall, look.database);
  const time = isApart ? Math.min(...(good.length > 0 ? good : clocks)) : look.wall;
  const wall = look.wall - look.monotonic;
  return {
    offset: time - look.monotonic,
    wall,
    database: look.database === undefined ? undefined : look.database - look.monotonic,
    at: look.monotonic,
    slack: SLACK,
    step: time === look.wall ? undefined : { offset: wall, since: look.monotonic },
    floor,
  };
}

/** The judgement after another look. */
export function judge(before: JudgedTime, look: Look, { needsDatabase }: JudgementRules): JudgedTime {
  const { monotonic } = look;
  const wall = look.wall - monotonic;
  const asked = look.database === undefined ? undefined : look.database - monotonic;
  const slack = Math.min(SLACK, before.slack + Math.max(0, monotonic - before.at) * SLACK_RATE);
  const now = { ...before, wall, database: asked ?? before.database, at: monotonic, slack };
  const isRight = (offset: number) => offset + monotonic >= before.floor;

  // It counts from where the step went: a clock that creeps away never comes to rest.
  const isSame = before.step !== undefined && Math.abs(wall - before.step.offset) <= SLACK;
  const step = isSame ? before.step : { offset: wall, since: monotonic };
  const follow = (offset: number, left: number): JudgedTime => ({
    ...now,
    offset,
    slack: left,
    step: offset === wall ? undefined : step,
  });
  if (!isRight(before.offset)) {
    const good = [wall, now.database ?? wall].filter(isRight);
    if (good.length > 0) return follow(agree(wall, Math.min(...good)) ? wall : Math.min(...good), SLACK);
  }
  const off = Math.abs(wall - before.offset);
  if (off <= slack) return follow(wall, slack - off);
  const hasLasted = monotonic - step.since >= LASTING && isRight(wall);
  const isVouchedFor = asked === undefined ? !needsDatabase : agree(asked, wall);
  return hasLasted && isVouchedFor ? follow(wall, SLACK) : { ...now, step };
}

/** Nothing before `floor` can be right, as has just come out. */
export function withFloor(time: JudgedTime, floor: number): JudgedTime {
  return { ...time, floor: Math.max(time.floor, floor) };
}

/** The judged time at that moment of the monotonic clock. */
export function judgedNow(time: JudgedTime, monotonic: number): number {
  return time.offset + monotonic;
}

/**
 * Every time that it may be, the judged one first: what is to be deleted must be old by all of them, what is accepted
 * need be good by one.
 */
export function possibleTimes({ offset, wall, database }: JudgedTime, monotonic: number): number[] {
  const times = [offset, wall];
  if (database !== undefined) times.push(database);
  return times.filter((one, n) => times.findIndex((other) => agree(one, other)) === n).map((one) => one + monotonic);
}

/** Why the time is in doubt, in a sentence for the operator; undefined while it is not. */
export function doubtOf(time: JudgedTime, monotonic: number): string | undefined {
  const { offset, wall, database, floor } = time;
  // Dates are written only where there is something to say: each client's request asks several times.
  const says = () => `this machine's clock says ${date(wall + monotonic)}`;
  if (wall + monotonic < floor) return `${says()}, and it must be later than ${date(floor)}: correct it`;
  if (!agree(offset, wall)) {
    return (
      `${says()}, and by what it said before it should be ${date(offset + monotonic)}: ` +
      'check its time synchronisation; if it is right now, it will be believed after an hour'
    );
  }
  if (database !== undefined && !agree(database, wall)) {
    return `${says()}, and the database's ${date(database + monotonic)}: correct the wrong one`;
  }
  return undefined;
}

function agree(one: number, other: number): boolean {
  return Math.abs(one - other) <= AGREE;
}

function date(time: number): string {
  // What no Date can hold is no time either, and must not end in an exception.
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString().slice(0, 19) : 'nonsense';
}
