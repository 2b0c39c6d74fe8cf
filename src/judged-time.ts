/**
 * What time it is, judged by several clocks, for decisions that cannot be undone if the time was wrong.
 *
 * A wall clock may be wrong from the start, may step by years, and may step back. The monotonic clock cannot step, but
 * knows no date. So the judged time runs with the monotonic clock from where it started, follows small corrections,
 * and takes over a step of the wall clock only when that has lasted and the database's clock agrees. The database
 * usually runs on the same machine and steps with it: its agreement alone proves nothing, but a database that did not
 * step with the machine proves the machine wrong.
 *
 * Pure: readings of the clocks are passed in. Times are unix milliseconds; an offset is a time minus the monotonic
 * clock at the same moment, so the offset of a clock that does not step stays the same.
 */
export interface JudgedTime {
  /** The offset of the judged time. */
  readonly offset: number;
  /** The offset of the wall clock when it was last read. */
  readonly wall: number;
  /** The offset of the database's clock when it last answered. */
  readonly database: number | undefined;
  /** When the clocks were last read, by the monotonic clock. */
  readonly at: number;
  /** How far the wall clock may still be followed at once, in milliseconds. */
  readonly slack: number;
  /** Where the wall clock stepped to and since when (monotonic) it has stayed there. */
  readonly step: { readonly offset: number; readonly since: number } | undefined;
  /** No time before this can be right. */
  readonly floor: number;
}

/** One reading of the clocks. */
export interface Look {
  readonly monotonic: number;
  readonly wall: number;
  /** Undefined if it did not answer. */
  readonly database?: number | undefined;
}

/** What the judgement depends on besides the clocks. */
export interface JudgementRules {
  /** Whether a step needs the agreement of the database's clock. */
  readonly needsDatabase: boolean;
}

/** How far apart two clocks may be, in ms, and still agree: nothing that is judged here depends on minutes. */
export const AGREE = 300_000;
/**
 * A step is believed when the wall clock has stayed where it went for this long, in ms. A machine that wakes from
 * suspension looks like a step, too.
 */
export const LASTING = 3_600_000;
/**
 * Corrections of the wall clock that are followed at once: up to this many milliseconds, which are regained at one
 * per cent of the time that passes. NTP slews twenty times slower.
 */
const SLACK = 5_000;
const SLACK_RATE = 0.01;
/**
 * A clock that is behind this is wrong, for the program did not exist then: a machine without a battery starts in 1970,
 * or at the time its system was built.
 */
export const PROGRAM_TIME = Date.UTC(2026, 0, 1);

/** The judgement at the start: if two clocks disagree, the earlier one is taken, unless it cannot be right. */
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

/** The judgement after another reading. */
export function judge(before: JudgedTime, look: Look, { needsDatabase }: JudgementRules): JudgedTime {
  const { monotonic } = look;
  const wall = look.wall - monotonic;
  const asked = look.database === undefined ? undefined : look.database - monotonic;
  const slack = Math.min(SLACK, before.slack + Math.max(0, monotonic - before.at) * SLACK_RATE);
  const now = { ...before, wall, database: asked ?? before.database, at: monotonic, slack };
  const isRight = (offset: number) => offset + monotonic >= before.floor;

  // Compared with where the step began to last, not with the last reading: a clock that keeps creeping never settles.
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

/** The judgement with the knowledge that no time before `floor` can be right. */
export function withFloor(time: JudgedTime, floor: number): JudgedTime {
  return { ...time, floor: Math.max(time.floor, floor) };
}

/** The judged time when the monotonic clock says `monotonic`. */
export function judgedNow(time: JudgedTime, monotonic: number): number {
  return time.offset + monotonic;
}

/**
 * All times that it could be, the judged one first. What is deleted must be too old by all of them; what is accepted
 * need only be valid by one.
 */
export function possibleTimes({ offset, wall, database }: JudgedTime, monotonic: number): number[] {
  const times = [offset, wall];
  if (database !== undefined) times.push(database);
  return times.filter((one, n) => times.findIndex((other) => agree(one, other)) === n).map((one) => one + monotonic);
}

/** Why the time is in doubt, in a sentence for the operator; undefined while it is not. */
export function doubtOf(time: JudgedTime, monotonic: number): string | undefined {
  const { offset, wall, database, floor } = time;
  // Dates are formatted only where there is a doubt: every client's request asks several times.
  const says = () => `this machine's clock says ${date(wall + monotonic)}`;
  if (wall + monotonic < floor) return `${says()}, and it must be later than ${date(floor)}: correct it`;
  if (!agree(offset, wall)) {
    return (
      `${says()}, but by what it said before it should be ${date(offset + monotonic)}: ` +
      'check its time synchronisation; if the new time is correct, it will be believed after an hour'
    );
  }
  if (database !== undefined && !agree(database, wall)) {
    return `${says()}, but the database's says ${date(database + monotonic)}: correct the wrong one`;
  }
  return undefined;
}

function agree(one: number, other: number): boolean {
  return Math.abs(one - other) <= AGREE;
}

function date(time: number): string {
  // Beyond the range of a Date, toISOString would throw.
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString().slice(0, 19) : 'nonsense';
}
