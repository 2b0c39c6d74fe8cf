/**
 * Where a part of the program writes to the operator. A part asks only for the levels that it uses (`Pick<Log,
 * 'warn'>`). Its owner decides whether it gets a log that writes every line, such as pino's, or one that writes the
 * same line only once in a while (`repeated` in daemon/log.ts).
 */
export interface Log {
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}
