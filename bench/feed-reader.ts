import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { systemClock } from '../src/clock.ts';
import { Feed } from '../src/hivemind/cluster/feed.ts';
import { Devices } from '../src/hivemind/devices/devices.ts';
import { Store } from '../src/hivemind/store/store.ts';
import { benchMember } from './feed.ts';

/**
 * The member that reads, for the benchmark `feed`: says when it is there, and, asked with a number, when it has so many
 * subscriptions and nothing more to read.
 */
const log = pino({ level: 'silent' });
const store = await Store.open({
  url: process.env.SPNS_DATABASE_URL ?? '',
  clock: systemClock,
  log,
  cluster: benchMember('reader'),
});
if (!store.cluster) throw new Error('it has a name');
const { cluster } = store;
const devices = new Devices({ random: randomBytes });
const feed = new Feed({
  clock: systemClock,
  store,
  cluster,
  devices,
  holds: () => true,
  inWork: () => false,
  log,
});
await store.load((row) => devices.upsert(row, row.signedAt));
feed.start();
const beats = setInterval(() => void cluster.beat({ state: 'ready', covers: Buffer.alloc(32) }), 1_000);
process.on('message', (count: number) => {
  let changes = 0;
  const look = setInterval(() => {
    if (devices.size === count && feed.counters.changes === changes) {
      clearInterval(look);
      process.send?.('done');
    }
    changes = feed.counters.changes;
  }, 200);
});
process.once('SIGTERM', async () => {
  clearInterval(beats);
  await feed.stop();
  await store.close();
  process.exit(0);
});
process.send?.('ready');
