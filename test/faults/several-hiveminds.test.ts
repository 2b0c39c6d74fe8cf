import { test } from 'node:test';
import { SHORT_TRIALS } from './hiveminds-world.ts';

/** Few and for a short while: test/long/several-hiveminds.ts does more, and more of it. */
const WRITING = { seconds: 3, rate: 100 };
const limits = { timeout: 120_000 };

for (const [name, trial] of Object.entries(SHORT_TRIALS)) test(name, limits, (t) => trial(t, WRITING));
