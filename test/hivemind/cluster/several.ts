/** What tests of several real hiveminds share. */

import { randomBytes } from 'node:crypto';
import { type Account, sessionAccount } from '../../../src/devnet/account.ts';
import type { Network } from '../../../src/devnet/network.ts';
import type { ClusterReport } from '../../../src/hivemind/cluster/cluster.ts';
import { holdersOf, SLOTS, slotOf } from '../../../src/session/slots.ts';
import type { TestHivemind } from '../../support/hivemind.ts';
import { until } from '../../support/until.ts';

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

/**
 * Waits until every storage server of these accounts' swarms reports to so many hiveminds. A swarm has to have no more
 * than three, none of which a hivemind is spared.
 */
export async function untilHeard(network: Network, accounts: readonly Account[], hiveminds: number): Promise<void> {
  await until(() =>
    accounts.every(({ id }) => network.membersFor(id).every((server) => server.monitorsOf(id, 0) === hiveminds)),
  );
}

/**
 * Waits until each of them knows that every slot is covered as often as it is to be, of each account there is: what it
 * goes by was written after they covered it.
 */
export async function untilWhole(hiveminds: readonly TestHivemind[]): Promise<void> {
  const isWhole = async (since: number) => {
    const reports = await Promise.all(hiveminds.map(clusterOf));
    return reports.every(
      ({ coverage, members }) => coverage.full === SLOTS && members.every(({ seen }) => seen > since),
    );
  };
  await until(() => isWhole(0));
  // The database has the same clock.
  const now = Date.now() / 1000;
  await until(() => isWhole(now));
}

async function clusterOf(hivemind: TestHivemind): Promise<ClusterReport> {
  const [body] = await hivemind.ask('admin.get_stats');
  return (JSON.parse(String(body)) as { cluster: ClusterReport }).cluster;
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
