/**
 * What a part has to say to the operator. It is a part's business to take the levels that it needs (`Pick<Log,
 * 'warn'>`), and its owner's to hand over a log that says everything, as pino's do, or one that says the same again
 * only once in a while (`repeated` in daemon/log.ts).
 */
export interface Log {
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}
