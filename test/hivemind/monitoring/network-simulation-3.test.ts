import { testSeedsOf } from './network-simulation.ts';

testSeedsOf(2);
