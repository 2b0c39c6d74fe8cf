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

/** How the end of a push is reported to the hivemind. */
export type ReportedAs = 'accepted' | 'refused' | 'handedBack';

const FLUSH_MS = 10;
const RETRY_MS = 250;
/** A report with this many ids is sent without waiting for more. */
const FULL = 200;
/** How many ids go into one message, so that what piled up while the hivemind was away goes in pieces. */
const MAX_REPORTED = 5_000;
/** How many ends are remembered, in case the hivemind gives a push again since the report got lost. */
const REMEMBERED = 20_000;

/**
 * Keeps track of the pushes that a hivemind gave: each is held once, and its end is reported, many in one message. A
 * push that comes again while it is held is not sent twice; one that has ended is only reported again.
 */
export class Acknowledgements {
  readonly #clock: Clock;
  readonly #send: (report: Report) => boolean;
  readonly #held = new Set<number>();
  /** Two generations, so that forgetting the oldest costs nothing. */
  #ended = new Map<number, ReportedAs>();
  #endedBefore = new Map<number, ReportedAs>();
  #report: Report = empty();
  #size = 0;
  #timer: Timer | undefined;
  #closed = false;

  /** @param send sends a report to the hivemind; false if it cannot be sent now */
  constructor(clock: Clock, send: (report: Report) => boolean) {
    this.#clock = clock;
    this.#send = send;
  }

  /** How many pushes were given and have not ended. */
  get held(): number {
    return this.#held.size;
  }

  /** How many ids and answers have not been reported yet. */
  get unreported(): number {
    return this.#size;
  }

  /** Takes a push that the hivemind gave. @returns whether it is new; if not, there is nothing to do with it */
  take(id: number): boolean {
    if (this.#held.has(id)) return false;
    const reported = this.#ended.get(id) ?? this.#endedBefore.get(id);
    if (reported !== undefined) {
      this.#add(id, reported);
      return false;
    }
    this.#held.add(id);
    return true;
  }

  /** Reports the end of a push that was taken. */
  end(id: number, reported: ReportedAs): void {
    if (!this.#held.delete(id)) return;
    // A push that was handed back may come again, and must be sent then.
    if (reported !== 'handedBack') {
      this.#ended.set(id, reported);
      if (this.#ended.size >= REMEMBERED) {
        this.#endedBefore = this.#ended;
        this.#ended = new Map();
      }
    }
    this.#add(id, reported);
  }

  /** Reports the provider's answer in words, for a push that somebody is waiting for. */
  answer(id: number, text: string): void {
    if (this.#closed) return;
    this.#report.answers.push([id, text]);
    this.#grown();
  }

  /** Sends what there is now; returns false if some of it has to wait. */
  flush(): boolean {
    this.#timer?.cancel();
    this.#timer = undefined;
    while (this.#size > 0) {
      const { accepted, refused, handedBack, answers } = this.#report;
      const slice = {
        accepted: accepted.slice(0, MAX_REPORTED),
        refused: refused.slice(0, MAX_REPORTED),
        handedBack: handedBack.slice(0, MAX_REPORTED),
        answers: answers.slice(0, MAX_REPORTED),
      };
      if (!this.#send(slice)) {
        this.#timer = this.#clock.setTimeout(() => this.flush(), RETRY_MS);
        return false;
      }
      this.#report = {
        accepted: accepted.slice(MAX_REPORTED),
        refused: refused.slice(MAX_REPORTED),
        handedBack: handedBack.slice(MAX_REPORTED),
        answers: answers.slice(MAX_REPORTED),
      };
      this.#size = count(this.#report);
    }
    return true;
  }

  /** Stops reporting. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #add(id: number, reported: ReportedAs): void {
    if (this.#closed) return;
    this.#report[reported].push(id);
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

/** A provider's answer in words, for the operator who waits to read it. */
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

/** How an end is reported to the hivemind: it does not need to know why a push was not accepted. */
export function reportedAs({ kind }: End): ReportedAs {
  if (kind === 'accepted') return 'accepted';
  return kind === 'handed-back' ? 'handedBack' : 'refused';
}
