import { isDeepStrictEqual } from 'node:util';
import { type Logger, pino } from 'pino';
import { type Clock, systemClock, type Timer } from '../clock.ts';
import { parseJson } from '../codec/json.ts';
import type { LogLevel, LogSettings } from '../settings/log.ts';
import { describeError, type LogRecord, renderLine } from './log-line.ts';
import { detectStyle, type Output, type Style, streamOutput } from './output.ts';

export type { Logger } from 'pino';

export interface LogOptions {
  readonly clock?: Clock;
  /** Default: the process's stdout. */
  readonly output?: Output;
  /** Default: by what stdout is connected to. `format = json` overrides it. */
  readonly style?: Style;
  /** Whether other daemons write to the same output. Default: whether "spns run" has started us. */
  readonly shared?: boolean;
}

interface State {
  settings: LogSettings;
  readonly root: Logger;
  readonly categories: Map<string, Logger>;
  readonly output: Output;
}

/** The property by which a logger finds its state; children inherit it, since pino makes their parent the prototype. */
const STATE = Symbol('spns log');

const PINO_LEVELS: Record<LogLevel, string> = {
  trace: 'trace',
  debug: 'debug',
  info: 'info',
  warning: 'warn',
  error: 'error',
  critical: 'fatal',
  none: 'silent',
};

let stdout: Output | undefined;

/**
 * The log of a daemon: one line per event, to stdout, with the text first and its fields after it. `log.warn({ node,
 * err }, 'cannot connect')` comes out as `cannot connect: connection refused node=…`: an error as its message and those
 * of its causes, with the stack only at level debug or trace.
 */
export function createLog(settings: LogSettings, name: string, options: LogOptions = {}): Logger {
  const clock = options.clock ?? systemClock;
  const output = options.output ?? standardOutput();
  const shared = options.shared ?? process.channel !== undefined;
  const found = options.style ?? detectStyle(process.env, process.stdout.isTTY === true);
  const root = pino(
    {
      level: PINO_LEVELS[settings.level],
      base: {},
      // So that fields named `level` or `time` cannot pass for the event's own.
      nestedKey: 'fields',
      timestamp: () => `,"time":${clock.now()}`,
      serializers: { err: describeError },
    },
    {
      write(line: string) {
        const record: LogRecord = { ...(parseJson(line) as LogRecord), name };
        const { format } = state.settings;
        const style = format === 'json' ? 'json' : format === 'plain' && found === 'terminal' ? 'plain' : found;
        output.write(renderLine(record, style, stackWanted(state.settings, record.category), shared));
      },
    },
  );
  const state: State = { settings, root, categories: new Map(), output };
  Object.defineProperty(root, STATE, { value: state });
  return root;
}

/** The logger of a part of the daemon, whose level `level-<name>` in `[log]` sets; always the same one for a name. */
export function category(log: Logger, name: string): Logger {
  const state = stateOf(log);
  if (!state) return log.child({ category: name });
  let child = state.categories.get(name);
  if (!child) {
    child = state.root.child({ category: name }, { level: levelOf(state.settings, name) });
    state.categories.set(name, child);
  }
  return child;
}

/**
 * Applies changed levels and format without a restart; returns whether anything changed. Children of a category's
 * logger keep the level with which they were made.
 */
export function applyLogSettings(log: Logger, settings: LogSettings): boolean {
  const state = stateOf(log);
  if (!state || isDeepStrictEqual(state.settings, settings)) return false;
  state.settings = settings;
  state.root.level = PINO_LEVELS[settings.level];
  for (const [name, child] of state.categories) child.level = levelOf(settings, name);
  return true;
}

/** Resolves when everything logged so far is written, after `ms` milliseconds at the latest. */
export async function flushLog(log: Logger, ms: number): Promise<void> {
  await stateOf(log)?.output.flush(ms);
}

/** Logs the same fault once, and later how often it has come again. */
export interface Repeated {
  /** @param message a fixed text by which the fault is recognised; what varies belongs in `fields` */
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
  /** Logs what has been counted so far, and stops the timers. */
  stop(): void;
}

/** How many different faults are remembered; any further ones are logged every time. */
const MOST_FAULTS = 1000;
/** The longest time between two lines about a fault that goes on, ms. */
const LONGEST_SILENCE = 3_600_000;

/**
 * For faults that a stranger, or a lost connection, can cause a thousand times a second. The first is logged at once;
 * those of the next minute are counted and logged in one line with the fields of the last; while they go on, the minute
 * doubles, up to an hour.
 *
 * @param window length of the first minute, in milliseconds
 */
export function repeated(log: Logger, clock: Clock, window = 60_000): Repeated {
  type Level = 'info' | 'warn' | 'error';
  interface Fault {
    level: Level;
    message: string;
    fields: object;
    again: number;
    silence: number;
    timer: Timer;
  }
  const faults = new Map<string, Fault>();
  const tell = ({ level, message, fields, again, silence }: Fault) =>
    log[level]({ ...fields, again, seconds: Math.round(silence / 1000) }, message);

  const wake = (key: string, fault: Fault) => {
    if (fault.again === 0) {
      faults.delete(key);
      return;
    }
    tell(fault);
    fault.again = 0;
    fault.silence = Math.min(fault.silence * 2, Math.max(LONGEST_SILENCE, window));
    fault.timer = clock.setTimeout(() => wake(key, fault), fault.silence);
  };
  const say = (level: Level, message: string, fields: object = {}) => {
    const key = `${level} ${message}`;
    const known = faults.get(key);
    if (known) {
      known.again++;
      known.fields = fields;
      return;
    }
    log[level](fields, message);
    if (faults.size >= MOST_FAULTS) return;
    const fault: Fault = {
      level,
      message,
      fields,
      again: 0,
      silence: window,
      timer: clock.setTimeout(() => wake(key, fault), window),
    };
    faults.set(key, fault);
  };
  return {
    info: (message, fields) => say('info', message, fields),
    warn: (message, fields) => say('warn', message, fields),
    error: (message, fields) => say('error', message, fields),
    stop() {
      for (const fault of faults.values()) {
        fault.timer.cancel();
        if (fault.again > 0) tell(fault);
      }
      faults.clear();
    },
  };
}

function stateOf(log: Logger): State | undefined {
  return (log as { [STATE]?: State })[STATE];
}

function levelOf(settings: LogSettings, name: string): string {
  return PINO_LEVELS[settings.levels.get(name.toLowerCase()) ?? settings.level];
}

function stackWanted(settings: LogSettings, name: string | undefined): boolean {
  const level = (name !== undefined && settings.levels.get(name.toLowerCase())) || settings.level;
  return level === 'debug' || level === 'trace';
}

/** One for the whole process, since a stream needs its error listener only once. */
function standardOutput(): Output {
  stdout ??= streamOutput(process.stdout);
  return stdout;
}
