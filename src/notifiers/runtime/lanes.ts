import type { Timer } from '../../clock.ts';
import { Fifo } from './fifo.ts';
import type { Outage } from './outage.ts';

/** The pushes for one provider, and its state. */
export class Lane<Entry> {
  readonly name: string;
  readonly outage: Outage;
  /** Pushes that wait to be sent. */
  readonly queue = new Fifo<Entry>();
  /** How many calls are running. */
  calls = 0;
  /** How many pushes wait outside the queue for another attempt. */
  aside = 0;
  /** A single push is being sent to find out whether the trouble is over. */
  probing = false;
  /** Set while a batch may still fill. */
  lingering: Timer | undefined;
  /** A batch has waited long enough to fill, and is sent as it is. */
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

/** How many lanes are kept for their pauses alone: anybody's server can ask us to wait. */
const MOST_IDLE = 1_000;

/** The lanes of a sender. They take turns, so that none waits for what another has queued up. */
export class Lanes<Entry> {
  readonly #makeOutage: (lane: () => Lane<Entry>) => Outage;
  readonly #all = new Map<string, Lane<Entry>>();
  /** The lanes that may be open, in the order of their turns. */
  readonly #turns = new Set<Lane<Entry>>();
  #queued = 0;

  /** @param makeOutage makes a lane's outage; must not call `lane` at once, since the lane does not exist yet */
  constructor(makeOutage: (lane: () => Lane<Entry>) => Outage) {
    this.#makeOutage = makeOutage;
  }

  /** How many entries all queues have. */
  get queued(): number {
    return this.#queued;
  }

  get all(): Iterable<Lane<Entry>> {
    return this.#all.values();
  }

  /** The lane of that name, which is made if need be. */
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
   *
   * @param most lanes with this many running calls are skipped
   * @param troubled whether it may be a lane whose last answer was trouble
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

  /** To be called when a lane may have opened, or may have nothing left to do. */
  changed(lane: Lane<Entry>): void {
    if (lane.isOpen) this.#turns.add(lane);
    if (lane.name === '' || lane.queue.length > 0 || lane.calls > 0 || lane.aside > 0) return;
    if (lane.outage.isWaiting && this.#all.size <= MOST_IDLE) return;
    lane.outage.stop();
    this.#all.delete(lane.name);
  }
}
