import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { serveMetrics } from '../../../src/daemon/metrics.ts';
import type { NodeReport } from '../../../src/hivemind/network/node.ts';
import type { StatusSample } from '../../../src/hivemind/operators/report.ts';
import { statusPage } from '../../../src/hivemind/operators/status-page.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { noChromium, type Page, startChromium } from './chromium.ts';
import { report, sampleWith } from './samples.ts';

interface StatusJson {
  time: number;
  points: {
    time: number;
    raw: number;
    fresh: number;
    needed: number;
    services: Record<string, { pushes: number; waiting: number; dropped: number }>;
  }[];
  problems: unknown[];
  current: StatusSample;
}

/** A page of a machine of that name. */
function pageOf(sample: () => StatusSample, clock: FakeClock, nodes: readonly NodeReport[] = []) {
  return statusPage({ sample, nodes: () => nodes, host: 'push-1', version: '9.8.7', clock });
}

async function ask(page: ReturnType<typeof statusPage>, query = ''): Promise<StatusJson> {
  const reply = await page.routes['/status.json']!(new URL(`http://localhost/status.json${query}`));
  return JSON.parse(String(reply.body)) as StatusJson;
}

test('a point every 10 s holds the rates since the previous one, and the gauges of its moment', async () => {
  const clock = new FakeClock();
  let sample = sampleWith();
  const page = pageOf(() => sample, clock);
  sample = sampleWith({
    raw: 500,
    fresh: 7,
    unneeded: 1_400,
    services: [
      report('apns', {
        handed: 40,
        queued: 3,
        in_flight: 2,
        dropped: { overflow: 1, expired: 4 },
        latency: { median: 0.3, p95: 1.2345 },
      }),
      report('new', { handed: 10 }),
    ],
  });
  await clock.advance(10_000);
  const { points } = await ask(page);
  assert.equal(points.length, 1);
  assert.equal(points[0]!.time, clock.now());
  assert.equal(points[0]!.raw, 50);
  assert.deepEqual([points[0]!.fresh, points[0]!.needed], [7, 600]);
  assert.deepEqual(points[0]!.services.apns, {
    pushes: 4,
    waiting: 5,
    accepted: 0,
    refused: 0,
    gone: 0,
    dropped: 0.5,
    latency: 1.23,
  });
  assert.equal(points[0]!.services.new!.pushes, 1);
  page.stop();
  assert.equal(clock.pending, 0);
});

test('no more than an hour of points is kept, and a page that already has some gets only the newer ones', async () => {
  const clock = new FakeClock();
  const page = pageOf(() => sampleWith(), clock);
  await clock.advance(5 * 3_600_000);
  const { points, time } = await ask(page);
  assert.equal(points.length, 360);
  assert.equal(points.at(-1)!.time, time);
  assert.ok(points[0]!.time > time - 3_600_000);
  assert.equal((await ask(page, `?after=${time - 10_000}`)).points.length, 1);
  assert.equal((await ask(page, `?after=${time}`)).points.length, 0);
  assert.equal((await ask(page, '?after=nonsense')).points.length, 360);
  page.stop();
});

test('a service named like a property that every object has is a service', async () => {
  const clock = new FakeClock();
  const page = pageOf(() => sampleWith({ services: [report('__proto__'), report('constructor')] }), clock);
  await clock.advance(10_000);
  assert.deepEqual(Object.keys((await ask(page)).points[0]!.services), ['__proto__', 'constructor']);
  page.stop();
});

