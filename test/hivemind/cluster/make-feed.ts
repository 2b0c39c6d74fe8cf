import { randomBytes } from 'node:crypto';
import { Feed, type FeedModules } from '../../../src/hivemind/cluster/feed.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { silent } from '../../support/members.ts';

/** A feed of no changes, from a store that has nothing to load, unless other parts are given. */
export function makeFeed(given: Partial<FeedModules>): Feed {
  return new Feed({
    clock: new FakeClock(),
    store: {
      load: () => Promise.reject(new Error('nothing is to be loaded')),
      watchWrites: () => ({ has: () => false, end: () => {} }),
    },
    cluster: {
      readChanges: async () => ({ changes: [], more: false }),
      readCurrent: async () => [],
      skip: () => {},
      trim: async () => false,
    },
    devices: new Devices({ random: randomBytes }),
    holds: () => true,
    inWork: () => false,
    log: silent,
    ...given,
  });
}
