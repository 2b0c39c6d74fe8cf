import type { Clock, Timer } from '../../clock.ts';
import type { Outcome } from './backend.ts';
import type { End } from './sender.ts';

/** Everything that goes into one `admin.push_report`; see session/notifier-protocol.ts. */
export interface Report {
  accepted: number[];
  refused: number[];
  handedBack: number[];
  answers: (readonly [number, string])[];
}

/** What the hivemind hears of a push. */
export type Verdict = 'accepted' | 'refused' | 'handedBack';

const FLUSH_MS = 10;
const RETRY_MS = 250;
/** Ids in one report before it is sent without waiting for more. */
const FULL = 200;
/** Ids in one message, so that what piled up during an absence of the hivemind goes in pieces. */
const SLICE = 5_000;
/** Ends remembered for the hivemind that gives a push again because the report was lost with the connection. */
const REMEMBERED = 20_000;

/**
 * Keeps account of the pushes that the hivemind gave: each is held once, and its end is reported, many in one message.
 * A push that comes again while it is held is not sent twice, and one that has ended is just reported again.
 */
export class Acknowledgements {
  readonly #clock: Clock;
  readonly #send: (report: Report) => boolean;
  readonly #held = new Set<number>();
  /** Two generations, so that forgetting the oldest costs nothing. */
  #ended = new Map<number, Verdict>();
  #endedBefore = new Map<number, Verdict>();
  #report: Report = empty();
  #size = 0;
  #timer: Timer | undefined;
  #closed = false;

  /** @param send sends a report to the hivemind; false if it cannot go now */
  constructor(clock: Clock, send: (report: Report) => boolean) {
    this.#clock = clock;
    this.#send = send;
  }

  /** Ids that were given and have not ended. */
  get held(): number {
    return this.#held.size;
  }

  /** Ids and answers that have not been reported. */
  get unreported(): number {
    return this.#size;
  }

  /** @returns whether the push is new; otherwise nothing is to be done with it */
  take(id: number): boolean {
    if (this.#held.has(id)) return false;
    const verdict = this.#ended.get(id) ?? this.#endedBefore.get(id);
    if (verdict !== undefined) {
      this.#add(id, verdict);
      return false;
    }
    this.#held.add(id);
    return true;
  }

  /** Reports the end of a push that was taken. */
  end(id: number, verdict: Verdict): void {
    if (!this.#held.delete(id)) return;
    // What was handed back may come again, and is to be sent then.
    if (verdict !== 'handedBack') {
      this.#ended.set(id, verdict);
      if (this.#ended.size >= REMEMBERED) {
        this.#endedBefore = this.#ended;
        this.#ended = new Map();
      }
    }
    this.#add(id, verdict);
  }

  /** The provider's answer in words, for a push somebody is waiting for. */
  answer(id: number, text: string): void {
    if (this.#closed) return;
    this.#report.answers.push([id, text]);
    this.#grown();
  }

  /** Sends what there is now. False if some of it has to wait. */
  flush(): boolean {
    this.#timer?.cancel();
    this.#timer = undefined;
    while (this.#size > 0) {
      const { accepted, refused, handedBack, answers } = this.#report;
      const slice = {
        accepted: accepted.slice(0, SLICE),
        refused: refused.slice(0, SLICE),
        handedBack: handedBack.slice(0, SLICE),
        answers: answers.slice(0, SLICE),
      };
      if (!this.#send(slice)) {
        this.#timer = this.#clock.setTimeout(() => this.flush(), RETRY_MS);
        return false;
      }
      this.#report = {
        accepted: accepted.slice(SLICE),
        refused: refused.slice(SLICE),
        handedBack: handedBack.slice(SLICE),
        answers: answers.slice(SLICE),
      };
      this.#size = count(this.#report);
    }
    return true;
  }

  /** Nothing is reported any more. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #add(id: number, verdict: Verdict): void {
    if (this.#closed) return;
    this.#report[verdict].push(id);
    this.#grown();
  }

  #grown(): void {
    this.#size++;
    if (this.#size === FULL) this.flush();
    else this.#timer ??= this.#clock.setTimeout(() => this.flush(), FLUSH_MS);
  }
}

function empty(): Report {
  return { accepted: [], refused: [], handedBack: [], answers: [] };
}

function count(report: Report): number {
  return report.accepted.length + report.refused.length + report.handedBack.length + report.answers.length;
}

/** What a provider said, for the operator who waits to read it. */
export function inWords(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'accepted':
      return 'accepted';
    case 'gone':
      return `device gone: ${outcome.reason}`;
    case 'refused':
      return `refused: ${outcome.reason}`;
    case 'retry':
      return `not yet, will be tried again: ${outcome.reason}`;
    case 'misconfigured':
      return `the provider does not accept our credentials or settings: ${outcome.reason}`;
  }
}

/** How the hivemind is told of that end. */
export function verdictOn({ kind }: End): Verdict {
  if (kind === 'accepted') return 'accepted';
  return kind === 'handed-back' ? 'handedBack' : 'refused';
}
