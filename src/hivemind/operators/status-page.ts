import { readFileSync } from 'node:fs';
import type { Clock } from '../../clock.ts';
import type { RouteReply, Routes } from '../../daemon/metrics.ts';
import type { StatusSample } from './report.ts';

/** The status page at the metrics address. */
export interface StatusPage {
  readonly routes: Routes;
  stop(): void;
}

/** Something that an operator should look at. */
export interface Problem {
  /** `bad`: phones do not ring, or soon will not. `odd`: look at it when you have the time. */
  readonly level: 'bad' | 'odd';
  readonly text: string;
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
/** A push that is older than this, in seconds, says that its notifier or provider does not keep up. */
const LATE_SECONDS = 60;

/**
 * The status page for the hivemind's metrics address: a page, its script and style, and `/status.json`, which they
 * read. The last hour is kept here, one point each 10 s, so that the plots are there at once when the page is opened.
 */
export function statusPage(sample: () => StatusSample, clock: Clock): StatusPage {
  const startedAt = clock.now();
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
          problems: problemsOf(current),
          points: points.filter((point) => !(point.time <= after)),
        };
        return { type: 'application/json; charset=utf-8', body: JSON.stringify(body) };
      },
    },
    stop: () => timer.cancel(),
  };
}

/** What in a sample an operator should look at, the worst first. */
export function problemsOf({ complaints, services, uncovered, nodes, fresh }: StatusSample): Problem[] {
  const problems: Problem[] = complaints.map((text) => ({ level: 'bad', text }));
  const bad = (text: string) => problems.push({ level: 'bad', text });
  const odd = (text: string) => problems.push({ level: 'odd', text });
  if (nodes > 0 && fresh === 0) bad('No storage server has confirmed all its accounts lately: phones may not ring.');
  if (uncovered > 0)
    bad(`${counted(uncovered, 'account is', 'accounts are')} confirmed by no storage server of its swarm.`);
  for (const { service, notifiers, subscriptions, queued, oldest_seconds: oldest, breaker_open: breaker } of services) {
    if (notifiers === 0 && (subscriptions > 0 || queued > 0)) {
      bad(`${service}: no notifier is connected; ${counted(queued, 'push waits', 'pushes wait')}.`);
    } else if (oldest > LATE_SECONDS) {
      odd(`${service}: the oldest push waits for ${Math.round(oldest)} s.`);
    }
    if (breaker)
      bad(`${service}: the provider calls so many devices gone that none is removed: check its credentials.`);
  }
  if (nodes > 0 && fresh > 0 && fresh < nodes * 0.9) odd(`Only ${fresh} of ${nodes} storage servers are fresh.`);
  return problems.sort((a, b) => Number(a.level === 'odd') - Number(b.level === 'odd'));
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
    services: Object.fromEntries(services),
  };
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function counted(count: number, one: string, many: string): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

/** A file beside this one, read once. */
function asset(file: string, type: string): () => RouteReply {
  const body = readFileSync(new URL(file, import.meta.url));
  return () => ({ type, body });
}
