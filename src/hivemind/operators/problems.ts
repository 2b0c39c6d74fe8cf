import type { CanaryReport, ServiceReport, StatusSample } from './report.ts';

/** The tiles of the status page that can show a problem. */
export type Tile = 'fresh' | 'stalest' | 'waiting' | 'latency' | 'canary' | 'hiveminds';

/** Something that an operator should look at. */
export interface Problem {
  /**
   * `bad`: phones do not ring, or soon will not. `starting`: the same, but expected while the hivemind starts. `odd`:
   * not urgent.
   */
  readonly level: 'bad' | 'starting' | 'odd';
  readonly text: string;
  /** What to do; empty if there is no advice. */
  readonly advice: string;
  readonly tile?: Tile;
}

/** If a push waits for longer than this, in seconds, its notifier or provider does not keep up. */
const LATE_SECONDS = 60;
/** How long a start may take, in seconds: for everything else to be up, and for storage servers to confirm all. */
const STARTING = 120;
const CONFIRMING = 600;
/** How long without one of its pushes, in seconds, makes the canary silent; and how long without it, gone. */
const CANARY_SILENT = 300;
const CANARY_GONE = 60;
/** A credential that expires within this many seconds should be replaced. */
const CREDENTIAL_WARNING = 14 * 86_400;

const ABOUT_HIVEMINDS = /hivemind|slots/;
/** Nothing is lost yet: one more failure would cost pushes, or some are held back for a second in vain. */
const NOT_URGENT = /^no other hivemind is alive|covered by fewer than|^the hivemind \S+ cannot be reached/;
/** What to do about complaints, by their text; docs/operate.md, "Alerts", has more. */
const ADVICE: readonly (readonly [RegExp, string])[] = [
  [/^waiting for notifiers/, 'systemctl status "spns-notifier@*": the start waits for those in notifiers_expected.'],
  [/database|PostgreSQL/i, 'Check PostgreSQL and its disk; the hivemind retries by itself, and pushes go on.'],
  [/^the time is in doubt/, 'timedatectl, here and on the machine of PostgreSQL: correct the clock that is wrong.'],
  [/expire|out of date/, 'Is the time right? Then: spns expire, and spns expire --yes.'],
  [/^oxend/, 'Check oxend and its socket; spns nodes --bad and the log have more.'],
  [/^no storage server/, 'Is the network up, and may this machine connect out to high ports? spns nodes --bad'],
  [/cut off/, 'spns nodes --bad shows which, and why.'],
  [/do not answer|no address/, 'spns nodes --bad'],
  [/do not match their hash/, 'Is there a newer SPNS? Nothing is lost meanwhile.'],
  [ABOUT_HIVEMINDS, 'spns members, and the log of those that are missing.'],
];

/**
 * The problems in a sample that an operator should look at, worst first.
 *
 * @param up how long the hivemind has been running, in seconds
 * @param now unix seconds
 */
export function problemsOf(sample: StatusSample, up: number, now: number): Problem[] {
  const { complaints, services, uncovered, nodes, unneeded, fresh } = sample;
  const needed = nodes - unneeded;
  const level = (within: number) => (up < within ? 'starting' : 'bad');
  const problems: Problem[] = complaints.map((text) => ({
    level: up >= STARTING && NOT_URGENT.test(text) ? 'odd' : level(STARTING),
    text,
    advice: adviceFor(text),
    ...(ABOUT_HIVEMINDS.test(text) && { tile: 'hiveminds' as const }),
  }));
  if (needed > 0 && fresh === 0) {
    problems.push({
      level: level(CONFIRMING),
      text: 'No storage server has confirmed all its accounts lately: phones may not ring.',
      advice: 'spns nodes --bad has the last error of each.',
      tile: 'fresh',
    });
  }
  if (uncovered > 0) {
    problems.push({
      level: level(CONFIRMING),
      text: `${counted(uncovered, 'account is', 'accounts are')} confirmed by no storage server of its swarm.`,
      advice: 'spns nodes --bad; if all servers of a swarm refuse, the log with level-snode = debug says why.',
      tile: 'stalest',
    });
  }
  if (fresh > 0 && fresh < needed * 0.9) {
    problems.push({
      level: up < CONFIRMING ? 'starting' : 'odd',
      text: `Only ${fresh} of ${needed} storage servers are fresh.`,
      advice: 'The other members of each swarm cover for them; spns nodes --bad shows which they are.',
      tile: 'fresh',
    });
  }
  for (const service of services) problems.push(...problemsOfService(service, level(STARTING), now));
  problems.push(...problemsOfCanary(sample.canary, up));
  const order = { bad: 0, starting: 1, odd: 2 };
  return problems.sort((a, b) => order[a.level] - order[b.level]);
}

function problemsOfCanary(canary: CanaryReport | null, up: number): Problem[] {
  if (!canary) return [];
  const { isRunning, silentSeconds, problem } = canary;
  if (!isRunning) {
    if (silentSeconds <= CANARY_GONE) return [];
    const text = `The canary is not running; it was last heard of ${Math.round(silentSeconds / 60)} min ago.`;
    return [{ level: 'odd', text, advice: 'systemctl status spns-canary', tile: 'canary' }];
  }
  const isSilent = silentSeconds > CANARY_SILENT;
  if (!isSilent && problem === '') return [];
  return [
    {
      level: isSilent ? 'bad' : up < STARTING ? 'starting' : 'odd',
      text: `The canary: ${problem || 'no push comes'}.`,
      advice: 'docs/operate.md, at SpnsCanarySilent and SpnsCanaryFrontEndDown.',
      tile: 'canary',
    },
  ];
}

function problemsOfService(report: ServiceReport, level: 'bad' | 'starting', now: number): Problem[] {
  const { service, notifiers, subscriptions, queued, oldest_seconds: oldest, breaker_open: breaker } = report;
  const problems: Problem[] = [];
  if (service !== 'canary' && notifiers === 0 && (subscriptions > 0 || queued > 0)) {
    problems.push({
      level,
      text: `${service}: no notifier is connected; ${counted(queued, 'push waits', 'pushes wait')}.`,
      advice: `systemctl status spns-notifier@${service}`,
      tile: 'waiting',
    });
  } else if (oldest > LATE_SECONDS) {
    problems.push({
      level: 'odd',
      text: `${service}: the oldest push has been waiting for ${Math.round(oldest)} s.`,
      advice: `Is the provider slow or paused? journalctl -u spns-notifier@${service}`,
      tile: 'waiting',
    });
  }
  if (breaker) {
    problems.push({
      level: 'bad',
      text: `${service}: the provider reports so many devices as gone that none is removed.`,
      advice: 'Its certificate, project or environment is probably wrong: correct it and reload the notifier.',
    });
  }
  const left = report.credential_expires === null ? Number.POSITIVE_INFINITY : report.credential_expires - now;
  if (left < CREDENTIAL_WARNING) {
    const days = Math.floor(left / 86_400);
    problems.push({
      level: left < 0 ? 'bad' : 'odd',
      text:
        left < 0
          ? `${service}: the credential for the provider has expired.`
          : `${service}: the credential for the provider expires in ${counted(days, 'day', 'days')}.`,
      advice: `Put the new one in place, spns check-config, systemctl reload spns-notifier@${service}`,
    });
  }
  return problems;
}

function adviceFor(complaint: string): string {
  return ADVICE.find(([pattern]) => pattern.test(complaint))?.[1] ?? '';
}

function counted(count: number, one: string, many: string): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}
