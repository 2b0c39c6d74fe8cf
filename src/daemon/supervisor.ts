import type { Clock, Timer } from '../clock.ts';
import type { DaemonProcess } from './daemon-process.ts';
import type { Systemd } from './systemd.ts';

/** A program to keep running. */
export interface Supervised {
  readonly name: string;
  /** Stopped only after all programs without this have ended. */
  readonly last?: boolean;
}

export interface SupervisorModules {
  readonly clock: Clock;
  readonly start: (program: Supervised) => Run;
  readonly log: (level: 'info' | 'warn' | 'error', text: string) => void;
  /** Told the state of the whole: ready when every program has started. */
  readonly systemd?: Pick<Systemd, 'ready' | 'status' | 'stopping'>;
  /** Called when a program has ended by itself, which is then not restarted. */
  readonly onDeath?: (name: string, how: string) => void;
}

/** One run of a program. */
export type Run = Pick<DaemonProcess, 'kill' | 'ready' | 'ended'>;

export interface Supervisor {
  /** Passes a signal on to all running programs. */
  signal(signal: NodeJS.Signals): void;
  /** Kills one program on purpose, and starts it again `away` ms after it has ended. */
  kill(name: string, away: number): void;
  /** Stops all programs in order, those that are `last` at the end; if called again, at once. */
  stop(): void;
  /** Resolves when all have ended after {@link Supervisor.stop}, with whether each did so in order. */
  readonly done: Promise<boolean>;
}

/** The wait before the first restart, ms; it doubles with each further one. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** After a run as long as this, ms, the wait begins at the first again. */
const GOOD_RUN = 60_000;
/** A daemon stops within ten seconds; one that has not stopped after this many milliseconds is stuck and is killed. */
const STUCK = 15_000;

interface Kept {
  readonly program: Supervised;
  run: Run | undefined;
  started: boolean;
  /** If it was killed on purpose: how long it stays away, ms. */
  away: number | undefined;
  /** To restart it, or to kill it if it does not stop in time. */
  timer: Timer | undefined;
  wait: number;
}

/**
 * Keeps programs running: one that dies is restarted after a wait, which grows while it keeps dying, unless `onDeath`
 * is given.
 */
export function supervise(
  programs: readonly Supervised[],
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
      // Until it has started, a SIGTERM may come before the program can handle one; then nothing is lost either.
      const isUnbegun = !each.started && how === 'by SIGTERM';
      each.run = undefined;
      each.started = false;
      each.timer?.cancel();
      tell();
      if (stopping !== 'no') {
        if (how !== undefined && !isUnbegun) {
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
        `${each.program.name} ended by itself (${how ?? 'exit code 0'}) and is restarted in ${each.wait / 1000} s`,
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
  /** Takes the next steps of stopping that are due. */
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
        // A second SIGTERM ends a daemon at once; those for which it is the first shut down cleanly, which is quick
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
