// The status page: reads /status.json every 10 s and draws it. No library, no build step, nothing from elsewhere.

const HOUR = 3_600_000;
/** The plots show at least this much time, in ms, even if the hivemind has just started. */
const SHORTEST = 300_000;
/** Possible distances of the marks on the time axis, in ms. */
const TICKS = [60_000, 120_000, 300_000, 900_000];
const POLL_MS = 10_000;
const SVG = 'http://www.w3.org/2000/svg';
const LINES = 6;

/** Points of the last hour, oldest first, as /status.json gives them. */
let points = [];
/** The last answer, and when it came (monotonic ms). */
let latest;
let answeredAt = 0;
/** Whether the last request failed. */
let refused = false;
/** The time at the pointer, shown on all plots; undefined if there is none: then now is shown. */
let pointed;

const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

function rate(value) {
  return value >= 10 || value === 0 ? whole.format(Math.round(value)) : value.toFixed(value < 1 ? 2 : 1);
}

/** Formats a count, and keeps one that has grown for years short. */
function count(value) {
  return value >= 1_000_000 ? short.format(value) : whole.format(value);
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** How much time the plots show, in ms: all that there are points for, up to an hour. */
function shownTime() {
  const first = points[0]?.time ?? latest.time;
  // Points are dropped at an hour, so a full hour is never quite reached.
  const shown = Math.max(SHORTEST, latest.time - first);
  return shown > HOUR - 2 * latest.interval ? HOUR : shown;
}

/** Like {@link duration} but not rounded, for the marks of an axis. */
function exactDuration(seconds) {
  const [value, unit] = seconds < 90 ? [seconds, 's'] : seconds < 5400 ? [seconds / 60, 'min'] : [seconds / 3600, 'h'];
  return `${Number(value.toFixed(2))} ${unit}`;
}

function latencyOf(seconds) {
  return seconds < 10 ? `${Number(seconds.toPrecision(2))} s` : duration(seconds);
}

function clockTime(time) {
  return new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** The services that wake phones; the canary has a tile and a plot of its own. */
function phoneServices() {
  return latest.current.services.filter(({ service }) => service !== 'canary');
}

/** The plots: titles, lines and how to read them from a point, and how to format a value. */
function plotList() {
  const names = phoneServices().map(({ service }) => service);
  const canary = {
    title: 'Canary',
    unit: 'from a message of its own to its push',
    lines: [{ name: 'rang after', read: (point) => point.canary }],
    format: latencyOf,
  };
  const service = (name, key) => (point) => point.services[name]?.[key];
  const all = (key) => (point) => sum(Object.values(point.services).map((each) => each[key]));
  return [
    {
      title: 'Storage servers',
      lines: [
        { name: 'fresh', read: (point) => point.fresh },
        { name: 'connected', read: (point) => point.connected },
        { name: 'needed', read: (point) => point.needed },
      ],
      format: whole.format,
    },
    {
      title: 'Stalest confirmation',
      unit: 'how long ago',
      lines: [{ name: 'of any account', read: (point) => point.stalest }],
      format: duration,
    },
    {
      title: 'Messages',
      unit: 'a second',
      lines: [
        { name: 'messages', read: (point) => point.unique },
        { name: 'with all copies', read: (point) => point.raw },
      ],
      format: rate,
    },
    {
      title: "Clients' requests",
      unit: 'a second',
      lines: [
        { name: 'taken', read: (point) => point.requests.taken },
        { name: 'refused', read: (point) => point.requests.refused },
        { name: 'told to retry', read: (point) => point.requests.shed },
      ],
      format: rate,
    },
    {
      title: 'Pushes handed to notifiers',
      unit: 'a second',
      lines: names.map((name) => ({ name, read: service(name, 'pushes') })),
      format: rate,
    },
    {
      title: 'Stored to accepted',
      unit: '95 of 100 within',
      lines: names.map((name) => ({ name, read: service(name, 'latency') })),
      format: latencyOf,
    },
    {
      title: 'Pushes waiting',
      unit: 'in the queue and at notifiers',
      lines: names.map((name) => ({ name, read: service(name, 'waiting') })),
      format: whole.format,
    },
    {
      title: 'Not accepted by a provider',
      unit: 'a second',
      lines: [
        { name: 'refused', read: all('refused') },
        { name: 'device gone', read: all('gone') },
        { name: 'dropped by us', read: all('dropped') },
      ],
      format: rate,
    },
    ...(latest.current.canary ? [canary] : []),
  ];
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A round number of at least `value`, so that the axis has readable marks. */
function ceiling(value, format) {
  // Durations are rounded to minutes and hours, everything else to powers of ten.
  if (format === duration || (format === latencyOf && value > 10))
    return (
      [30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 43_200, 86_400].find((each) => each >= value) ?? value
    );
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= value * 0.999);
}

/** Formats a mark of an axis, short enough to fit beside the plot. */
function mark(value, format) {
  if (format === duration || format === latencyOf) return exactDuration(value);
  return value >= 1000 ? short.format(value) : String(Number(value.toPrecision(2)));
}

/** The point whose values the legends show: the one at the pointer, or the last. */
function shownPoint() {
  if (pointed === undefined) return points.at(-1);
  return points.reduce(
    (best, point) => (Math.abs(point.time - pointed) < Math.abs(best.time - pointed) ? point : best),
    points[0],
  );
}

function drawPlot({ title, unit, lines, format }, figure) {
  const shown = shownPoint();
  const values = lines.map(({ read }) => shown && read(shown));
  const words = lines.map(({ name }, index) => `${name} ${values[index] === undefined ? '–' : format(values[index])}`);
  const legend = lines.map(({ name }, index) =>
    element(
      'li',
      {},
      shape(
        'svg',
        { viewBox: '0 0 28 10', 'aria-hidden': 'true' },
        shape('line', { x1: 1, y1: 5, x2: 27, y2: 5, class: `line line-${index % LINES}` }),
      ),
      `${name} `,
      element('b', {}, values[index] === undefined ? '–' : format(values[index])),
    ),
  );
  const heading = element('h2', {}, title);
  if (unit) heading.append(element('span', { class: 'unit' }, ` ${unit}`));

  const width = Math.max(200, figure.clientWidth - 24);
  const height = 160;
  const left = 44;
  const right = width - 8;
  const top = 16;
  const bottom = height - 20;
  const until = latest.time;
  const shownMs = shownTime();
  const highest = Math.max(0, ...lines.flatMap(({ read }) => points.map((point) => read(point) ?? 0)));
  const limit = ceiling(highest, format);
  const x = (time) => right - ((until - time) / shownMs) * (right - left);
  const y = (value) => bottom - (value / limit) * (bottom - top);

  const svg = shape('svg', {
    class: 'plot',
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': `${title}, the last ${shownMs === HOUR ? 'hour' : duration(shownMs / 1000)}; ${pointed === undefined ? 'now' : 'then'}: ${words.join(', ') || 'no service'}`,
  });
  for (const share of [0, 0.5, 1]) {
    const at = y(limit * share);
    svg.append(shape('line', { class: 'grid', x1: left, x2: right, y1: at, y2: at }));
    svg.append(shape('text', { x: left - 6, y: at + 4, 'text-anchor': 'end' }, mark(limit * share, format)));
  }
  const tick = TICKS.find((each) => shownMs / each <= 5) ?? TICKS.at(-1);
  for (let time = Math.ceil((until - shownMs) / tick) * tick; time <= until; time += tick) {
    svg.append(shape('line', { class: 'grid', x1: x(time), x2: x(time), y1: top, y2: bottom }));
    const anchor = x(time) > right - 16 ? 'end' : x(time) < left + 16 ? 'start' : 'middle';
    svg.append(shape('text', { x: x(time), y: height - 5, 'text-anchor': anchor }, clockTime(time)));
  }
  // In reverse, so that the first line is on top.
  for (const [index, { read }] of [...lines.entries()].reverse()) {
    svg.append(shape('path', { class: `line line-${index % LINES}`, d: path(read, x, y) }));
  }
  if (pointed !== undefined && shown) {
    const at = x(shown.time);
    const beside = at > (left + right) / 2 ? { x: at - 4, 'text-anchor': 'end' } : { x: at + 4 };
    svg.append(shape('line', { class: 'cursor', x1: at, x2: at, y1: top, y2: bottom }));
    svg.append(shape('text', { class: 'then', y: top - 5, ...beside }, clockTime(shown.time)));
  }
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    if (points.length === 0) return;
    pointed = until - ((right - at) / (right - left)) * shownMs;
    drawPlots();
  });
  figure.replaceChildren(element('figcaption', {}, heading, element('ul', { class: 'legend' }, ...legend)), svg);
}