/** A busy hour with one bad quarter: firebase's notifier goes away, and its pushes pile up. */
function story(clock: FakeClock): () => StatusSample {
  const start = clock.monotonic();
  const counts = { raw: 0, unique: 0, apns: 0, firebase: 0, refused: 0, dropped: 0 };
  let last = start;
  let trouble: Partial<StatusSample> = {};
  return () => {
    const now = clock.monotonic();
    const seconds = (now - last) / 1000;
    const minute = (now - start) / 60_000;
    last = now;
    const busy = 120 + 40 * Math.sin(minute / 8) + 12 * Math.sin(minute * 2.3);
    counts.unique += busy * seconds;
    counts.raw += busy * 5 * seconds;
    counts.apns += busy * 0.7 * seconds;
    const away = minute > 30 && minute < 42;
    if (!away) counts.firebase += busy * 0.5 * seconds;
    counts.refused += 0.4 * seconds;
    if (away) counts.dropped += 2 * seconds;
    const fresh = Math.round(1_990 - (minute > 15 && minute < 22 ? 600 : 0) + 5 * Math.sin(minute));
    if (minute > 60) trouble = { uncovered: 0 };
    return sampleWith({
      raw: counts.raw,
      unique: counts.unique,
      requests: { taken: counts.unique / 20, refused: counts.refused, shed: 0 },
      canary: { isRunning: true, lastSeconds: 0.42, silentSeconds: 20, delivered: 60, lost: 0, problem: '' },
      fresh,
      oldestSeconds: 3_000 + 300 * Math.sin(minute / 5),
      services: [
        report('apns', {
          provider: { median: 0.12, p95: 0.3 },
          credential_expires: Math.floor(clock.now() / 1000) + 40 * 86_400,
          handed: Math.round(counts.apns),
          accepted: Math.round(counts.apns),
          subscriptions: 61_000,
          in_flight: 40,
          refused: Math.round(counts.refused),
          latency: { median: 0.45, p95: 1.1 + 0.2 * Math.sin(minute) },
        }),
        report('firebase', {
          handed: Math.round(counts.firebase),
          accepted: Math.round(counts.firebase * 0.99),
          gone: Math.round(counts.firebase * 0.01),
          subscriptions: 42_000,
          queued: away ? Math.round((minute - 30) * 2_000) : 0,
          dropped: { overflow: Math.round(counts.dropped) },
          latency: { median: 0.6, p95: 1.6 + (minute > 40 && minute < 46 ? 500 : 0) },
        }),
        report('huawei', {
          notifiers: minute > 59 ? 0 : 1,
          subscriptions: 900,
          queued: minute > 59 ? 14 : 0,
          latency: { median: 0.3, p95: 0.9 },
        }),
      ],
      ...trouble,
    });
  };
}

const NODE: NodeReport = {
  address: 'tcp://198.51.100.7:22020',
  key: '0123456789ab',
  swarm: 'ff',
  state: 'up',
  connected_since: 1,
  accounts: 400,
  confirmed: 400,
  unconfirmed: 0,
  refused: 0,
  spared: 0,
  oldest_seconds: 600,
  in_flight: 0,
  failures: 0,
  last_error: '',
};
/** One that is well, one that others need, and six that need a look. */
const NODES: readonly NodeReport[] = [
  NODE,
  { ...NODE, address: 'tcp://198.51.100.8:22020', state: 'unneeded' },
  ...[1, 2, 3, 4, 5, 6].map(
    (number): NodeReport => ({
      ...NODE,
      address: `tcp://203.0.113.${number}:22020`,
      state: 'cooldown',
      confirmed: 0,
      unconfirmed: 300,
      spared: 100,
      oldest_seconds: 1_000 * number,
      last_error: 'no HELLO within 10000 ms: no connection could be made',
    }),
  ),
];

/** Serves a page over a whole told hour. */
async function serve(
  t: { after(fn: () => Promise<void>): void },
  sample?: () => StatusSample,
  hours = 1,
  nodes: readonly NodeReport[] = NODES,
): Promise<string> {
  const clock = new FakeClock();
  const page = pageOf(sample ?? story(clock), clock, nodes);
  await clock.advance(hours * 3_600_000);
  const ready = () => ({ ok: true, reasons: [] });
  const server = await serveMetrics({
    listen: '127.0.0.1:0',
    registry: new Registry(),
    ready,
    routes: () => page.routes,
  });
  t.after(async () => {
    page.stop();
    await server.close();
  });
  assert.ok('port' in server.address);
  return `http://127.0.0.1:${server.address.port}/`;
}

