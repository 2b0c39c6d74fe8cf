import type { Phone, Woken } from '../../src/devnet/phone.ts';
import { messageHash } from '../../src/session/message-hash.ts';

/** One message to one phone. */
interface Sent {
  readonly service: string;
  /** On the clock that never jumps, ms. */
  readonly at: number;
  taken: number;
}

/** What became of the messages of one service, by the provider's own count. */
export interface Fates {
  told: number;
  /** Messages that the provider took at least once. */
  taken: number;
  /** Further times. */
  twice: number;
}

/** Who was written to, and what the providers took: kept outside of the programs that are tried. */
export class Ledger {
  readonly fates = new Map<string, Fates>();
  /** Pushes that no phone could read, that nobody had written, or whose text was another one. */
  readonly wrong: string[] = [];
  readonly #sent = new Map<string, Sent>();
  /** Since the last look, by service, ms. */
  readonly #latencies = new Map<string, number[]>();

  /**
   * @param copies how many storage servers were there to tell of it; a message that none tells of is nobody's loss here
   */
  told(hash: Buffer, service: string, copies: number): void {
    if (copies === 0) return;
    this.#sent.set(hash.toString(), { service, at: performance.now(), taken: 0 });
    this.of(service).told++;
  }

  taken(phone: Phone | undefined, service: string, payload: Buffer): void {
    let woken: Woken;
    try {
      if (phone === undefined) throw new Error('for a device that there is not');
      woken = phone.open(payload);
    } catch (error) {
      this.wrong.push(`${service}: ${(error as Error).message}`);
      return;
    }
    const sent = this.#sent.get(woken.hash);
    const { account, namespace, data, hash } = woken;
    const fits = data !== null && messageHash(Buffer.from(account, 'hex'), namespace, data).toString() === hash;
    if (sent?.service !== service || !fits) {
      this.wrong.push(`${service}: ${sent ? 'another text' : 'a message that nobody wrote'}`);
      return;
    }
    if (++sent.taken > 1) {
      this.of(service).twice++;
      return;
    }
    this.of(service).taken++;
    const latencies = this.#latencies.get(service) ?? [];
    this.#latencies.set(service, latencies);
    latencies.push(performance.now() - sent.at);
  }

  of(service: string): Fates {
    let fates = this.fates.get(service);
    if (!fates) {
      fates = { told: 0, taken: 0, twice: 0 };
      this.fates.set(service, fates);
    }
    return fates;
  }

  /** From the storage servers to the provider, ms: what 99 of 100 pushes took at most since the last call. */
  p99(): Record<string, number> {
    const result: Record<string, number> = {};
    for (const [service, values] of this.#latencies) {
      values.sort((a, b) => a - b);
      result[service] = Math.round(values[Math.floor(values.length * 0.99)] ?? Number.NaN);
    }
    this.#latencies.clear();
    return result;
  }
}