/** A line through the points, with gaps where points are missing. */
function path(read, x, y) {
  let drawn = '';
  let last;
  for (const point of points) {
    const value = read(point);
    if (value === undefined) {
      last = undefined;
      continue;
    }
    const gap = last === undefined || point.time - last > 3 * latest.interval;
    // A line of no length shows as a dot, so that a single point can be seen.
    drawn += gap
      ? `M${x(point.time).toFixed(1)} ${y(value).toFixed(1)}h0`
      : `L${x(point.time).toFixed(1)} ${y(value).toFixed(1)}`;
    last = point.time;
  }
  return drawn;
}

function drawPlots() {
  const container = document.getElementById('plots');
  const list = plotList();
  while (container.children.length < list.length) container.append(element('figure'));
  while (container.children.length > list.length) container.lastChild.remove();
  for (const [index, plot] of list.entries()) drawPlot(plot, container.children[index]);
}

function drawState() {
  const state = document.getElementById('state');
  const silent = performance.now() - answeredAt;
  const dead = latest === undefined || refused || silent > 2 * POLL_MS;
  const has = (wanted) => latest.problems.some(({ level }) => level === wanted);
  let [words, look] = ['● all well', 'good'];
  if (dead) [words, look] = ['■ no answer', 'bad'];
  else if (has('bad')) [words, look] = ['■ trouble', 'bad'];
  else if (has('starting')) [words, look] = ['◌ starting', 'odd'];
  else if (latest.problems.length > 0) [words, look] = ['▲ look at this', 'odd'];
  // Written only when it changes, because a screen reader reads it out.
  if (state.textContent !== words) {
    state.textContent = words;
    document.title = `${words} – SPNS${latest ? ` on ${latest.host}` : ''}`;
  }
  state.className = `state ${look}`;
  if (latest === undefined) return;
  document.getElementById('host').textContent = `on ${latest.host}`;
  const updated = `version ${latest.version}, up ${duration((latest.time - latest.startedAt) / 1000)}, block ${whole.format(latest.current.blockHeight)}, ${whole.format(latest.current.swarms)} swarms`;
  document.getElementById('updated').textContent = dead
    ? `${updated}; no answer for ${duration(silent / 1000)}`
    : updated;
}

