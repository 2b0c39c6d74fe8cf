import type { Style } from './output.ts';

/** An error as a log record holds it. */
export interface LoggedError {
  readonly type: string;
  /** Its message and those of its causes, outermost first. */
  readonly message: string;
  readonly code?: string;
  readonly stack?: string;
}

/** One event, as pino writes it. */
export interface LogRecord {
  readonly level: number;
  /** Unix milliseconds. */
  readonly time: number;
  /** The daemon's name. */
  readonly name: string;
  readonly category?: string;
  readonly msg?: string;
  readonly fields?: { readonly err?: LoggedError; readonly [field: string]: unknown };
  /** What a part has bound to its own child logger. */
  readonly [bound: string]: unknown;
}

const NAMES = new Map([
  [10, 'trace'],
  [20, 'debug'],
  [30, 'info'],
  [40, 'warning'],
  [50, 'error'],
  [60, 'critical'],
]);
/** syslog's priorities, which journald takes from the start of a line (sd-daemon(3)). */
const PRIORITIES = new Map([
  [10, 7],
  [20, 7],
  [30, 6],
  [40, 4],
  [50, 3],
  [60, 2],
]);
const COLOURS = new Map([
  [10, 90],
  [20, 90],
  [30, 32],
  [40, 33],
  [50, 31],
  [60, 35],
]);
const DEEPEST_CAUSE = 8;

/**
 * Renders a record as one line, whatever strangers put into its texts.
 *
 * @param withStack whether to add an error's stack
 * @param shared whether other daemons write to the same place, where journald cannot tell them apart
 */
export function renderLine(record: LogRecord, style: Style, withStack: boolean, shared = false): string {
  const { level, time, name, category, msg, fields: logged, ...bound } = record;
  const { err, ...rest } = logged ?? {};
  const fields = { ...bound, ...rest };
  const levelName = NAMES.get(level) ?? String(level);
  if (style === 'json') {
    const { stack, ...error } = err ?? {};
    return stringify({
      time: new Date(time).toISOString(),
      level: levelName,
      name,
      category,
      msg,
      ...fields,
      ...(err && { err: withStack ? { ...error, stack } : error }),
    });
  }
  let text = message(msg, err);
  for (const [key, value] of Object.entries(fields)) text += ` ${key}=${fieldValue(value)}`;
  if (withStack && err?.stack) text += ` stack=${fieldValue(frames(err.stack))}`;
  text = oneLine(text);
  const source = category && category !== name ? `${name}/${category}` : name;
  if (style === 'journal') {
    const from = shared ? source : category;
    return `<${PRIORITIES.get(level) ?? 6}>${from ? `${from}: ` : ''}${text}`;
  }
  const stamp = new Date(time).toISOString();
  if (style === 'plain') return `${stamp} ${levelName} ${source}: ${text}`;
  const colour = (code: number, part: string) => `\x1b[${code}m${part}\x1b[0m`;
  return `${colour(90, stamp.slice(11, 23))} ${colour(COLOURS.get(level) ?? 0, levelName.padEnd(8))} ${colour(36, source)} ${text}`;
}

/**
 * An error for the log: its message and those of its causes in one text. Anything else that was thrown becomes a
 * string.
 */
export function describeError(error: unknown): LoggedError {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) };
  const code = (error as NodeJS.ErrnoException).code;
  return {
    type: error.name,
    message: chain(error, 0),
    ...(code !== undefined && { code: String(code) }),
    ...(error.stack !== undefined && { stack: error.stack }),
  };
}

function chain(error: unknown, depth: number): string {
  if (!(error instanceof Error)) return String(error);
  let text = error.message;
  // The error of a failed connection to a name with several addresses has an empty message, and the reasons inside.
  if (text === '' && error instanceof AggregateError && depth < DEEPEST_CAUSE) {
    text = error.errors.map((part) => chain(part, depth + 1)).join('; ');
  }
  if (text === '') text = error.name;
  if (error.cause === undefined || error.cause === null || depth >= DEEPEST_CAUSE) return text;
  const cause = chain(error.cause, depth + 1);
  return text.includes(cause) ? text : `${text}: ${cause}`;
}

function message(msg: string | undefined, err: LoggedError | undefined): string {
  if (!err) return msg ?? '';
  return msg === undefined || err.message.startsWith(msg) ? err.message : `${msg}: ${err.message}`;
}

function frames(stack: string): string {
  return stack
    .split('\n')
    .slice(1)
    .map((frame) => frame.trim())
    .join(' | ');
}

function fieldValue(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  const text = typeof value === 'string' ? value : stringify(value);
  return typeof value === 'string' && (text === '' || /[\s"=]/.test(text)) ? JSON.stringify(text) : text;
}

/** JSON, with bigints as strings, since readers of JSON would round them. */
function stringify(value: unknown): string {
  return JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? String(part) : part));
}

/** Escapes control characters, which would break the line in two or control the terminal. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    if (character === '\n') return '\\n';
    if (character === '\t') return ' ';
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
