import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { ConnectionLimit } from '../../src/connection-limit.ts';
import { jsonAnswer } from '../../src/web/answer.ts';
import type { Hivemind } from '../../src/web/hivemind.ts';
import { webMetrics } from '../../src/web/metrics.ts';

/** Metrics of a front-end whose hivemind is as given, and what they show of a name. */
function world(given: Partial<Pick<Hivemind, 'connected' | 'inFlight' | 'missing'>> = {}) {
  const registry = new Registry();
  const hivemind: Hivemind = {
    ask: async () => ({ kind: 'away' }),
    connected: false,
    problem: undefined,
    missing: [],
    inFlight: 0,
    close: async () => undefined,
    ...given,
  };
  const shown = async (name: string) => {
    const text = await registry.getSingleMetricAsString(name);
    return text.split('\n').filter((line) => line.startsWith(name));
  };
  return { metrics: webMetrics(registry, hivemind), shown };
}

test('requests are counted by way, route and status, and their time by route', async () => {
  const { metrics, shown } = world();
  metrics.request('plain', '/subscribe', jsonAnswer(200, ''), 0.3);
  metrics.request('plain', '/subscribe', jsonAnswer(200, ''), 0.3);
  metrics.request('onion', '/unsubscribe', jsonAnswer(503, ''), 21);
  metrics.request('curve', '/elsewhere', jsonAnswer(404, ''), 0.001);
  assert.deepEqual(await shown('spns_web_requests_total'), [
    'spns_web_requests_total{via="plain",route="subscribe",status="200"} 2',
    'spns_web_requests_total{via="onion",route="unsubscribe",status="503"} 1',
    'spns_web_requests_total{via="curve",route="other",status="404"} 1',
  ]);
  const seconds = await shown('spns_web_request_duration_seconds');
  assert.deepEqual(
    seconds.filter((line) => line.includes('"subscribe"')),
    [
      ...[0.005, 0.01, 0.025, 0.05, 0.1, 0.25].map((le) => [le, 0]),
      ...[0.5, 1, 2.5, 5, 10, 20, '+Inf'].map((le) => [le, 2]),
    ]
      .map(([le, count]) => `spns_web_request_duration_seconds_bucket{le="${le}",route="subscribe"} ${count}`)
      .concat([
        'spns_web_request_duration_seconds_sum{route="subscribe"} 0.6',
        'spns_web_request_duration_seconds_count{route="subscribe"} 2',
      ]),
  );
});

test('each reason for which an onion request fails is shown from the start', async () => {
  const { metrics, shown } = world();
  const failures = (busy: number) =>
    ['undecryptable', 'malformed', 'busy'].map(
      (reason) => `spns_web_onion_failures_total{reason="${reason}"} ${reason === 'busy' ? busy : 0}`,
    );
  assert.deepEqual(await shown('spns_web_onion_failures_total'), failures(0));
  metrics.onionFailure('busy');
  assert.deepEqual(await shown('spns_web_onion_failures_total'), failures(1));
});

test('the connection to the hivemind is shown: whether there is one, how many are missing and how much waits', async () => {
  const away = world({ missing: [{ name: 'b', problem: undefined }] });
  const there = world({ connected: true, inFlight: 7 });
  const figures = ({ shown }: typeof away) =>
    Promise.all(
      ['spns_web_hivemind_connected', 'spns_web_hiveminds_missing', 'spns_web_in_flight_requests'].map(
        async (name) => (await shown(name))[0]?.split(' ')[1],
      ),
    );
  assert.deepEqual(await figures(away), ['0', '1', '0']);
  assert.deepEqual(await figures(there), ['1', '0', '7']);
});

test('the connections of each listener are shown, with what they hold and how many had to go', async () => {
  const { metrics, shown } = world();
  const connection = () => ({ network: 'a', lastActive: 0, bytes: 0, busy: false, close: () => {} });
  const [http, curve] = [1, 5].map((maxConnections) => new ConnectionLimit({ maxConnections, maxBytes: 1_000 }));
  metrics.watch('http', http!);
  metrics.watch('curve', curve!);
  const first = connection();
  http!.admit(first);
  http!.hold(first, 77);
  curve!.admit(connection());
  curve!.admit(connection());
  const figures = async () => {
    const names = ['spns_web_connections', 'spns_web_unfinished_request_bytes', 'spns_web_crowded_out_total'];
    return (await Promise.all(names.map(shown))).map((lines) => lines.map((line) => line.replace(/^\w+/, '')));
  };
  const each = (a: number, b: number) => [`{listener="http"} ${a}`, `{listener="curve"} ${b}`];
  assert.deepEqual(await figures(), [each(1, 2), each(77, 0), each(0, 0)]);
  first.busy = true;
  http!.admit(connection());
  http!.admit(connection());
  const before = await figures();
  assert.deepEqual(before[2], each(2, 0));
  assert.deepEqual(await figures(), before, 'looking changes nothing');
});
