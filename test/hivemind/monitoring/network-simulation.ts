import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Timer } from '../../../src/clock.ts';
import type { ServiceNode } from '../../../src/session/service-nodes.ts';
import { FakeAccounts, refusal, SUCCESS } from './support/fake-accounts.ts';
import { type Behaviour, FakeNetwork, type FakeServer, seeded, willing } from './support/fake-network.ts';

/** SIMULATION_SEEDS=5000 looks longer, SIMULATION_SEED=17 at one alone. */
const seeds = process.env.SIMULATION_SEED
  ? [Number(process.env.SIMULATION_SEED)]
  : Array.from({ length: Number(process.env.SIMULATION_SEEDS ?? 300) }, (_, i) => i + 1);
/** Test files run beside each other, the tests of one after each other: so many files share the seeds out. */
const FILES = 3;

const MINUTE = 60_000;
const SWARMS = [3n, 2n ** 60n, 2n ** 61n + 5n, 2n ** 62n, 2n ** 63n - 1n, 2n ** 63n + 2n ** 62n, 2n ** 64n - 20n];

/** Makes a test of each hundred seeds that are one file's share, every third hundred. @param file from 0 on */
export function testSeedsOf(file: number): void {
  for (let at = file * 100; at < seeds.length; at += FILES * 100) {
    const some = seeds.slice(at, at + 100);
    test(`whatever the network does, in the end every account is monitored by all servers of its swarm (seeds from ${some[0]})`, (t) => {
      for (const seed of some) {
        try {
          simulate(seed);
        } catch (error) {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
        }
      }
      t.diagnostic(`${some.length} seeds`);
    });
  }
}

function simulate(seed: number): void {
  const random = seeded(seed);
  const below = (n: number) => Math.floor(random() * n);
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
  const accounts = new FakeAccounts();
  const network = new FakeNetwork(accounts, { seed, maxConnects: 1 + below(6), interval: 1000 + below(60_000) });
  const { clock } = network;
  const listed = new Set<FakeServer>();
  /** What oxend answers; undefined = the truth. */
  let partial: (() => { nodes: ServiceNode[]; height?: number }) | undefined;
  let again: Timer | undefined;
  const ask = (): void => {
    again?.cancel();
    const { nodes, height } = partial?.() ?? { nodes: truth() };
    // As it is with oxend itself: what is doubted is asked for again soon.
    const wait = network.list(nodes, height) === undefined ? 5 * MINUTE : MINUTE;
    again = clock.setTimeout(ask, wait);
  };
  const truth = () => Array.from(listed, ({ address }) => address);
  network.onSuspect = () => void clock.setTimeout(ask, 1000);

  const newAccount = () => {
    const base = 1_000_000 + below(1_000_000) * 10;
    return accounts.add(
      Array.from({ length: 1 + below(2) }, (_, i) => Array.from({ length: 1 + below(3) }, (_, j) => base + i * 3 + j)),
    );
  };
  const newServer = () => {
    const server = network.add(pick(SWARMS));
    server.delay = 1 + below(5000);
    listed.add(server);
  };
  for (let i = below(150); i >= 0; i--) newAccount();
  for (let i = 2 + below(10); i >= 0; i--) newServer();
  ask();

  const actions: (() => void)[] = [
    () => void newAccount(),
    () => void newAccount(),
    () => accounts.numbers.length > 1 && accounts.remove(pick(accounts.numbers)),
    () => accounts.change(pick(accounts.numbers)),
    () => {
      // The same swarm of id-recycling that a busy day brings, at once.
      for (let i = below(20); i > 0 && accounts.numbers.length > 1; i--) accounts.remove(pick(accounts.numbers));
      for (let i = below(20); i > 0; i--) newAccount();
    },
    () => pick([...listed]).breakConnection(1 + below(20_000), random() < 0.5),
    () => {
      pick([...listed]).behave = behaviour(random);
    },
    () => {
      pick([...listed]).behave = willing;
    },
    () => {
      const server = pick([...listed]);
      server.absent = !server.absent;
      if (server.absent) server.breakConnection(10 * MINUTE, true);
    },
    () => {
      pick([...listed]).delay = 1 + below(14_000);
    },
    () => {
      newServer();
      ask();
    },
    () => {
      if (listed.size < 2) return;
      listed.delete(pick([...listed]));
      ask();
    },
    () => {
      const server = pick([...network.servers.values()]);
      server.address = { ...server.address, swarm: pick(SWARMS) };
      listed.add(server);
      ask();
    },
    () => {
      const server = pick([...listed]);
      server.address = { ...server.address, port: 1 + below(60_000) };
      ask();
    },
    () => {
      // A swarm vanishes into another one, or half of it becomes a new one.
      const from = pick([...listed]).address.swarm;
      const to = pick(SWARMS);
      const all = random() < 0.5;
      for (const server of listed) {
        if (server.address.swarm === from && (all || random() < 0.5)) server.address = { ...server.address, swarm: to };
      }
      ask();
    },
    () => {
      for (let i = below(30); i > 0; i--) pick([...listed]).endMonitor(pick(accounts.numbers));
    },
    () => {
      // All are a block ahead, or behind, or know nothing.
      const code = pick([6, 6, 7]);
      for (const server of listed) {
        server.behave = (request) => Buffer.from(`l${request.map(() => refusal(code)).join('')}e`);
      }
      clock.setTimeout(
        () => {
          for (const server of listed) server.behave = willing;
        },
        below(4 * MINUTE),
      );
    },
    () => {
      // An oxend that has just synchronised, is cut short, restarts from a backup, or is another network's.
      const one = truth()[0]!;
      partial = pick([
        () => ({ nodes: truth().map((node) => (random() < 0.9 ? { ...node, host: '', port: 0 } : node)) }),
        () => ({ nodes: truth().slice(0, 1 + below(listed.size)) }),
        () => ({ nodes: [] }),
        () => ({ nodes: truth().map((node) => ({ ...node, swarm: one.swarm })) }),
        () => ({ nodes: truth(), height: 1 + below(900) }),
        () => ({ nodes: [...truth(), ...truth().map((node) => ({ ...node, port: 1 + (node.port % 60_000) }))] }),
      ]);
      ask();
      clock.setTimeout(
        () => {
          partial = undefined;
          ask();
        },
        below(random() < 0.5 ? MINUTE : 30 * MINUTE),
      );
    },
  ];
  for (let i = 20 + below(60); i > 0; i--) {
    clock.run(random() < 0.5 ? below(1000) : below(5 * MINUTE));
    pick(actions)();
    assert.ok(network.monitoring.summary().pending <= 6);
  }

  for (const server of listed) {
    server.behave = willing;
    server.absent = false;
    server.delay = 1 + below(500);
  }
  partial = undefined;
  clock.run(60 * MINUTE);
  for (let i = 0; i < 3; i++) {
    clock.run(below(40 * MINUTE));
    check(accounts, [...listed]);
    // What changes now, even while it is being asked about, is known to all soon, not only after the next renewal.
    for (let changes = below(30); changes > 0; changes--) {
      pick(actions.slice(0, 5))();
      clock.run(below(600));
    }
    if (random() < 0.5) pick([...listed]).breakConnection(below(1000), true);
    clock.run(20_000);
    check(accounts, [...listed]);
  }
  clock.run(2 * MINUTE);
  const summary = network.monitoring.summary();
  assert.equal(summary.connected, listed.size);
  assert.equal(summary.fresh, listed.size);
  const { unconfirmed, refused, uncovered, silent } = summary;
  assert.deepEqual(
    { unconfirmed, refused, uncovered, silent },
    { unconfirmed: 0, refused: 0, uncovered: 0, silent: 0 },
  );
  assert.ok(summary.oldestSeconds < 57 * 60, `the oldest confirmation is of ${summary.oldestSeconds} s ago`);

  network.monitoring.stop();
  again?.cancel();
  clock.run(30_000);
  assert.equal(clock.pending, 0, 'timers are left');
  assert.equal(network.bytesInFlight, 0);
}