/** How a problem looks. A start passes by itself, so it looks no worse than odd. */
function lookOf(level) {
  return level === 'bad' ? 'bad' : 'odd';
}

function drawProblems() {
  const heads = { bad: '■ Trouble:', starting: '◌ Starting:', odd: '▲ Look at this:' };
  const items = latest.problems.map(({ level, text, advice }) =>
    element(
      'li',
      { class: lookOf(level) },
      element('b', {}, heads[level]),
      element('span', {}, text),
      ...(advice ? [element('span', { class: 'advice' }, advice)] : []),
    ),
  );
  document.getElementById('problems').replaceChildren(...items);
}

function drawTiles() {
  const { current } = latest;
  const last = points.at(-1);
  const ofServices = (read) => sum(current.services.map(read));
  const ofLast = (key) => (last ? rate(sum(Object.values(last.services).map((each) => each[key]))) : '–');
  const slowest = phoneServices()
    .filter(({ latency }) => latency)
    .sort((a, b) => b.latency.p95 - a.latency.p95)[0];
  const perMinute = (key) => (last ? rate(last.requests[key] * 60) : '–');
  const tiles = [
    ...canaryTile(current.canary),
    ...hivemindsTile(current.cluster),
    [
      'fresh',
      'Storage servers fresh',
      whole.format(current.fresh),
      `of ${whole.format(current.nodes - current.unneeded)}; ${whole.format(current.connected)} connected`,
    ],
    [
      'stalest',
      'Stalest confirmation',
      duration(current.oldestSeconds),
      `${whole.format(current.uncovered)} accounts uncovered`,
    ],
    [
      '',
      'Messages a second',
      last ? rate(last.unique) : '–',
      last ? `${rate(last.raw)} with all copies` : 'in a few seconds',
    ],
    ['', 'Pushes a second', ofLast('pushes'), `${ofLast('accepted')} accepted by providers`],
    [
      'latency',
      'Stored to accepted',
      slowest ? latencyOf(slowest.latency.median) : '–',
      slowest ? `95 of 100 within ${latencyOf(slowest.latency.p95)} (${slowest.service})` : 'nothing lately',
    ],
    [
      'waiting',
      'Pushes waiting',
      whole.format(ofServices(({ queued }) => queued)),
      `${whole.format(ofServices(({ in_flight: given }) => given))} at notifiers`,
    ],
    [
      '',
      "Clients' requests a minute",
      perMinute('taken'),
      `${perMinute('refused')} refused, ${perMinute('shed')} told to retry`,
    ],
    [
      '',
      'Accounts',
      whole.format(current.accounts),
      `${whole.format(ofServices(({ subscriptions }) => subscriptions))} devices`,
    ],
  ];
  document.getElementById('tiles').replaceChildren(
    ...tiles.map(([key, name, value, more]) => {
      const problem = key && latest.problems.find(({ tile }) => tile === key);
      const mark = problem ? [element('span', { class: 'mark' }, problem.level === 'bad' ? '■ ' : '▲ ')] : [];
      return element(
        'div',
        problem ? { class: lookOf(problem.level) } : {},
        element('dt', {}, ...mark, name),
        element('dd', {}, value),
        element('dd', { class: 'quiet' }, more),
      );
    }),
  );
}

