import type { MonitoredAccounts } from '../../../../src/hivemind/monitoring/monitoring.ts';
import { swarmSpace } from '../../../support/reference.ts';

interface FakeAccount {
  readonly bytes: Buffer;
  readonly space: bigint;
  /** For each of its subscriptions the signatures that it may be asked with, the best one first. */
  subscriptions: number[][];
  version: number;
}

/**
 * One element of a request as the fake accounts write it: which account, which subscription, which signature, which
 * version.
 */
export interface FakeMonitor {
  readonly account: number;
  readonly subscription: number;
  readonly ref: number;
  readonly version: number;
}

/**
 * Accounts that stand for `Devices`: ids are used again, last freed first, as is the rule there. Each account has a
 * number of its own that never comes again, and its place in the swarm space is a multiple of it.
 */
export class FakeAccounts implements MonitoredAccounts {
  readonly #slots: (FakeAccount | undefined)[] = [];
  readonly #numberOf: number[] = [];
  readonly #free: number[] = [];
  readonly #idOf = new Map<number, number>();
  readonly #padding: string;
  #next = 0;
  onAccountAdded: (id: number) => void = () => {};
  onAccountRemoved: (id: number) => void = () => {};
  onUpstreamChanged: (id: number, isMore: boolean) => void = () => {};

  /** @param padding makes each element so many bytes larger */
  constructor(padding = 0) {
    this.#padding = `${padding}:${'x'.repeat(padding)}`;
  }

  get capacity(): number {
    return this.#slots.length;
  }

  /** The numbers of all accounts there are. */
  get numbers(): number[] {
    return [...this.#idOf.keys()];
  }

  idOf(number: number): number {
    return this.#idOf.get(number)!;
  }

  space(number: number): bigint {
    return this.#slots[this.idOf(number)]!.space;
  }

  version(number: number): number {
    return this.#slots[this.idOf(number)]!.version;
  }

  /** Adds an account; its first signature is its number times 1000. Returns its number. */
  add(subscriptions?: number[][], space?: bigint): number {
    const number = this.#next++;
    const bytes = Buffer.alloc(33, 0);
    bytes[0] = 5;
    // Fibonacci hashing: spread evenly over the swarm space, without any randomness.
    bytes.writeBigUInt64BE(space ?? BigInt.asUintN(64, BigInt(number + 1) * 0x9e3779b97f4a7c15n), 1);
    const id = this.#free.pop() ?? this.#slots.length;
    this.#slots[id] = {
      bytes,
      space: swarmSpace(bytes),
      subscriptions: subscriptions ?? [[number * 1000]],
      version: 1,
    };
    this.#numberOf[id] = number;
    this.#idOf.set(number, id);
    this.onAccountAdded(id);
    return number;
  }

  remove(number: number): void {
    const id = this.idOf(number);
    this.#slots[id] = undefined;
    this.#idOf.delete(number);
    this.#free.push(id);
    this.onAccountRemoved(id);
  }

  /** What is asked for the account is another thing now; `isMore` false: only by other signatures. */
  change(number: number, subscriptions?: number[][], isMore = true): void {
    const account = this.#slots[this.idOf(number)]!;
    account.version++;
    if (subscriptions) account.subscriptions = subscriptions;
    this.onUpstreamChanged(this.idOf(number), isMore);
  }

  accountId(account: Uint8Array): number {
    return this.#slots.findIndex((slot) => slot?.bytes.equals(account));
  }

  /** The 33 bytes of an account. */
  bytesOf(number: number): Buffer {
    return this.#slots[this.idOf(number)]!.bytes;
  }

  /** Of every account. */
  devices = 1;

  devicesOf(): number {
    return this.devices;
  }

  isLive(id: number): boolean {
    return this.#slots[id] !== undefined;
  }

  account(id: number): { bytes: Uint8Array; offset: number } {
    return { bytes: this.#slots[id]!.bytes, offset: 0 };
  }

  writeMonitors(id: number, out: Buffer, offset: number, refused?: ReadonlySet<number>, refs?: number[]): number {
    const { subscriptions, version } = this.#slots[id]!;
    for (const [index, signatures] of subscriptions.entries()) {
      const ref = signatures.find((signature) => !refused?.has(signature));
      if (ref === undefined) continue;
      const dict = `li${this.#numberOf[id]!}ei${index}ei${ref}ei${version}e${this.#padding}e`;
      if (offset + dict.length > out.length) return -1;
      offset += out.write(dict, offset, 'latin1');
      refs?.push(ref);
    }
    return offset;
  }
}

/** Reads what {@link FakeAccounts} wrote. */
export function readRequest(body: Buffer): FakeMonitor[] {
  const text = body.toString('latin1');
  const elements = [...text.matchAll(/li(\d+)ei(\d+)ei(\d+)ei(\d+)e\d+:x*e/g)];
  const size = elements.reduce((sum, [element]) => sum + element.length, 2);
  if (size !== text.length || text[0] !== 'l' || !text.endsWith('e'))
    throw new Error(`not a request: ${text.slice(0, 100)}`);
  return elements.map(([, account, subscription, ref, version]) => ({
    account: Number(account),
    subscription: Number(subscription),
    ref: Number(ref),
    version: Number(version),
  }));
}

export const SUCCESS = 'd7:successi1ee';

/** A storage server's answer for one element that it refuses. */
export function refusal(code: number, text = 'no'): string {
  return `d7:errcodei${code}e5:error${text.length}:${text}e`;
}
