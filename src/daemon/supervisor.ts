import type { Clock, Timer } from '../clock.ts';
import type { DaemonProcess } from './daemon-process.ts';
import type { Systemd } from './systemd.ts';

/** A program to keep running. */
export interface Program {
  readonly name: string;
  /** Stopped only when all that are not last have ended. */
  readonly last?: boolean;
}

export interface SupervisorModules {
  readonly clock: Clock;
  readonly start: (program: Program) => Run;
  readonly log: (level: 'info' | 'warn' | 'error', text: string) => void;
  /** Gets the state of the whole: ready when every program has started. */
  readonly systemd?: Pick<Systemd, 'ready' | 'status' | 'stopping'>;
  /** Told of a program that ended by itself, in place of its restart. */
  readonly onDeath?: (name: string, how: string) => void;
}

/** What there is to know of one run of a program. */
export type Run = Pick<DaemonProcess, 'kill' | 'ready' | 'ended'>;

export interface Supervisor {
  /** Passes a signal on to all that run. */
  signal(signal: NodeJS.Signals): void;
  /** Kills one on purpose, and starts it again `away` ms after it has ended. */
  kill(name: string, away: number): void;
  /** Ends all in order: first those that are not last. Called again: at once. */
  stop(): void;
  /** When all have ended after {@link Supervisor.stop}: whether each did so in order. */
  readonly done: Promise<boolean>;
}

/**
 * The wait before a restart: doubled each time, up to the second figure, and forgotten after a run as long as the
 * third; ms.
 */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
const GOOD_RUN = 60_000;
/** A daemon ends within ten seconds by itself; one that has not after these, ms, is stuck and is killed. */
const STUCK = 15_000;

interface Kept {
  readonly program: Program;
  run: Run | undefined;
  started: boolean;
  /** How long it is to stay away after it was killed on purpose, ms. */
  away: number | undefined;
  /** Of its restart, or of killing it because it did not stop in time. */
  timer: Timer | undefined;
  wait: number;
}

/**
 * Keeps programs running: what dies is started again, after a wait that grows while it keeps dying, unless there is
 * somebody to be told of it.
 */
export function supervise(
  programs: readonly Program[],
  { clock, start, log, systemd, onDeath }: SupervisorModules,
): Supervisor {
  const kept = programs.map(
    (program): Kept => ({
      program,
      run: undefined,
      started: false,
      away: undefined,
      timer: undefined,
      wait: FIRST_WAIT,
    }),
  );
  let stopping: 'no' | 'first' | 'last' = 'no';
  let isReady = false;
  let inOrder = true;
  let finish = (_inOrder: boolean) => {};
  const done = new Promise<boolean>((resolve) => (finish = resolve));

  const names = (of: readonly Kept[]) => of.map(({ program }) => program.name).join(', ');
  const tell = () => {
    if (stopping !== 'no') {
      systemd?.status(`Stopping: ${names(kept.filter(({ run }) => run))}`);
      return;
    }
    const missing = kept.filter(({ started }) => !started);
    systemd?.status(missing.length > 0 ? `Not running: ${names(missing)}` : `Running: ${names(kept)}`);
    if (isReady || missing.length > 0) return;
    isReady = true;
    systemd?.ready();
    log('info', 'all have started');
  };

  const launch = (each: Kept) => {
    each.timer = undefined;
    const startedAt = clock.monotonic();
    const run = start(each.program);
    each.run = run;
    void run.ready.then(() => {
      each.started = each.run === run;
      tell();
    });
    void run.ended.then((how) => {
      each.run = undefined;
      each.started = false;
      each.timer?.cancel();
      tell();
      if (stopping !== 'no') {
        if (how !== undefined) {
          inOrder = false;
          log('warn', `${each.program.name} did not stop in order: ${how}`);
        }
        advance();
        return;
      }
      if (each.away !== undefined) {
        each.timer = clock.setTimeout(() => launch(each), each.away);
        each.away = undefined;
        return;
      }
      if (onDeath) {
        onDeath(each.program.name, how ?? 'exit code 0');
        return;
      }
      if (clock.monotonic() - startedAt >= GOOD_RUN) each.wait = FIRST_WAIT;
      log(
        'error',
        `${each.program.name} ended by itself (${how ?? 'exit code 0'}), is started again in ${each.wait / 1000} s`,
      );
      each.timer = clock.setTimeout(() => launch(each), each.wait);
      each.wait = Math.min(each.wait * 2, LONGEST_WAIT);
    });
  };

  const running = (last: boolean) => kept.filter(({ program, run }) => run && (program.last === true) === last);
  const end = (each: Kept) => {
    each.run?.kill('SIGTERM');
    each.timer = clock.setTimeout(() => each.run?.kill('SIGKILL'), STUCK);
  };
  /** Goes on with stopping as far as it can. */
  const advance = () => {
    if (stopping === 'first' && running(false).length === 0) {
      stopping = 'last';
      for (const each of running(true)) end(each);
    }
    if (stopping === 'last' && running(true).length === 0 && running(false).length === 0) finish(inOrder);
  };

  tell();
  for (const each of kept) launch(each);
  log('info', `starting ${names(kept)}`);

  return {
    done,
    signal(signal) {
      for (const { run } of kept) run?.kill(signal);
    },
    kill(name, away) {
      const each = kept.find(({ program, run }) => run && program.name === name);
      if (!each || stopping !== 'no') return;
      each.away = away;
      each.run?.kill('SIGKILL');
    },
    stop() {
      if (stopping !== 'no') {
        // A second SIGTERM ends a daemon at once; one for which this is the first shuts down cleanly, which is quick
        // when nothing is left to do.
        for (const { run } of kept) run?.kill('SIGTERM');
        return;
      }
      stopping = 'first';
      systemd?.stopping();
      tell();
      for (const { timer } of kept) timer?.cancel();
      for (const each of running(false)) end(each);
      advance();
    },
  };
}
