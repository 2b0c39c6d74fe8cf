import { FakeAccounts } from './fake-accounts.ts';
import { FakeNetwork, type FakeServer } from './fake-network.ts';

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const SWARM = 2n ** 63n;

/** One swarm, with so many accounts and servers, all of which are connected. */
export function network(size: {
  accounts: number;
  servers: number;
  padding?: number;
  interval?: number;
  seed?: number;
}) {
  const accounts = new FakeAccounts(size.padding);
  for (let i = 0; i < size.accounts; i++) accounts.add();
  const net = new FakeNetwork(accounts, size);
  const servers = Array.from({ length: size.servers }, () => net.add(SWARM));
  net.publish();
  net.clock.run(5 * SECOND);
  return { net, accounts, servers, clock: net.clock, monitoring: net.monitoring };
}

/** When each account was asked for, by its number. */
export function asked(server: FakeServer): Map<number, number[]> {
  const times = new Map<number, number[]>();
  for (const { at, elements } of server.log) {
    for (const { account } of elements) times.set(account, [...(times.get(account) ?? []), at]);
  }
  return times;
}