/** One of the ways in which a storage server disappoints. */
function behaviour(random: () => number): Behaviour {
  const share = random();
  const mostly =
    (other: string): Behaviour =>
    (request) =>
      Buffer.from(`l${request.map(({ ref }) => ((ref * 7919) % 1000 < share * 1000 ? other : SUCCESS)).join('')}e`);
  const ways: Behaviour[] = [
    () => undefined,
    () => Buffer.from('rubbish'),
    () => Buffer.from('le'),
    () => Buffer.from(refusal(1, 'bad list')),
    // One account that cannot be read spoils the whole.
    (request) => (request.some(({ ref }) => ref % 97 === 0) ? Buffer.from(refusal(1)) : willing(request)),
    mostly(refusal(4)),
    mostly(refusal(5)),
    mostly(refusal(3)),
    mostly(refusal(77)),
    mostly(refusal(6)),
    mostly(refusal(7)),
    (request) => (random() < share ? undefined : willing(request)),
  ];
  return ways[Math.floor(random() * ways.length)]!;
}

function check(accounts: FakeAccounts, servers: readonly FakeServer[]): void {
  const swarms = [...new Set(servers.map((server) => server.address.swarm))];
  for (const number of accounts.numbers) {
    const swarm = closest(swarms, accounts.space(number));
    const version = accounts.version(number);
    for (const server of servers) {
      if (server.address.swarm !== swarm) continue;
      assert.ok(
        server.monitorsAccount(number, version),
        `account ${number} is not monitored by ${server.address.host}`,
      );
    }
  }
}

/** The rule of docs/spec/network.md, section 2, in its plainest form. */
function closest(ids: readonly bigint[], space: bigint): bigint {
  let best = ids[0]!;
  let distance = 2n ** 65n;
  for (const id of ids) {
    const up = BigInt.asUintN(64, id - space);
    const down = BigInt.asUintN(64, space - id);
    const d = up < down ? up : down;
    // A tie goes to the one reached by going down.
    if (d < distance || (d === distance && down < up)) {
      best = id;
      distance = d;
    }
  }
  return best;
}
