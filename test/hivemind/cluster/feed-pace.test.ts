import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import type { Timer } from '../../../src/clock.ts';
import type { FeedModules } from '../../../src/hivemind/cluster/feed.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import type { Change } from '../../../src/hivemind/store/cluster-store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';
import { makeFeed } from './make-feed.ts';

type Page = { readonly changes: readonly Change[]; readonly more: boolean } | 'reload';

const NOTHING: Page = { changes: [], more: false };
const changes = (count: number): Change[] => Array.from({ length: count }, (_, n) => ({ id: `${n}` }));
const keyOf = ({ account, service, serviceId }: DeviceRow) => ({ account, service, serviceId });

/** A feed on a database that gives one page after another, then nothing more, and keeps what it was asked. */
function world(given: Partial<FeedModules> = {}) {
  const clock = new FakeClock();
  const pages: (Page | Error | Promise<Page>)[] = [];
  /** What is found for changes, and whether their rows can be read. */
  const rows: { found: readonly (ReturnType<typeof keyOf> & { row: DeviceRow | undefined })[]; broken: boolean } = {
    found: [],
    broken: false,
  };
  const asked: { reads: number; rows: number[]; trims: number; skips: number; watches: number } = {
    reads: 0,
    rows: [],
    trims: 0,
    skips: 0,
    watches: 0,
  };
  /** How often the trim has more to do, and whether it fails. */
  const trim = { more: 0, broken: false, note: () => {} };
  const log: string[] = [];
  const note = (text: string) => log.push(text);
  const devices = new Devices({ random: randomBytes });
  const feed = makeFeed({
    clock,
    devices,
    store: {
      load: () => Promise.reject(new Error('nothing is to be loaded')),
      watchWrites: () => {
        asked.watches++;
        return { has: () => false, end: () => asked.watches-- };
      },
    },
    cluster: {
      readChanges: async () => {
        asked.reads++;
        const page = (await pages.shift()) ?? NOTHING;
        if (page instanceof Error) throw page;
        return page;
      },
      readCurrent: async (some) => {
        if (rows.broken) throw new Error('the rows cannot be read');
        asked.rows.push(some.length);
        return [...rows.found];
      },
      skip: () => {
        asked.skips++;
      },
      trim: async () => {
        asked.trims++;
        trim.note();
        if (trim.broken) throw new Error('the trim failed');
        return trim.more-- > 0;
      },
    },
    log: { debug: note, info: note, warn: note },
    ...given,
  });
  return { clock, pages, rows, asked, trim, log, devices, feed };
}

/** Notes what is done, and that other work was done in between. */
function witness() {
  const events: string[] = [];
  return {
    events,
    note(name: string) {
      events.push(name);
      setImmediate(() => events.push('other work'));
    },
  };
}

