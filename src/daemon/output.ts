import { fstatSync } from 'node:fs';
import type { Writable } from 'node:stream';

/** Where log lines go. */
export interface Output {
  /** Writes one line, adding the line end. Never throws and never waits. */
  write(line: string): void;
  /** Resolves when everything is written, after `ms` milliseconds at the latest. */
  flush(ms: number): Promise<void>;
  /** How many lines were dropped because nobody read them. */
  readonly dropped: number;
}

/** How the reader at the other end wants its lines. */
export type Style = 'journal' | 'terminal' | 'plain' | 'json';

/** How much may wait for a slow reader, in characters. */
const LONGEST_QUEUE = 1_000_000;

/**
 * Writes lines to a stream such as process.stdout, whose reader may be slow, stuck or gone. Node queues what a full
 * pipe does not take; beyond {@link LONGEST_QUEUE} lines are dropped and counted, and a line says how many once the
 * reader reads again. A reader that has gone (EPIPE) is no reason to stop waking phones.
 */
export function streamOutput(stream: Writable): Output {
  let dropped = 0;
  let unsaid = 0;
  stream.on('error', () => {});
  const put = (line: string) => {
    try {
      stream.write(`${line}\n`);
    } catch {
      dropped++;
    }
  };
  return {
    write(line) {
      if (stream.writableLength > LONGEST_QUEUE) {
        dropped++;
        unsaid++;
        return;
      }
      if (unsaid > 0) {
        put(`(${unsaid} lines of the log are missing here: nobody read them in time)`);
        unsaid = 0;
      }
      put(line);
    },
    flush: (ms) =>
      new Promise((resolve) => {
        if (stream.writableLength === 0) {
          resolve();
          return;
        }
        const timer = setTimeout(resolve, ms);
        stream.write('', () => {
          clearTimeout(timer);
          resolve();
        });
      }),
    get dropped() {
      return dropped;
    },
  };
}

/**
 * Whether the lines go to journald, to a terminal, or anywhere else. systemd names the journal's socket in
 * JOURNAL_STREAM (device:inode), which child processes inherit, so it counts only if our own stdout is that socket.
 * INVOCATION_ID without it means a service that logs elsewhere (syslog, kmsg), where priorities in front of the lines
 * are understood, too.
 */
export function detectStyle(env: NodeJS.ProcessEnv, isTerminal: boolean, fd = 1): Style {
  if (env.JOURNAL_STREAM !== undefined) {
    try {
      const { dev, ino } = fstatSync(fd, { bigint: true });
      if (env.JOURNAL_STREAM === `${dev}:${ino}`) return 'journal';
    } catch {
      // A closed stdout is no journal.
    }
  } else if (env.INVOCATION_ID !== undefined && !isTerminal) {
    return 'journal';
  }
  return isTerminal ? 'terminal' : 'plain';
}
