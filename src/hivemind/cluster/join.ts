import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import type { Commands } from '../../oxenmq/remote.ts';
import { encodeHeard, encodeProgress, type Hello, type Progress } from '../../session/cluster-protocol.ts';
import { VERSION } from '../../version.ts';
import type { Devices } from '../devices/devices.ts';
import { type Network, routingId } from '../network/network.ts';
import type { Node } from '../network/node.ts';
import type { Tell } from '../notifications/copies/progress-reports.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import type { Store } from '../store/store.ts';
import { Cluster } from './cluster.ts';
import { clusterCommands } from './commands.ts';
import { Feed } from './feed.ts';
import { Hearing } from './hearing.ts';
import { Links } from './links.ts';

/** What {@link joinCluster} builds from. */
export interface JoinModules {
  readonly clock: Clock;
  /** The hivemind's X25519 private key, 32 bytes. */
  readonly secret: Uint8Array;
  readonly copies: number;
  readonly store: Pick<Store, 'load' | 'watchWrites'> & { readonly cluster: ClusterStore };
  /** Loads the subscriptions of these slots into memory. @throws StoreError */
  readonly load: (slots: ReadonlySet<number>) => Promise<void>;
  readonly devices: Devices;
  readonly network: Network;
  /** Whether a client's request for that device is being worked on. */
  readonly inWork: (service: string, serviceId: string) => boolean;
  /** Takes what other members report of their pushes. */
  readonly onProgress: (progress: Progress) => void;
  readonly log: Log;
}

/** The parts that only a hivemind that is one of several has. */
export interface Joined {
  readonly cluster: Cluster;
  readonly links: Links;
  readonly hearing: Hearing<Node>;
  readonly feed: Feed;
  /** Tells another member what has become of our pushes. */
  readonly tell: Tell;
  /** The commands that other members call here. */
  readonly commands: Commands;
  /** Marks us as stopped in the database, once nothing is connected under our routing ids any more. */
  close(): Promise<void>;
}

/** Builds the parts of a member and connects them to each other. */
export function joinCluster(modules: JoinModules): Joined {
  const { clock, secret, copies, store, load, devices, network, inWork, onProgress, log } = modules;
  const { membership } = store.cluster;
  const own: Hello = { name: membership.name, run: membership.run, version: VERSION };
  const links = new Links({ clock, secret, routingId: routingId('member', secret, membership), own, log });
  const cluster = new Cluster({
    clock,
    own,
    copies,
    beat: (own) => store.cluster.beat(own),
    load,
    devices,
    uncovered: () => network.monitoring.uncoveredSlots(),
    setSlots: (slots) => network.setSlots(slots),
    spareSlots: (slots) => network.monitoring.spareSlots(slots),
    links,
    log,
  });
  const feed = new Feed({
    clock,
    store,
    cluster: store.cluster,
    devices,
    holds: (slot) => cluster.holdsSlot(slot),
    inWork,
    log,
  });
  const hearing = new Hearing<Node>({
    clock,
    othersOf: (slot) => cluster.duty.othersOf(slot),
    serverOf: (key) => network.find(key),
    askedSince: (node, slot) => network.monitoring.askedSince(node.swarmMember, slot),
    reconnect: (node) => network.reconnect(node),
    tell: (member, servers) => links.send(member, 'cluster.heard', encodeHeard({ ...own, servers })),
    log,
  });
  return {
    cluster,
    links,
    hearing,
    feed,
    tell: (member, news) =>
      links.request(member, 'cluster.progress', [encodeProgress({ ...own, ...news })]).then(
        () => true,
        () => false,
      ),
    commands: clusterCommands({
      own,
      onProgress,
      onChanged: ({ slots }) => {
        if (cluster.holdsAnyOf(slots)) feed.hint();
      },
      onLeaving: () => cluster.refresh(),
      onHeard: (heard) => hearing.take(heard),
      log,
    }),
    async close() {
      cluster.stop();
      hearing.stop();
      await links.close();
      await feed.stop();
      await store.cluster.leave();
    },
  };
}
