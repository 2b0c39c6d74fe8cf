import { startMember } from '../test/support/members.ts';

/**
 * The member that reads, for the benchmark `feed`: says when it is there, and, asked with a number, when it has so many
 * subscriptions and nothing more to read.
 */
const ends: (() => Promise<void>)[] = [];
const { devices, feed } = await startMember(
  { after: (end) => void ends.unshift(end) },
  process.env.SPNS_DATABASE_URL ?? '',
  'reader',
  { timeout: 5_000 },
);
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
  for (const end of ends) await end();
  process.exit(0);
});
process.send?.('ready');