describe('the pace of the feed', () => {
  it('is a read every 75 ms, and at a hint at once, unless the last began less than 20 ms ago', async () => {
    const { clock, asked, feed } = world();
    feed.start();
    assert.equal(feed.counters.reads, 0);
    feed.hint();
    await clock.advance(0);
    assert.equal(asked.reads, 1);
    feed.hint();
    await clock.advance(19);
    assert.equal(asked.reads, 1);
    await clock.advance(1);
    assert.equal(asked.reads, 2);
    await clock.advance(54);
    assert.equal(asked.reads, 2);
    await clock.advance(1);
    assert.equal(asked.reads, 3);
    assert.equal(feed.counters.reads, 3);
    await feed.stop();
    await clock.advance(1_000);
    assert.equal(asked.reads, 3);
  });

  it('reads rows 250 at a time, and all of them before it asks for more changes', async () => {
    const { clock, pages, asked, feed } = world();
    pages.push({ changes: changes(600), more: false });
    feed.start();
    await clock.advance(75);
    assert.deepEqual([asked.rows, asked.reads, feed.pending], [[250, 250, 100], 1, 0]);
    await feed.stop();
  });

  it('learns of no more changes while the rows of 250 cannot be read, and is behind until it has asked again', async () => {
    for (const [count, reads] of [
      [249, 3],
      [250, 1],
    ] as const) {
      const { clock, pages, rows, asked, feed } = world();
      pages.push({ changes: changes(count), more: false });
      rows.broken = true;
      feed.start();
      for (let n = 0; n < 3; n++) await clock.advance(75);
      assert.deepEqual([asked.reads, feed.pending], [reads, count]);
      await clock.advance(0);
      clock.stall(20_000);
      rows.broken = false;
      await clock.advance(0);
      assert.deepEqual([asked.reads, feed.pending], [count === 250 ? 1 : 4, 0]);
      assert.equal(feed.complaint === undefined, count !== 250);
      await clock.advance(75);
      assert.equal(feed.complaint, undefined);
      await feed.stop();
    }
  });

  it('lets other work in between two pages', async () => {
    const { events, note } = witness();
    const { clock, pages, feed } = world();
    const page = (name: string, more: boolean) => ({
      get changes() {
        note(name);
        return [];
      },
      more,
    });
    pages.push(page('first', true), page('second', false));
    feed.start();
    await clock.advance(75);
    await clock.advance(0);
    assert.deepEqual(events.slice(0, 3), ['first', 'other work', 'second']);
    await feed.stop();
  });

  it('lets other work in after each 8 ms of applying what it has read, and between slices of what it removes', async () => {
    const { events, note } = witness();
    const found = Array.from({ length: 4 }, () => makeRow());
    const { clock, pages, rows, devices, feed } = world({
      store: { load: async () => ({ rows: 0, skipped: 0 }), watchWrites: () => ({ has: () => false, end: () => {} }) },
    });
    rows.found = found.map((row) => ({ ...keyOf(row), row }));
    devices.replace = () => {
      clock.stall(4);
      note('row');
      return undefined as never;
    };
    pages.push({ changes: changes(4), more: false }, 'reload');
    feed.start();
    await clock.advance(75);
    for (let n = 0; n < 3; n++) await clock.advance(0);
    assert.deepEqual(
      events.splice(0).join(),
      ['row', 'row', 'other work', 'other work', 'row', 'row', 'other work', 'other work'].join(),
    );
    devices.removeUnseen = (_, next) => {
      note('slice');
      return next === 0 ? 1 : undefined;
    };
    await clock.advance(75);
    for (let n = 0; n < 3; n++) await clock.advance(0);
    assert.deepEqual(events, ['slice', 'other work', 'slice', 'other work']);
    await feed.stop();
  });

  it('stops at once, whether it waits for a hint, for another attempt to load or for rows', async (t) => {
    const isCancelled = async (
      feed: { stop(): Promise<void> },
      set: { mock: { calls: readonly { readonly result?: Timer | undefined }[] } },
    ) => {
      const cancel = t.mock.method(set.mock.calls.at(-1)!.result!, 'cancel');
      await feed.stop();
      return cancel.mock.callCount() === 1;
    };
    const hinted = world();
    hinted.feed.start();
    const hints = t.mock.method(hinted.clock, 'setTimeout');
    hinted.feed.hint();
    assert.equal(await isCancelled(hinted.feed, hints), true);

    const failing = world();
    failing.pages.push('reload');
    failing.feed.start();
    const retries = t.mock.method(failing.clock, 'setTimeout');
    await failing.clock.advance(75);
    assert.equal(await isCancelled(failing.feed, retries), true);
    assert.deepEqual(failing.log, ['nothing is to be loaded']);

    const loading = world({
      store: {
        load: (_, signal) =>
          new Promise((_resolve, reject) => {
            signal?.addEventListener('abort', () => reject(new Error('stopped')));
          }),
        watchWrites: () => ({ has: () => false, end: () => {} }),
      },
    });
    loading.pages.push('reload');
    loading.feed.start();
    await loading.clock.advance(75);
    await loading.feed.stop();
    assert.deepEqual(loading.log, [], 'that it was stopped is no trouble');
  });

  it('trims every ten seconds for as long as there is something to trim', async () => {
    const { clock, asked, trim, log, feed } = world();
    const { events, note } = witness();
    trim.more = 2;
    trim.note = () => note('trim');
    feed.start();
    await clock.advance(9_999);
    assert.equal(asked.trims, 0);
    await clock.advance(1);
    for (let n = 0; n < 3; n++) await clock.advance(0);
    assert.equal(asked.trims, 3);
    assert.deepEqual(events.slice(0, 3), ['trim', 'other work', 'trim']);
    trim.broken = true;
    await clock.advance(10_000);
    assert.equal(asked.trims, 4);
    assert.deepEqual(log, ['old entries of spns_changes could not be deleted: the trim failed']);
    await feed.stop();
    await clock.advance(20_000);
    assert.equal(asked.trims, 4);
  });
});

