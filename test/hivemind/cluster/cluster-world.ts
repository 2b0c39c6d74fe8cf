import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Cluster } from '../../../src/hivemind/cluster/cluster.ts';
import { hasSlot } from '../../../src/hivemind/cluster/roster.ts';
import type { MemberRow } from '../../../src/hivemind/store/cluster-store.ts';
import { decodeChanged, decodeLeaving } from '../../../src/session/cluster-protocol.ts';
import { SLOTS } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';

export const SECOND = 1_000;

interface TestMember {
  readonly cluster: Cluster;
  readonly loaded: Set<number>;
  readonly connected: { slots: ReadonlySet<number> };
  readonly spared: { slots: ReadonlySet<number> };
  readonly log: string[];
  /** Slots that were taken out of memory. */
  readonly removed: number[];
  /** The parts in which that was done, and what else had its turn. */
  readonly parts: string[];
  /** What a load waits for, and what a check of what is covered waits for. */
  stuck: Promise<void> | undefined;
  checking: Promise<void> | undefined;
  /** Slots that are not covered, whatever is loaded; undefined: the network is not known. */
  gaps: Set<number> | undefined;
  /** To whom it has no connection, and to whom it is to have one. */
  unreached: string[];
  linked: string[];
  /** Whether loading, and whether the database, works. */
  broken: boolean;
  away: boolean;
  drops: number;
  /** Calls so far: heartbeats, loads, checks of what is covered, and settings of the slots to connect to. */
  readonly counts: { beats: number; loads: number; checks: number; settings: number };
  /** It no longer writes heartbeats. */
  kill(): void;
}

/** Members on one database, which is a map, over links that lose nothing. */
export function world(copies = 2) {
  const clock = new FakeClock();
  const rows = new Map<string, MemberRow>();
  const members = new Map<string, TestMember>();
  let runs = 0n;

  const join = async (name: string, start = true): Promise<TestMember> => {
    const run = ++runs;
    let dead = false;
    const row = (more: Partial<MemberRow>) => ({
      name,
      generation: run,
      run,
      state: 'starting' as const,
      address: `ipc:///${name}`,
      pushAddress: '',
      version: '2.0.0',
      started: clock.now(),
      seen: clock.now(),
      covers: Buffer.alloc(SLOTS / 8),
      ...more,
    });
    const member: TestMember = {
      loaded: new Set(),
      connected: { slots: new Set() },
      spared: { slots: new Set() },
      log: [],
      removed: [],
      parts: [],
      stuck: undefined,
      checking: undefined,
      gaps: new Set(),
      unreached: [],
      linked: [],
      broken: false,
      away: false,
      drops: 0,
      counts: { beats: 0, loads: 0, checks: 0, settings: 0 },
      kill: () => {
        dead = true;
        member.cluster.stop();
      },
      cluster: new Cluster({
        clock,
        own: { name, run },
        copies,
        beat: async (own) => {
          member.counts.beats++;
          if (member.away || dead) throw new Error('the database is away');
          rows.set(name, { ...row(own), started: rows.get(name)?.started ?? clock.now() });
          return { now: clock.now(), members: [...rows.values()].sort((a, b) => (a.name < b.name ? -1 : 1)) };
        },
        load: async (slots) => {
          member.counts.loads++;
          for (const slot of slots) {
            member.loaded.add(slot);
            if (member.broken) throw new Error('no rows today');
          }
          await member.stuck;
        },
        devices: {
          // In two parts, as where there are very many.
          removeAccounts: (isRemoved, from = 0) => {
            member.drops++;
            member.parts.push('part');
            setImmediate(() => member.parts.push('other work'));
            const [first, end] = from === 0 ? [0, SLOTS / 2] : [SLOTS / 2, SLOTS];
            for (let slot = first; slot < end; slot++) {
              const account = Buffer.alloc(34);
              account[2] = slot;
              if (member.loaded.has(slot) && isRemoved(account, 1)) {
                member.loaded.delete(slot);
                member.removed.push(slot);
              }
            }
            return from === 0 ? end : undefined;
          },
        },
        uncovered: async () => {
          member.counts.checks++;
          await nextTurn();
          await member.checking;
          const { gaps } = member;
          return gaps && new Set([...Array(SLOTS).keys()].filter((slot) => gaps.has(slot) || !member.loaded.has(slot)));
        },
        setSlots: (slots) => {
          member.counts.settings++;
          member.connected.slots = slots;
        },
        spareSlots: (slots) => (member.spared.slots = slots),
        links: {
          update: (others) => {
            member.linked = others.map(({ name: other }) => other);
          },
          get troubles() {
            return member.unreached.map((other) => ({ name: other, trouble: 'the connection broke' }));
          },
          send: (to, command, part) => {
            const other = members.get(to);
            if (!other || dead) return false;
            if (command === 'cluster.leaving') {
              assert.deepEqual(decodeLeaving(part), { name, run });
              other.cluster.refresh();
            }
            if (command === 'cluster.changed') {
              const { slots, ...sender } = decodeChanged(part);
              assert.deepEqual(sender, { name, run });
              other.log.push(
                `${name} has changes in ${[...Array(SLOTS).keys()].filter((slot) => hasSlot(slots, slot))}`,
              );
            }
            return true;
          },
        },
        log: { info: (text) => member.log.push(text), warn: (text) => member.log.push(text) },
      }),
    };
    members.set(name, member);
    if (start) {
      await member.cluster.start();
      member.cluster.ready();
      await clock.advance(2 * SECOND);
    }
    return member;
  };
  const firsts = ({ cluster }: TestMember, name: string) =>
    [...Array(SLOTS).keys()].filter((slot) => cluster.duty.firstOf(slot) === name).length;
  return { clock, join, firsts, rows };
}
