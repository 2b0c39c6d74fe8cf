import { changedKeys, needRestart } from '../settings/changes.ts';
import { type Config, type DaemonName, type LoadOptions, loadConfig } from '../settings/config.ts';
import { ConfigError } from '../settings/section.ts';
import type { Daemon } from './daemon.ts';
import { applyLogSettings, type Logger } from './log.ts';
import { describeError } from './log-line.ts';

/**
 * Reads the configuration again and lets the daemon apply it. A file that is wrong, or that the daemon refuses, changes
 * nothing. Logs which keys have changed in the file, what was done about them, and why a file was refused.
 *
 * @returns the configuration now in force and, if the new one was refused, a sentence about that
 */
export async function reloadConfig({
  name,
  first,
  config,
  options,
  daemon,
  log,
}: {
  name: DaemonName;
  /** The one with which the daemon was started. */
  first: Config;
  /** The one now in force. */
  config: Config;
  options: LoadOptions;
  daemon: Pick<Daemon, 'reload'>;
  log: Logger;
}): Promise<{ config: Config; refused: string | undefined }> {
  try {
    const next = loadConfig(process.env, options);
    for (const warning of next.warnings) log.warn(warning);
    const keys = changedKeys(config, next);
    const changes = (await daemon.reload?.(next)) ?? [];
    if (applyLogSettings(log, next.log)) changes.push('log levels and format');
    if (keys.length > 0) log.info({ keys: keys.join(' ') }, 'the configuration file has changed');
    for (const change of changes) log.info(`reloaded: ${change}`);
    const waiting = needRestart(name, changedKeys(first, next));
    if (waiting.length > 0) log.warn({ keys: waiting.join(' ') }, 'these changes need a restart');
    if (changes.length === 0) {
      log.info(
        keys.length > 0
          ? 'reloaded: nothing that can change without a restart has changed'
          : 'reloaded: the configuration is as it was',
      );
    }
    return { config: next, refused: undefined };
  } catch (error) {
    const problems = error instanceof ConfigError ? error.problems : [describeError(error).message];
    if (error instanceof ConfigError) for (const problem of problems) log.error(problem);
    else log.error({ err: error }, 'the new configuration could not be applied');
    log.error('the new configuration is refused, the old one stays in force: correct it and reload again');
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
    return { config, refused: `the new configuration is refused, the old one stays in force: ${problems[0]}${more}` };
  }
}