/** The canary's tile, if there is a canary. */
function canaryTile(canary) {
  if (!canary) return [];
  const value = canary.lastSeconds === null ? '–' : latencyOf(canary.lastSeconds);
  return [['canary', 'Canary rang after', value, `${duration(canary.silentSeconds)} ago; ${count(canary.lost)} lost`]];
}

/** The tile of several hiveminds, if there are several. */
function hivemindsTile(cluster) {
  if (!cluster) return [];
  const known = cluster.members.filter(({ state }) => state !== 'stopped');
  const living = known.filter(({ state }) => state !== 'dead').length;
  const { full, fewer, none } = cluster.coverage;
  const covered = fewer + none === 0 ? `all of ${full} slots` : `${full} of ${full + fewer + none} slots`;
  const times = cluster.copies === 1 ? '' : ` ${cluster.copies} times`;
  return [['hiveminds', 'Hiveminds alive', `${living} of ${known.length}`, `${covered} covered${times}`]];
}

function drawMembers() {
  const { cluster } = latest.current;
  document.getElementById('members-section').hidden = !cluster;
  if (!cluster) return;
  const heads = ['hivemind', 'state', 'version', 'up', 'covers', 'sends', 'reached at'];
  const head = element('tr', {}, ...heads.map((name) => element('th', { scope: 'col' }, name)));
  const rows = cluster.members.map(({ name, state, version, started, covers, first, address }) => {
    const isUp = state !== 'dead' && state !== 'stopped';
    const up = isUp ? duration(latest.time / 1000 - started) : '–';
    const cells = [state, version, up, count(covers), count(first), address];
    return element(
      'tr',
      {},
      element('th', { scope: 'row' }, name === cluster.own ? `${name} (this one)` : name),
      ...cells.map((cell) => element('td', {}, String(cell))),
    );
  });
  document.getElementById('members').replaceChildren(element('thead', {}, head), element('tbody', {}, ...rows));
}

