import type { Clock } from '../../clock.ts';
import type { ServiceNodes } from '../../session/service-nodes.ts';

/** What of a list is compared with another. */
interface Outline {
  readonly height: number;
  /** Public keys in hex. */
  readonly nodes: ReadonlySet<string>;
  readonly swarms: ReadonlySet<bigint>;
}

/** A doubted list is believed when it has been repeated so often, for so long (ms). */
const BELIEVED_AFTER_ANSWERS = 5;
const BELIEVED_AFTER = 10 * 60_000;
/** Fewer left than this share is a collapse, if the network is small; and if so many are missing, fewer than that. */
const SHARE = 1 / 2;
const MANY = 10;
const SHARE_OF_MANY = 3 / 4;
/**
 * A chain grows by a block in two minutes. One that grows faster than this is being synchronised: what it says is of
 * the past.
 */
const BLOCKS_AT_ONCE = 10;
const BLOCKS_A_MINUTE = 1;

/**
 * Whether a list of the network is the whole of it. An oxend that restarts, synchronises, or was put in another's place
 * answers in good form and knows a part, or something else; and to take that over costs every connection, and the
 * phones their messages. So a list in which much of what was known is missing, or that is older, has to be repeated;
 * one that only grows counts at once.
 */
export class Doubt {
  readonly #clock: Clock;
  /** The latest list that was believed. */
  #known: Outline | undefined;
  /** The first of those that are doubted, one like the other. */
  #first: Outline | undefined;
  #since = 0;
  #answers = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * @returns why the list does not count for now, in words; undefined if it counts: the next is then compared with it
   */
  judge({ height, nodes, swarms }: ServiceNodes): string | undefined {
    // Nothing can be done with it, however often it is repeated.
    if (nodes.length === 0) return 'no storage server is in the list';
    const list = { height, nodes: new Set(nodes.map(keyOf)), swarms: new Set(swarms) };
    const loss = this.#known && lossOf(this.#known, list);
    if (loss !== undefined && !this.#isRepeated(list)) return `the list is not believed yet: ${loss}`;
    this.#known = list;
    this.#first = undefined;
    return undefined;
  }

  #isRepeated(list: Outline): boolean {
    const now = this.#clock.monotonic();
    const pace = BLOCKS_AT_ONCE + ((now - this.#since) / 60_000) * BLOCKS_A_MINUTE;
    if (!this.#first || lossOf(this.#first, list) !== undefined || list.height > this.#first.height + pace) {
      this.#first = list;
      this.#since = now;
      this.#answers = 0;
    }
    return ++this.#answers >= BELIEVED_AFTER_ANSWERS && now - this.#since >= BELIEVED_AFTER;
  }
}

/** What a list has lost against an earlier one that ordinary change does not explain; undefined = nothing. */
function lossOf(before: Outline, list: Outline): string | undefined {
  if (list.height < before.height) return `it is of height ${list.height}, after ${before.height}`;
  return (
    collapse(before.nodes, list.nodes, 'storage servers') ?? collapse<bigint>(before.swarms, list.swarms, 'swarms')
  );
}

function collapse<T>(before: ReadonlySet<T>, now: ReadonlySet<T>, what: string): string | undefined {
  let left = 0;
  for (const one of before) if (now.has(one)) left++;
  const share = before.size - left >= MANY ? SHARE_OF_MANY : SHARE;
  return left < before.size * share ? `${left} of ${before.size} ${what} are left in it` : undefined;
}

function keyOf({ publicKey }: { publicKey: Buffer }): string {
  return publicKey.toString('hex');
}
