import type { Timer } from '../../clock.ts';
import { Fifo } from './fifo.ts';
import type { Outage } from './outage.ts';

/** What goes to one provider, and how that is. */
export class Lane<Entry> {
  readonly name: string;
  readonly outage: Outage;
  /** Waits to be sent. */
  readonly queue = new Fifo<Entry>();
  /** Calls that are running. */
  calls = 0;
  /** Pushes that wait aside for another attempt. */
  aside = 0;
  /** A single push is asking whether the trouble is over. */
  probing = false;
  /** Set while a batch may still fill; when it has waited long enough, what there is goes. */
  lingering: Timer | undefined;
  lingered = false;

  constructor(name: string, outage: Outage) {
    this.name = name;
    this.outage = outage;
  }

  /** Whether something may be sent now. */
  get isOpen(): boolean {
    return this.queue.length > 0 && !this.outage.isWaiting && !(this.outage.isOn && this.probing);
  }

  /** Whether one more push could only wait. */
  get isBlocked(): boolean {
    return this.outage.isWaiting || (this.outage.isOn && (this.probing || this.queue.length > 0));
  }
}

/** Lanes without a push that are kept because they asked us to wait: anybody's server can ask for it. */
const MOST_IDLE = 1_000;

/** The lanes of a {@link Sender}. They take turns, so that none waits for what another has queued up. */
export class Lanes<Entry> {
  readonly #makeOutage: (lane: () => Lane<Entry>) => Outage;
  readonly #all = new Map<string, Lane<Entry>>();
  /** Those that may be open, in the order of their turns. */
  readonly #turns = new Set<Lane<Entry>>();
  #queued = 0;

  /** @param makeOutage the lane that it is given is there when it is asked for */
  constructor(makeOutage: (lane: () => Lane<Entry>) => Outage) {
    this.#makeOutage = makeOutage;
  }

  /** Entries in all queues. */
  get queued(): number {
    return this.#queued;
  }

  get all(): Iterable<Lane<Entry>> {
    return this.#all.values();
  }

  /** The lane of that name, made if it is not there. */
  get(name: string): Lane<Entry> {
    const known = this.#all.get(name);
    if (known) return known;
    const lane: Lane<Entry> = new Lane(
      name,
      this.#makeOutage(() => lane),
    );
    this.#all.set(name, lane);
    return lane;
  }

  put(lane: Lane<Entry>, entry: Entry): void {
    lane.queue.push(entry);
    this.#queued++;
    this.#turns.add(lane);
  }

  take(lane: Lane<Entry>): Entry | undefined {
    const entry = lane.queue.take();
    if (entry !== undefined) this.#queued--;
    return entry;
  }

  /**
   * The lane whose turn it is; undefined if nothing may be sent.
   * @param most a lane with so many calls running is skipped
   * @param troubled whether it may be one whose last answer was trouble
   */
  next(most: number, troubled: boolean): Lane<Entry> | undefined {
    for (const lane of this.#turns) {
      if (!lane.isOpen) this.#turns.delete(lane);
      else if (lane.calls < most && (troubled || !lane.outage.isTroubled)) {
        this.#turns.delete(lane);
        this.#turns.add(lane);
        return lane;
      }
    }
    return undefined;
  }

  /** To be called when a lane may have opened, or have nothing left to do. */
  changed(lane: Lane<Entry>): void {
    if (lane.isOpen) this.#turns.add(lane);
    if (lane.name === '' || lane.queue.length > 0 || lane.calls > 0 || lane.aside > 0) return;
    if (lane.outage.isWaiting && this.#all.size <= MOST_IDLE) return;
    lane.outage.stop();
    this.#all.delete(lane.name);
  }
}
