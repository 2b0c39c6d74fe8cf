import type { Log } from '../../src/log.ts';

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** A log that passes each text to `keep`, with its level. */
export function logTo(keep: (text: string, level: keyof Log) => unknown): Log {
  const at = (level: keyof Log) => (text: string) => void keep(text, level);
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
