import type { Account } from '../src/devnet/account.ts';
import { Writer, writeAll } from './messages.ts';
import { type BenchWorld, memoryOf, subscribeRequest, tokenOf } from './world.ts';

const ROUNDS = 10;
/** In each round: messages, of which each server of the swarm tells, and renewals. */
const MESSAGES = 40_000;
const RENEWALS = 20_000;
const IN_FLIGHT = 64;
/** After so many rounds everything is compiled, and what is kept for a while is there. */
const WARM_UP = 3;
/** How much more (a share) the last rounds may have than those after the warm-up. */
const TOLERANCE = 0.05;

/**
 * Whether the hivemind's memory stays the same over two million notifications and 200,000 renewals: resident memory
 * and V8's heap after each of ten rounds, and the least of the last three held against the least of the first three
 * that count.
 */
export async function memory(world: BenchWorld, accounts: readonly Account[]): Promise<object> {
  const now = Math.floor(Date.now() / 1000);
  const samples: { resident: number; heap: number; external: number }[] = [];
  let notifications = 0;
  let renewals = 0;
  const renew = async () => {
    const account = accounts[renewals++ % accounts.length] as Account;
    // Each is signed later than the one before, which phones may be by a day.
    const signedAt = now + Math.floor(renewals / accounts.length);
    const request = subscribeRequest(account, tokenOf(account), signedAt);
    const [reply] = await world.client.request('push.subscribe', [request], 60_000);
    if (!reply?.includes('"success":true')) throw new Error(`a renewal was refused: ${reply}`);
  };
  for (let round = 0; round < ROUNDS; round++) {
    const writer = new Writer(world, accounts);
    await writeAll(writer, MESSAGES);
    notifications += writer.raw;
    const end = RENEWALS * (round + 1);
    const line = async () => {
      while (renewals < end) await renew();
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, line));
    const { resident, heap, external } = await memoryOf(world);
    samples.push({ resident, heap, external });
  }
  const least = (from: number, to: number) => Math.min(...samples.slice(from, to).map(({ resident }) => resident));
  const [early, late] = [least(WARM_UP, WARM_UP + 3), least(ROUNDS - 3, ROUNDS)];
  return {
    row: 'memory',
    notifications,
    renewals,
    resident_mb: samples.map(({ resident }) => resident),
    heap_mb: samples.map(({ heap }) => heap),
    external_mb: samples.map(({ external }) => external),
    early_mb: early,
    late_mb: late,
    verdict: late <= early * (1 + TOLERANCE) ? 'flat' : 'grows',
  };
}
