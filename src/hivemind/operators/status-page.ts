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

/** One point of the plots: gauges as they were at `time`, rates a second since the point before. */
interface Point {
  /** Unix milliseconds. */
  readonly time: number;
  readonly nodes: number;
  readonly connected: number;
  readonly fresh: number;
  readonly stalest: number;
  readonly raw: number;
  readonly unique: number;
  readonly requests: Readonly<Record<keyof RequestCounts, number>>;
  /** How long the canary's latest push took, in seconds; not there while none comes. */
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
  /** Within which 95 of 100 pushes were accepted, seconds; not there if there were none lately. */
  readonly latency?: number;
}

const INTERVAL_MS = 10_000;
/** An hour of points. */
const POINTS = 360;
/** Storage servers that the page names: those that need a look most. */
const WORST = 5;
/** The canary writes each minute; a push of this many seconds ago is not the latest that should have come. */
const CANARY_DUE = 90;

/** What the status page is made with. */
export interface StatusPageOptions {
  readonly sample: () => StatusSample;
  /** Every storage server. */
  readonly nodes: () => readonly NodeReport[];
  /** The name of this machine, and the version of this program. */
  readonly host: string;
  readonly version: string;
  readonly clock: Clock;
}

/**
 * The status page for the hivemind's metrics address: a page, its script and style, and `/status.json`, which they
 * read. The last hour is kept here, one point each 10 s, so that the plots are there at once when the page is opened.
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

/** Whether a push of the canary's came about when one should. */
function rings(canary: CanaryReport | null): canary is CanaryReport & { readonly lastSeconds: number } {
  return canary !== null && canary.lastSeconds !== null && canary.silentSeconds < CANARY_DUE;
}

/** Those that phones may miss something because of, the stalest first. */
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
    nodes: now.nodes,
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
    ...(rings(now.canary) && { canary: now.canary.lastSeconds }),
    services: Object.fromEntries(services),
  };
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** A file beside this one, read once. */
function asset(file: string, type: string): () => RouteReply {
  const body = readFileSync(new URL(file, import.meta.url));
  return () => ({ type, body });
}
