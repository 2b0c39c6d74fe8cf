import type { Mutant } from './mutants.ts';

interface Judged {
  readonly file: string;
  /** as `npm run mutate` prints it */
  readonly change: string;
  readonly why: string;
}

/** Changes that somebody has looked at and found to make no difference. A test holds each to a line that is there. */
export const JUDGED_EQUAL: readonly Judged[] = [
  {
    file: 'src/hivemind/monitoring/request.ts',
    change: '#ends = new Uint32Array(256);  →  #ends = new Uint32Array(257);',
    why: 'it grows when it is full',
  },
];

export function isJudgedEqual(file: string, { change }: Mutant): boolean {
  return JUDGED_EQUAL.some((judged) => judged.file === file && judged.change === change);
}