/** Draws a column for each service: there are few, so the table fits on a phone. */
function drawServices() {
  const { services } = latest.current;
  const rows = [
    ['notifiers', (service) => service.notifiers],
    ['devices', (service) => service.subscriptions],
    ['waiting', (service) => service.queued],
    ['at notifiers', (service) => service.in_flight],
    ['oldest', (service) => (service.oldest_seconds > 0 ? duration(service.oldest_seconds) : '–')],
    ['latency', ({ latency }) => (latency ? latencyOf(latency.median) : '–')],
    ['95 of 100 within', ({ latency }) => (latency ? latencyOf(latency.p95) : '–')],
    ['provider', ({ provider }) => (provider ? latencyOf(provider.median) : '–')],
    ['credential', ({ credential_expires: expires }) => (expires === null ? '–' : timeLeft(expires))],
    ['accepted', (service) => service.accepted],
    ['refused', (service) => service.refused],
    ['device gone', (service) => service.gone],
    ['dropped', (service) => sum(Object.values(service.dropped))],
    ['removal', (service) => (service.breaker_open ? '■ stopped' : 'on')],
  ];
  const head = element(
    'tr',
    {},
    element('td'),
    ...services.map(({ service }) => element('th', { scope: 'col' }, service)),
  );
  const body = rows.map(([name, read]) => {
    const cells = services
      .map(read)
      .map((value) => element('td', {}, typeof value === 'number' ? count(value) : value));
    return element('tr', {}, element('th', { scope: 'row' }, name), ...cells);
  });
  document.getElementById('services').replaceChildren(element('thead', {}, head), element('tbody', {}, ...body));
}

/** @param expires unix seconds */
function timeLeft(expires) {
  const left = expires - latest.time / 1000;
  return left < 0 ? '■ expired' : duration(left);
}

function drawWorst() {
  const { worst } = latest;
  document.getElementById('worst-section').hidden = worst.length === 0;
  const heads = ['address', 'state', 'confirmed', 'oldest', 'last error'];
  const head = element('tr', {}, ...heads.map((name) => element('th', { scope: 'col' }, name)));
  const rows = worst.map(({ name, state, accounts, confirmed, oldest_seconds: oldest, last_error: error }) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, name.replace('tcp://', '')),
      element('td', {}, state),
      element('td', {}, `${count(confirmed)} of ${count(accounts)}`),
      element('td', {}, accounts > 0 ? duration(oldest) : '–'),
      element('td', {}, error || '–'),
    ),
  );
  document.getElementById('worst').replaceChildren(element('thead', {}, head), element('tbody', {}, ...rows));
}

function draw() {
  drawState();
  drawProblems();
  drawTiles();
  drawPlots();
  drawWorst();
  drawMembers();
  drawServices();
}

async function poll() {
  try {
    const after = points.at(-1)?.time ?? 0;
    const response = await fetch(`status.json?after=${after}`, { signal: AbortSignal.timeout(POLL_MS) });
    const answer = await response.json();
    // After a restart the hivemind counts from zero; points from before it stay in the plots.
    points = [...points, ...answer.points].filter((point) => point.time > answer.time - HOUR);
    latest = answer;
    answeredAt = performance.now();
    refused = false;
    draw();
  } catch {
    refused = true;
    drawState();
  }
}

document.getElementById('plots').addEventListener('pointerleave', () => {
  pointed = undefined;
  if (latest) drawPlots();
});
addEventListener('resize', () => latest && drawPlots());
// A sleeping phone stops the timer: poll as soon as the page is visible again.
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && poll());
setInterval(poll, POLL_MS);
await poll();
document.documentElement.dataset.drawn = 'yes';
