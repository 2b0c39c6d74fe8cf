/** What tests of several real hiveminds share. */

import { randomBytes } from 'node:crypto';
import { type Account, sessionAccount } from '../../../src/devnet/account.ts';
import { holdersOf, SLOTS, slotOf } from '../../../src/session/slots.ts';
import type { TestHivemind } from '../../support/hivemind.ts';

/** An account whose pushes this one of the hiveminds a and b sends, if both cover its slot. */
export function accountOf(first: 'a' | 'b'): Account {
  for (;;) {
    const account = sessionAccount(randomBytes);
    if (holdersOf(slotOf(account.id), ['a', 'b'], 1)[0] === first) return account;
  }
}

/** A figure of its metrics; of several with these labels or of all. */
async function figure({ registry }: TestHivemind, name: string, labels: Record<string, string> = {}): Promise<number> {
  const { values } = (await registry.getSingleMetric(name)?.get()) ?? { values: [] };
  const wanted = values.filter(({ labels: its }) => Object.entries(labels).every(([key, value]) => its[key] === value));
  return wanted.reduce((sum, { value }) => sum + value, 0);
}

/** Whether each of them knows that every slot is covered as often as it is to be. */
export async function isWhole(hiveminds: readonly TestHivemind[]): Promise<boolean> {
  const full = await Promise.all(hiveminds.map((one) => figure(one, 'spns_cluster_slots', { state: 'full' })));
  return full.every((slots) => slots === SLOTS);
}

/**
 * What became of the copies that members kept of pushes that another sends.
 *
 * @returns how many they still hold, and how many were settled in all; of these `ended` as they should, because the
 *   other has sent the push. The rest may have been sent as well: on a machine that is busy, a second of silence passes
 */
export async function copiesOf(hiveminds: readonly TestHivemind[]) {
  const sum = async (name: string, labels?: Record<string, string>) =>
    (await Promise.all(hiveminds.map((one) => figure(one, name, labels)))).reduce((all, one) => all + one, 0);
  return {
    held: await sum('spns_cluster_pushes_held'),
    settled: await sum('spns_cluster_copies_total'),
    ended: await sum('spns_cluster_copies_total', { outcome: 'ended' }),
  };
}