describe("what operators are told of the feed's state", () => {
  it('is how long it has not read everything, from ten seconds on and not before it was started', async () => {
    const { clock, pages, feed } = world();
    pages.push(...Array.from({ length: 2_000 }, () => new Error('the database is away')));
    await clock.advance(60_000);
    assert.equal(feed.complaint, undefined);
    feed.start();
    await clock.advance(9_999);
    assert.equal(feed.complaint, undefined);
    await clock.advance(1);
    const said = (seconds: number) =>
      `changes that other hiveminds made in the database have not been read for ${seconds} s`;
    assert.equal(feed.complaint, said(10));
    await clock.advance(50_000);
    assert.equal(feed.complaint, said(60));
    await feed.stop();
  });

  it('is that it is behind as long as there are more pages', async () => {
    const { clock, pages, feed } = world();
    const last = Promise.withResolvers<Page>();
    for (let n = 0; n < 12; n++)
      pages.push(
        (async () => {
          await Promise.resolve();
          return { changes: [], more: true };
        })(),
      );
    pages.push(last.promise);
    feed.start();
    await clock.advance(75);
    for (let n = 0; n < 12; n++) {
      clock.stall(1_000);
      await clock.advance(0);
    }
    assert.match(feed.complaint ?? '', /for 12 s$/);
    last.resolve(NOTHING);
    await clock.advance(0);
    assert.equal(feed.complaint, undefined);
    await feed.stop();
  });

  it('is counted: reads and their time, changes of others, and reloads with theirs', async () => {
    const row = makeRow();
    let loads = 0;
    const clock = new FakeClock();
    const { pages, rows, asked, log, devices, feed } = world({
      clock,
      store: {
        load: async () => {
          clock.stall(2_340);
          if (++loads === 1) throw new Error('the connection was lost');
          return { rows: 7, skipped: 0 };
        },
        watchWrites: () => ({ has: () => false, end: () => {} }),
      },
    });
    assert.deepEqual(feed.counters, { reads: 0, readMs: 0, changes: 0, reloads: 0 });
    rows.found = [{ ...keyOf(row), row }];
    pages.push(
      (async () => {
        await Promise.resolve();
        clock.stall(7);
        return { changes: changes(1), more: false };
      })(),
    );
    feed.start();
    clock.stall(100);
    pages.push('reload');
    await clock.advance(0);
    assert.deepEqual([asked.reads, feed.counters.reads, feed.counters.changes], [1, 1, 1]);
    assert.equal(devices.size, 1);
    await clock.advance(75);
    assert.equal(loads, 1);
    assert.deepEqual(log, ['the connection was lost']);
    await clock.advance(999);
    assert.equal(loads, 1);
    await clock.advance(1);
    for (let n = 0; n < 3; n++) await clock.advance(0);
    assert.deepEqual([loads, feed.counters.reloads], [2, 1]);
    assert.equal(log.at(-1), 'loaded 7 subscriptions again in 2.3 s: changes of other hiveminds were missed');
    await feed.stop();
  });
});

describe('what the feed reads', () => {
  it('goes into memory for the slots that are held, as confirmed now, and is no longer watched then', async () => {
    const random = seededRandom(5);
    const [ours, theirs, gone] = [makeRow({}, random), makeRow({}, random), makeRow({}, random)];
    assert.notEqual(slotOf(ours.account), slotOf(theirs.account));
    const confirmed: number[] = [];
    const { clock, pages, rows, asked, devices, feed } = world({
      holds: (slot) => slot !== slotOf(theirs.account),
    });
    const replace = devices.replace.bind(devices);
    devices.replace = (row, at) => {
      confirmed.push(at);
      return replace(row, at);
    };
    devices.upsert(gone, 1);
    rows.found = [
      { ...keyOf(theirs), row: theirs },
      { ...keyOf(ours), row: ours },
      { ...keyOf(gone), row: undefined },
    ];
    pages.push({ changes: changes(3), more: false });
    feed.start();
    await clock.advance(75);
    assert.deepEqual(devices.get(ours.account, ours.service, ours.serviceId), ours);
    assert.equal(devices.size, 1);
    assert.deepEqual([confirmed, feed.counters.changes], [[Math.floor(clock.now() / 1000)], 2]);
    assert.equal(asked.watches, 0);
    await feed.stop();
  });
});
