import type { Clock } from '../../clock.ts';
import { RecentFingerprints } from '../../recent-fingerprints.ts';
import type { SealedPush } from '../../session/notifier-protocol.ts';
import { type Verdict, verdictOn } from './acknowledgements.ts';
import type { End, HeldPush } from './sender.ts';

/** A hivemind that gave a push, and wants to hear what becomes of it. */
export interface Giver<Link> {
  readonly link: Link;
  /** Its number for the push; undefined from an original hivemind, which hears nothing. */
  readonly id: number | undefined;
  /** Somebody waits to be told the provider's answer in words. */
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
  /** The first one gave what is sent; further ones gave copies of it. */
  readonly givers: Giver<Link>[];
}

/** What became of one that is not sent again. */
type Final = Exclude<Verdict, 'handedBack'>;

/**
 * Of one generation, which lasts an hour and more: some 500 pushes a second. Two full ones take 64 MB; with more a
 * generation ends before its time.
 */
const MAX_ENTRIES = 2_000_000;

/**
 * Knows which pushes are copies of another hivemind's. The first goes to the provider, and what becomes of it is the
 * answer to every further one, for as long as one may still come.
 */
export class Copies<Link> {
  /** Of those with one fingerprint the least doubtful one. */
  readonly #sending = new Map<string, GivenPush<Link>>();
  readonly #ended: RecentFingerprints;

  /** @param lifetime see {@link lifetime} */
  constructor(clock: Pick<Clock, 'monotonic'>, lifetime: number) {
    this.#ended = new RecentFingerprints(clock, lifetime, MAX_ENTRIES);
  }

  /** Milliseconds for which ends are remembered, at least; may be set anew at any time. */
  set lifetime(lifetime: number) {
    this.#ended.lifetime = lifetime;
  }

  /** Fingerprints whose push has ended. */
  get remembered(): number {
    return this.#ended.size;
  }

  /**
   * Whether a push is a copy, and thus not to be sent.
   *
   * @param giver who gave it; is told together with the first what becomes of that
   * @returns `joined`: the first is on its way; or the verdict on it, which the giver is to be told now; undefined
   *   for a first one, with which {@link add} is to be called
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

  /** Takes note of a push that is sent. */
  add(push: GivenPush<Link>): void {
    if (push.fingerprint !== null) this.#sending.set(push.fingerprint, push);
  }

  /** Takes note of the end of a push. One that was handed back is forgotten: when it comes again it is to be sent. */
  end(push: GivenPush<Link>, end: End): void {
    const { fingerprint, doubt } = push;
    if (fingerprint === null) return;
    if (this.#sending.get(fingerprint) === push) this.#sending.delete(fingerprint);
    const verdict = verdictOn(end);
    if (verdict === 'handedBack') return;
    this.#ended.add(halfOf(fingerprint, 0), marked(halfOf(fingerprint, 4), doubt, verdict));
  }
}

/** The ends of one fingerprint are told apart by numbers that follow each other. */
function marked(high: number, doubt: number, verdict: Final): number {
  return (high + 2 * doubt + (verdict === 'accepted' ? 0 : 1)) >>> 0;
}

/** 32 bits of a fingerprint, from that byte on. */
function halfOf(fingerprint: string, at: number): number {
  let half = 0;
  for (let byte = 3; byte >= 0; byte--) half = (half << 8) | fingerprint.charCodeAt(at + byte);
  return half >>> 0;
}
