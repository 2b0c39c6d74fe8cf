import { test } from 'node:test';
import { tryKill, tryKillOfTheLast, tryRoll } from './hiveminds-world.ts';

/** Few and for a short while: test/long/several-hiveminds.ts does more, and more of it. */
const WRITING = { seconds: 3, rate: 100 };
const limits = { timeout: 120_000 };

test('one of two is killed and comes back: no push is lost, and none comes twice', limits, (t) => tryKill(t, WRITING));

test(
  'one of two loses the storage servers that it asks, and then the other is killed: no push is lost, and none comes twice',
  limits,
  (t) => tryKillOfTheLast(t, WRITING),
);

test(
  'spns roll restarts one after the other: nothing is lost or comes twice, and phones subscribe meanwhile',
  limits,
  (t) => tryRoll(t, WRITING),
);
