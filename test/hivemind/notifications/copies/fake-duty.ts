import type { Duty } from '../../../../src/hivemind/notifications/copies/duty.ts';

/** What a member goes by, set by a test. */
export class FakeDuty implements Duty {
  readonly own: string;
  /** The run of each that lives. */
  readonly living: Map<string, bigint>;
  /** Who is first for every slot, unless {@link firsts} says otherwise. */
  first: string | undefined;
  readonly firsts = new Map<number, string>();
  readonly #listeners: (() => void)[] = [];

  /** @param others those that live beside it, in their first run */
  constructor(own: string, others: readonly string[], first: string | undefined) {
    this.own = own;
    this.living = new Map([own, ...others].map((name) => [name, 1n]));
    this.first = first;
  }

  firstOf(slot: number): string | undefined {
    return this.firsts.get(slot) ?? this.first;
  }

  othersOf(): readonly string[] {
    return [...this.living.keys()].filter((name) => name !== this.own);
  }

  isLiving(name: string, run?: bigint): boolean {
    const its = this.living.get(name);
    return its !== undefined && (run === undefined || run === its);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Changes something, and tells of it. */
  change(how: (duty: this) => void): void {
    how(this);
    for (const listener of this.#listeners) listener();
  }
}
