import { readFileSync } from 'node:fs';
import type { Clock } from '../../clock.ts';
import type { RouteReply, Routes } from '../../daemon/metrics.ts';
import type { NodeReport } from '../network/node.ts';
import { problemsOf } from './problems.ts';
import type { CanaryReport, RequestCounts, StatusSample } from './report.ts';

/** The status page at the metrics address. */
export interface StatusPage {
  readonly routes: Routes;
  stop(): void;
}

/** A point of the plots: gauges at `time`, and rates per second since the point before. */
interface Point {
  /** Unix milliseconds. */
  readonly time: number;
  /** Storage servers that keep accounts of this hivemind. */
  readonly needed: number;
  readonly connected: number;
  readonly fresh: number;
  readonly stalest: number;
  readonly raw: number;
  readonly unique: number;
  readonly requests: Readonly<Record<keyof RequestCounts, number>>;
  /** How long the canary's latest push took, in seconds; absent while none comes. */
  readonly canary?: number;
  readonly services: Record<string, ServicePoint>;
}

interface ServicePoint {
  readonly pushes: number;
  readonly waiting: number;
  readonly accepted: number;
  readonly refused: number;
  readonly gone: number;
  readonly dropped: number;
  /** The 95th percentile of the latency, in seconds; absent if there were no pushes lately. */
  readonly latency?: number;
}

const INTERVAL_MS = 10_000;
/** An hour of points. */
const POINTS = 360;
/** How many storage servers the page names: those that need attention most. */
const WORST = 5;
/** The canary writes to itself each minute; if its last push is older than this, in seconds, one is missing. */
const CANARY_DUE = 90;

/** Options of {@link statusPage}. */
export interface StatusPageOptions {
  readonly sample: () => StatusSample;
  /** Every storage server. */
  readonly nodes: () => readonly NodeReport[];
  /** The name of this machine, and this program's version. */
  readonly host: string;
  readonly version: string;
  readonly clock: Clock;
}

/**
 * The status page at the hivemind's metrics address: the page, its script and style, and `/status.json`, which the
 * script reads. The last hour is kept here, a point every 10 s, so that the plots are full as soon as it is opened.
 */
export function statusPage({ sample, nodes, host, version, clock }: StatusPageOptions): StatusPage {
  const startedAt = clock.now();
  const since = clock.monotonic();
  const points: Point[] = [];
  let before = { at: clock.monotonic(), sample: sample() };
  const timer = clock.setInterval(() => {
    const now = { at: clock.monotonic(), sample: sample() };
    points.push(pointBetween(before.sample, now.sample, (now.at - before.at) / 1000, clock.now()));
    if (points.length > POINTS) points.shift();
    before = now;
  }, INTERVAL_MS);

  return {
    routes: {
      '/': asset('status-page.html', 'text/html; charset=utf-8'),
      '/status-page.js': asset('status-page.js', 'text/javascript; charset=utf-8'),
      '/status-page.css': asset('status-page.css', 'text/css; charset=utf-8'),
      // ?after=TIME: only the points that the page does not have yet.
      '/status.json': (url) => {
        const after = Number(url.searchParams.get('after') ?? 0);
        const current = sample();
        const body = {
          time: clock.now(),
          startedAt,
          interval: INTERVAL_MS,
          current,
          host,
          version,
          problems: problemsOf(current, (clock.monotonic() - since) / 1000, clock.now() / 1000),
          worst: worstOf(nodes()),
          points: points.filter((point) => !(point.time <= after)),
        };
        return { type: 'application/json; charset=utf-8', body: JSON.stringify(body) };
      },
    },
    stop: () => timer.cancel(),
  };
}

/** Whether the canary's pushes come when they should. */
function isOnTime(canary: CanaryReport | null): canary is CanaryReport & { readonly lastSeconds: number } {
  return canary !== null && canary.lastSeconds !== null && canary.silentSeconds < CANARY_DUE;
}

/** The servers that may cost phones messages, those with the oldest confirmations first. */
function worstOf(nodes: readonly NodeReport[]): object[] {
  return nodes
    .filter(({ state, unconfirmed }) => state !== 'unneeded' && (state !== 'up' || unconfirmed > 0))
    .sort((a, b) => b.oldest_seconds - a.oldest_seconds || b.unconfirmed - a.unconfirmed)
    .slice(0, WORST)
    .map(({ address, key, state, accounts, spared, confirmed, oldest_seconds, last_error }) => ({
      name: address || key,
      state,
      accounts: accounts - spared,
      confirmed,
      oldest_seconds,
      last_error,
    }));
}

function pointBetween(before: StatusSample, now: StatusSample, seconds: number, time: number): Point {
  const rate = (from: number | undefined, to: number) =>
    Math.round((Math.max(0, to - (from ?? 0)) / seconds) * 100) / 100;
  const earlier = new Map(before.services.map((report) => [report.service, report]));
  const services = now.services.map((report): [string, ServicePoint] => {
    const was = earlier.get(report.service);
    const point: ServicePoint = {
      pushes: rate(was?.handed, report.handed),
      waiting: report.queued + report.in_flight,
      accepted: rate(was?.accepted, report.accepted),
      refused: rate(was?.refused, report.refused),
      gone: rate(was?.gone, report.gone),
      dropped: rate(was && total(was.dropped), total(report.dropped)),
      ...(report.latency && { latency: Math.round(report.latency.p95 * 100) / 100 }),
    };
    return [report.service, point];
  });
  return {
    time,
    needed: now.nodes - now.unneeded,
    connected: now.connected,
    fresh: now.fresh,
    stalest: Math.round(now.oldestSeconds),
    raw: rate(before.raw, now.raw),
    unique: rate(before.unique, now.unique),
    requests: {
      taken: rate(before.requests.taken, now.requests.taken),
      refused: rate(before.requests.refused, now.requests.refused),
      shed: rate(before.requests.shed, now.requests.shed),
    },
    ...(isOnTime(now.canary) && { canary: now.canary.lastSeconds }),
    services: Object.fromEntries(services),
  };
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** Serves a file beside this one, which is read once. */
function asset(file: string, type: string): () => RouteReply {
  const body = readFileSync(new URL(file, import.meta.url));
  return () => ({ type, body });
}
