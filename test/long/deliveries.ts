import type { Phone, Woken } from '../../src/devnet/phone.ts';
import { messageHash } from '../../src/session/message-hash.ts';

/** One message to one phone. */
interface Sent {
  readonly service: string;
  /** On the clock that never jumps, ms. */
  readonly at: number;
  taken: number;
}

/** Messages of one service, as its provider counts them. */
export interface DeliveryCounts {
  /** Messages of which at least one storage server sent a notification. */
  sent: number;
  /** Messages that the provider took at least once. */
  taken: number;
  /** Further times. */
  twice: number;
}

/** The messages that were sent and the pushes that providers took, counted outside of the programs under test. */
export class Deliveries {
  readonly counts = new Map<string, DeliveryCounts>();
  /** Pushes that no phone could read, that nobody had written, or whose text was another one. */
  readonly wrong: string[] = [];
  readonly #sent = new Map<string, Sent>();
  /** Since the last look, by service, ms. */
  readonly #latencies = new Map<string, number[]>();

  /**
   * @param copies how many storage servers sent a notification; without any, the hivemind cannot know of the message
   */
  sent(hash: Buffer, service: string, copies: number): void {
    if (copies === 0) return;
    this.#sent.set(hash.toString(), { service, at: performance.now(), taken: 0 });
    this.of(service).sent++;
  }

  taken(phone: Phone | undefined, service: string, payload: Buffer): void {
    let woken: Woken;
    try {
      if (phone === undefined) throw new Error('for an unknown device');
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

  /** Makes a function that tells whether all messages sent until now have been taken. */
  allTaken(): () => boolean {
    const open = new Set(this.#sent.values());
    return () => {
      for (const one of open) {
        if (one.taken === 0) return false;
        open.delete(one);
      }
      return true;
    };
  }

  of(service: string): DeliveryCounts {
    let counts = this.counts.get(service);
    if (!counts) {
      counts = { sent: 0, taken: 0, twice: 0 };
      this.counts.set(service, counts);
    }
    return counts;
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
