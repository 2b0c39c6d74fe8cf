import type { Clock } from '../../clock.ts';
import { RecentFingerprints } from '../../recent-fingerprints.ts';
import type { SealedPush } from '../../session/notifier-protocol.ts';
import { type ReportedAs, reportedAs } from './acknowledgements.ts';
import type { End, HeldPush } from './sender.ts';

/** A hivemind that gave a push and is told what became of it. */
export interface Giver<Link> {
  readonly link: Link;
  /** Its number for the push; undefined from an original hivemind, which is told nothing. */
  readonly id: number | undefined;
  /** Whether somebody waits for the provider's answer in words. */
  readonly wantsAnswer: boolean;
}

/** What copies are known by. Fingerprints are 8 bytes as latin1 texts. */
export interface Marks {
  /** The same for all copies; null from a hivemind that is alone, which gives none. */
  readonly fingerprint: string | null;
  /** How doubtful it is, 0 if not at all: what is less so is no copy. */
  readonly doubt: number;
  /** Of a doubtful one: the fingerprint of the same push without doubt. */
  readonly proven: string | null;
}

/** @param push as it came */
export function marksOf({ fingerprint, doubt, proven }: SealedPush): Marks {
  return { fingerprint: fingerprint?.toString('latin1') ?? null, doubt, proven: proven?.toString('latin1') ?? null };
}

/** A push, and all who gave it. */
export interface GivenPush<Link> extends HeldPush, Marks {
  /** The first gave the push that is sent; further ones gave copies of it. */
  readonly givers: Giver<Link>[];
}

/** The end of a push that is not sent again. */
type Final = Exclude<ReportedAs, 'handedBack'>;

/**
 * Fingerprints in one generation, which lasts for an hour and more: enough for some 500 pushes a second. Two full ones
 * take 64 MB; with more pushes a generation ends early.
 */
const MAX_ENTRIES = 2_000_000;

/**
 * Knows which pushes are copies of another hivemind's. The first goes to the provider, and its end is that of every
 * further one, for as long as copies may still come.
 */
export class Copies<Link> {
  /** By fingerprint, of several pushes the least doubtful one. */
  readonly #sending = new Map<string, GivenPush<Link>>();
  readonly #ended: RecentFingerprints;

  /** @param lifetime see {@link lifetime} */
  constructor(clock: Pick<Clock, 'monotonic'>, lifetime: number) {
    this.#ended = new RecentFingerprints(clock, lifetime, MAX_ENTRIES);
  }

  /** Milliseconds for which ends are remembered at least; may be changed at any time. */
  set lifetime(lifetime: number) {
    this.#ended.lifetime = lifetime;
  }

  /** How many ends are remembered. */
  get remembered(): number {
    return this.#ended.size;
  }

  /**
   * Whether a push is a copy, which is not to be sent.
   *
   * @param giver who gave it, and is told the end of the first push when that comes
   * @returns `joined` if the first push is on its way; its end if it has ended, which the caller reports now; undefined
   *   if this is the first, for which the caller calls {@link add}
   */
  find({ fingerprint, doubt, proven }: Marks, giver: Giver<Link>): Final | 'joined' | undefined {
    if (fingerprint === null) return undefined;
    return this.#find(fingerprint, doubt, giver) ?? (proven === null ? undefined : this.#find(proven, 0, giver));
  }

  #find(fingerprint: string, doubt: number, giver: Giver<Link>): Final | 'joined' | undefined {
    const first = this.#sending.get(fingerprint);
    if (first && first.doubt <= doubt) {
      first.givers.push(giver);
      return 'joined';
    }
    const low = halfOf(fingerprint, 0);
    const high = halfOf(fingerprint, 4);
    for (let least = 0; least <= doubt; least++) {
      if (this.#ended.has(low, marked(high, least, 'accepted'))) return 'accepted';
      if (this.#ended.has(low, marked(high, least, 'refused'))) return 'refused';
    }
    return undefined;
  }

  /** Notes a push that is sent. */
  add(push: GivenPush<Link>): void {
    if (push.fingerprint !== null) this.#sending.set(push.fingerprint, push);
  }

  /** Notes the end of a push. One that was handed back is forgotten, since it must be sent if it comes again. */
  end(push: GivenPush<Link>, end: End): void {
    const { fingerprint, doubt } = push;
    if (fingerprint === null) return;
    if (this.#sending.get(fingerprint) === push) this.#sending.delete(fingerprint);
    const reported = reportedAs(end);
    if (reported === 'handedBack') return;
    this.#ended.add(halfOf(fingerprint, 0), marked(halfOf(fingerprint, 4), doubt, reported));
  }
}

/** The upper half of a fingerprint, changed so that each doubt and end of a push has its own entry. */
function marked(high: number, doubt: number, reported: Final): number {
  return (high + 2 * doubt + (reported === 'accepted' ? 0 : 1)) >>> 0;
}

/** 32 bits of a fingerprint, little-endian, from byte `at`. */
function halfOf(fingerprint: string, at: number): number {
  let half = 0;
  for (let byte = 3; byte >= 0; byte--) half = (half << 8) | fingerprint.charCodeAt(at + byte);
  return half >>> 0;
}