test('in a browser', { skip: noChromium }, async (t) => {
  const chromium = await startChromium();
  t.after(() => chromium.close());
  // The files are for whoever wants to look: SPNS_SCREENSHOTS=/some/folder.
  const picture = async (page: Page, name: string) => {
    const { data } = (await page.call('Page.captureScreenshot', { captureBeyondViewport: true })) as { data: string };
    if (process.env.SPNS_SCREENSHOTS)
      writeFileSync(join(process.env.SPNS_SCREENSHOTS, `${name}.png`), Buffer.from(data, 'base64'));
    return Buffer.from(data, 'base64');
  };
  const resize = (page: Page, width: number, height: number, scheme: string) =>
    Promise.all([
      page.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 }),
      page.call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] }),
    ]);
  const drawn = "document.documentElement.dataset.drawn === 'yes'";

  await t.test('the whole hour is plotted at once, from this server alone, without an error', async (t) => {
    const url = await serve(t);
    const page = await chromium.open(url);
    await page.until(drawn);
    assert.equal(await page.evaluate("document.querySelectorAll('figure').length"), 9);
    const corners = await page.evaluate<number[]>(
      "[...document.querySelectorAll('figure path')].map((path) => path.getAttribute('d').split('L').length)",
    );
    assert.deepEqual(corners, Array(22).fill(360));
    assert.deepEqual(page.errors, []);
    assert.ok(page.requests.length >= 4);
    for (const request of page.requests) assert.ok(request.startsWith(url) || request === 'data:,', request);
  });

  for (const [name, width, height] of [
    ['phone', 390, 844],
    ['small phone', 320, 568],
    ['desktop', 1440, 900],
  ] as const) {
    for (const scheme of ['light', 'dark']) {
      await t.test(`fits a ${name} in ${scheme}, and is legible`, async (t) => {
        const page = await chromium.open(await serve(t));
        await resize(page, width, height, scheme);
        await page.until(drawn);
        assert.ok(
          (await page.evaluate<number>('document.documentElement.scrollWidth')) <= width,
          'the page is wider than the screen',
        );
        assert.deepEqual(await page.evaluate(CONTRAST), []);
        // What matters most is seen without scrolling.
        assert.ok(
          await page.evaluate(`document.querySelector('#problems li').getBoundingClientRect().bottom < ${height}`),
        );
        const image = await picture(page, `${name.replace(' ', '-')}-${scheme}`);
        assert.equal(image.toString('latin1', 1, 4), 'PNG');
      });
    }
  }

  await t.test('problems are described in words, and each plot gives its figures to a screen reader', async (t) => {
    const page = await chromium.open(await serve(t));
    await page.until(drawn);
    assert.equal(await page.evaluate("document.querySelector('#state').textContent"), '■ trouble');
    assert.match(
      await page.evaluate("document.querySelector('#problems').textContent"),
      /Trouble:huawei: no notifier is connected; 14 pushes wait/,
    );
    assert.match(
      await page.evaluate("document.querySelector('#tiles').textContent"),
      /Storage servers fresh1,9\d\dof 2,000; 1,998 connected/,
    );
    const labels = await page.evaluate<string[]>(
      "[...document.querySelectorAll('figure > svg')].map((svg) => svg.getAttribute('aria-label'))",
    );
    assert.match(labels[0]!, /^Storage servers, the last hour; now: fresh 1,9\d\d, connected 1,998, needed 2,000$/);
    assert.match(labels[4]!, /apns \d+, firebase \d+, huawei 0/);
    assert.match(
      await page.evaluate("document.querySelector('#services').textContent"),
      /^apnsfirebasehuawei.*devices61,00042,000900waiting0014.*latency0\.45 s0\.6 s0\.3 s/,
    );
  });

  await t.test(
    'host and version, the canary, requests, providers and the worst storage servers are there',
    async (t) => {
      const page = await chromium.open(await serve(t));
      await page.until(drawn);
      const text = (id: string) => page.evaluate<string>(`document.querySelector('${id}').textContent`);
      assert.equal(await text('h1'), 'SPNS on push-1');
      assert.match(await text('#updated'), /^version 9\.8\.7, up 60 min, block 1,234,567/);
      assert.equal(await page.evaluate('document.title'), '■ trouble – SPNS on push-1');
      const tiles = await text('#tiles');
      assert.match(tiles, /Canary rang after0\.42 s20 s ago; 0 lost/);
      assert.match(tiles, /Stored to accepted0\.6 s95 of 100 within 1\.6 s \(firebase\)/);
      assert.match(tiles, /Clients' requests a minute\d+24 refused, 0 told to retry/);
      assert.match(await text('#services'), /provider0\.12 s––credential40 days––/);
      const worst = await page.evaluate<string[]>(
        "[...document.querySelectorAll('#worst tbody tr')].map((row) => row.textContent)",
      );
      assert.equal(worst.length, 5, 'the five stalest of six');
      assert.match(worst[0] ?? '', /^203\.0\.113\.6:22020cooldown0 of 3001\.7 hno HELLO within/);
      assert.ok(!worst.some((row) => /198\.51/.test(row)), 'neither one that is well nor one that others need');
    },
  );

  await t.test('without a canary and without bad storage servers neither is mentioned', async (t) => {
    const page = await chromium.open(await serve(t, () => sampleWith(), 0.1, [NODE]));
    await page.until(drawn);
    assert.doesNotMatch(await page.evaluate("document.querySelector('#tiles').textContent"), /Canary/);
    assert.equal(await page.evaluate("document.querySelector('#worst-section').offsetHeight"), 0);
    assert.equal(await page.evaluate("document.querySelectorAll('figure').length"), 8);
  });

  await t.test(
    'for one of several hiveminds it shows who lives, and what they cover and send; for one that is alone nothing',
    async (t) => {
      const member = (name: string, more: object) => ({
        name,
        run: '1',
        state: 'ready' as const,
        address: `ipc:///run/spns/${name}.sock`,
        version: '2.0.0',
        covers: 256,
        first: 128,
        started: 0,
        seen: 0,
        ...more,
      });
      const cluster = {
        own: 'a',
        copies: 2,
        coverage: { full: 250, fewer: 6, none: 0 },
        spared: 128,
        members: [member('a', {}), member('b', { covers: 250 }), member('c', { state: 'dead', covers: 0, first: 0 })],
      };
      const complaints = ['6 of 256 slots are covered by fewer than 2 hiveminds'];
      const page = await chromium.open(await serve(t, () => sampleWith({ cluster, complaints }), 10, [NODE]));
      await page.until(drawn);
      const tile = await page.evaluate<string>("document.querySelector('#tiles').textContent");
      assert.match(tile, /▲ Hiveminds alive2 of 3250 of 256 slots covered 2 times/);
      const rows = await page.evaluate<string[]>(
        "[...document.querySelectorAll('#members tbody tr')].map((row) => row.textContent)",
      );
      assert.match(rows[0] ?? '', /^a \(this one\)ready2\.0\.0.*256128ipc:\/\/\/run\/spns\/a\.sock$/);
      assert.match(rows[2] ?? '', /^cdead2\.0\.0–00ipc:\/\/\/run\/spns\/c\.sock$/);
      assert.match(
        await page.evaluate("document.querySelector('#problems').textContent"),
        /fewer than 2 hiveminds.*spns members/,
      );

      const uncovered = await chromium.open(
        await serve(
          t,
          () =>
            sampleWith({
              cluster: { ...cluster, coverage: { full: 250, fewer: 0, none: 6 } },
              complaints: ['6 of 256 slots are covered by no hivemind'],
            }),
          10,
          [NODE],
        ),
      );
      await uncovered.until(drawn);
      assert.match(await uncovered.evaluate("document.querySelector('#tiles .bad').textContent"), /^■ Hiveminds alive/);

      const alone = await chromium.open(await serve(t, () => sampleWith(), 0.1, [NODE]));
      await alone.until(drawn);
      assert.doesNotMatch(await alone.evaluate("document.querySelector('#tiles').textContent"), /Hiveminds/);
      assert.equal(await alone.evaluate("document.querySelector('#members-section').offsetHeight"), 0);
    },
  );

  await t.test("the canary's own service has no row among those of phones", async (t) => {
    const services = [
      report('apns', { latency: { median: 1, p95: 2 } }),
      report('canary', { latency: { median: 8, p95: 9 } }),
    ];
    const page = await chromium.open(await serve(t, () => sampleWith({ services }), 0.1));
    await page.until(drawn);
    const legend = (index: number) =>
      page.evaluate<string>(`document.querySelectorAll('.legend')[${index}].textContent`);
    for (const index of [4, 5, 6]) assert.match(await legend(index), /^apns /);
    for (const index of [4, 5, 6]) assert.doesNotMatch(await legend(index), /canary/);
    assert.match(await page.evaluate("document.querySelector('#tiles').textContent"), /95 of 100 within 2 s \(apns\)/);
    assert.match(await page.evaluate("document.querySelector('#services').textContent"), /^apnscanary/);
  });

  await t.test(
    'the tile to blame has the colour of its problem, and a mark for those who cannot see colours',
    async (t) => {
      const page = await chromium.open(await serve(t));
      await page.until(drawn);
      const [at, ...others] = await page.evaluate<string[]>(
        "[...document.querySelectorAll('#tiles .bad, #tiles .odd')].map((tile) => tile.className + ' ' + tile.textContent)",
      );
      assert.match(at ?? '', /^bad ■ Pushes waiting/);
      assert.deepEqual(others, []);
      const colour = (selector: string) =>
        page.evaluate<string>(`getComputedStyle(document.querySelector('${selector}')).color`);
      assert.equal(await colour('#tiles .bad dd'), await colour('#state'));
    },
  );

  await t.test('each problem says what to do', async (t) => {
    const page = await chromium.open(await serve(t));
    await page.until(drawn);
    assert.equal(
      await page.evaluate("document.querySelector('#problems .advice').textContent"),
      'systemctl status spns-notifier@huawei',
    );
  });

  await t.test('the plots of a young hivemind are as long as its life', async (t) => {
    const page = await chromium.open(await serve(t, () => sampleWith(), 0.2));
    await page.until(drawn);
    const label = await page.evaluate<string>("document.querySelector('figure > svg').getAttribute('aria-label')");
    assert.match(label, /^Storage servers, the last 12 min;/);
    const [first, last, box] = await page.evaluate<number[]>(
      "(() => { const svg = document.querySelector('figure > svg'); const path = svg.querySelector('path'); const end = path.getTotalLength(); return [path.getPointAtLength(0).x, path.getPointAtLength(end).x, svg.viewBox.baseVal.width]; })()",
    );
    assert.ok(first! < 50 && last! > box! - 10, `from ${first} to ${last} of ${box}`);
  });

  await t.test('marks of an axis stand where they say', async (t) => {
    const clock = { stalest: 290 };
    const page = await chromium.open(await serve(t, () => sampleWith({ oldestSeconds: clock.stalest }), 0.2));
    await page.until(drawn);
    const marks = await page.evaluate<string[]>(
      "[...document.querySelectorAll('figure')[1].querySelectorAll('text[text-anchor=end]')].slice(0, 3).map((text) => text.textContent)",
    );
    assert.deepEqual(marks, ['0 s', '2.5 min', '5 min']);
  });

  await t.test('during a start what is waited for is amber, and its problems are named', async (t) => {
    const page = await chromium.open(
      await serve(t, () => sampleWith({ fresh: 0, complaints: ['oxend: not connected yet'] }), 0.01),
    );
    await resize(page, 390, 844, 'light');
    await page.until(drawn);
    assert.equal(await page.evaluate("document.querySelector('#state').textContent"), '◌ starting');
    assert.equal(await page.evaluate("document.querySelector('#state').className"), 'state odd');
    assert.equal(await page.evaluate("document.querySelectorAll('#problems .bad, #tiles .bad').length"), 0);
    await picture(page, 'starting');
  });

  await t.test('a hivemind that has just started shows what it has, and says that the rest is coming', async (t) => {
    const page = await chromium.open(
      await serve(t, () => sampleWith({ services: [], nodes: 0, fresh: 0, connected: 0, blockHeight: -1 }), 0),
    );
    await page.until(drawn);
    assert.equal(await page.evaluate("document.querySelector('#state').textContent"), '● all well');
    assert.match(
      await page.evaluate("document.querySelector('#tiles').textContent"),
      /Messages a second–in a few seconds/,
    );
    assert.deepEqual(page.errors, []);
  });

  await t.test('names are shown as they are, never as markup', async (t) => {
    const page = await chromium.open(
      await serve(t, () => sampleWith({ services: [report('<img src=x onerror=alert(1)>', { notifiers: 0 })] }), 0.1),
    );
    await page.until(drawn);
    assert.equal(await page.evaluate("document.querySelectorAll('img').length"), 0);
    assert.match(await page.evaluate("document.querySelector('#services').textContent"), /<img src=x/);
  });

  await t.test(
    'when the hivemind is gone, the page says so at the next refused request and keeps what it had',
    async (t) => {
      const page = await chromium.open(await serve(t));
      await page.until(drawn);
      await page.call('Network.emulateNetworkConditions', {
        offline: true,
        latency: 0,
        downloadThroughput: 0,
        uploadThroughput: 0,
      });
      // One question that is not answered is enough.
      await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
      await page.until("document.querySelector('#state').textContent === '■ no answer'");
      assert.match(await page.evaluate("document.querySelector('#updated').textContent"), /no answer for \d+ s/);
      assert.equal(await page.evaluate("document.querySelectorAll('figure').length"), 9);
    },
  );

  await t.test('pointing at a plot shows the figures of that time in all of them', async (t) => {
    const page = await chromium.open(await serve(t));
    await resize(page, 1440, 900, 'light');
    await page.until(drawn);
    const at = await page.evaluate<{ x: number; y: number }>(
      "(() => { const plot = document.querySelectorAll('figure > svg')[6]; plot.scrollIntoView(); const box = plot.getBoundingClientRect(); return { x: box.left + box.width * 0.68, y: box.top + 40 }; })()",
    );
    await page.call('Input.dispatchMouseEvent', { type: 'mouseMoved', ...at });
    await page.until("document.querySelectorAll('.cursor').length === 9");
    const legend = await page.evaluate<string>("document.querySelectorAll('.legend')[6].textContent");
    assert.match(legend, /firebase \d\d,\d{3}/);
    await picture(page, 'pointing');
  });
});

/** Evaluated in the page: every piece of text whose contrast with its background is below 4.5 : 1 (WCAG AA). */
const CONTRAST = `(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = rgb(colour).slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return 'white';
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest('noscript')) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(colour), light(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(walker.currentNode.textContent);
  }
  return faint;
})()`;
