import { randomBytes } from 'node:crypto';
import { type BenchWorld, makeAccounts, measureCpu, percentile, round, subscribeRequest } from './world.ts';

const COUNT = 4_000;
const IN_FLIGHT = 64;

/** New subscriptions, then renewals of the same, with 64 requests in flight. */
export async function subscriptions(world: BenchWorld): Promise<object[]> {
  const accounts = makeAccounts(COUNT);
  const tokens = accounts.map(() => randomBytes(32).toString('hex'));
  const now = Math.floor(Date.now() / 1000);
  const rows: object[] = [];
  for (const [row, signedAt, word] of [
    ['new subscriptions', now - 10, '"added":true'],
    ['renewals', now, '"updated":true'],
  ] as const) {
    // Signed beforehand: that is the phones' work.
    const requests = accounts.map((account, index) => subscribeRequest(account, tokens[index] ?? '', signedAt));
    const latencies: number[] = [];
    const upstream = () => world.network.servers.reduce((sum, { server }) => sum + server.counters.accepted, 0);
    const upstreamBefore = upstream();
    const cpu = measureCpu(world);
    const start = performance.now();
    let next = 0;
    const client = async () => {
      for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
        const sent = performance.now();
        const [reply] = await world.client.request('push.subscribe', [request]);
        latencies.push(performance.now() - sent);
        if (!reply?.includes(word)) throw new Error(`unexpected reply: ${reply}`);
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, client));
    const seconds = (performance.now() - start) / 1000;
    const used = cpu();
    // What is asked of storage servers is gathered, and may come a moment later.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    rows.push({
      row,
      per_second: Math.round(COUNT / seconds),
      p50_ms: percentile(latencies, 0.5),
      p99_ms: percentile(latencies, 0.99),
      in_flight: IN_FLIGHT,
      seconds: round(seconds),
      monitors_asked_for: upstream() - upstreamBefore,
      cpu_seconds: used,
    });
  }
  return rows;
}
