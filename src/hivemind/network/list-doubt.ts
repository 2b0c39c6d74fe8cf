import type { Clock } from '../../clock.ts';
import type { ServiceNodes } from '../../session/service-nodes.ts';

/** The parts of a list that are compared with those of another. */
interface Outline {
  readonly height: number;
  /** Public keys in hex. */
  readonly nodes: ReadonlySet<string>;
  readonly swarms: ReadonlySet<bigint>;
}

/** A doubted list is believed once it has been repeated this often and for this long (ms). */
const BELIEVED_AFTER_ANSWERS = 5;
const BELIEVED_AFTER = 10 * 60_000;
/**
 * The least share of what was known that must be left in a list: half, or three quarters if ten or more are missing. In
 * a small network a few that go are a large share.
 */
const SHARE = 1 / 2;
const MANY = 10;
const SHARE_OF_MANY = 3 / 4;
/**
 * A chain grows by a block every two minutes. An oxend whose height rises faster than this is still synchronising, and
 * what it says is out of date.
 */
const BLOCKS_AT_ONCE = 10;
const BLOCKS_A_MINUTE = 1;

/**
 * Decides whether a list of the network is complete. An oxend that has just restarted, is synchronising, or replaces
 * another one gives well-formed answers that are incomplete or out of date. Taking such a list over would cost us
 * connections, and phones their messages. So a list that lacks much of what was known, or is older, has to be repeated
 * for a while; one that only grows is believed at once.
 */
export class ListDoubt {
  readonly #clock: Clock;
  /** The latest list that was believed. */
  #known: Outline | undefined;
  /** The first of the doubted lists that agree with each other. */
  #first: Outline | undefined;
  #since = 0;
  #answers = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns why the list is not believed for now, in words; undefined if it is: the next is then compared with it */
  judge({ height, nodes, swarms }: ServiceNodes): string | undefined {
    // Useless, however often it is repeated.
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

/** In words, what a list has lost since an earlier one that ordinary change does not explain; undefined if nothing. */
function lossOf(before: Outline, list: Outline): string | undefined {
  if (list.height < before.height) return `its height is ${list.height}, after ${before.height}`;
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
