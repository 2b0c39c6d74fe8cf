import type { Timer } from '../../clock.ts';
import type { ServiceNode } from '../../session/service-nodes.ts';
import type { MonitoringReport } from '../monitoring/freshness.ts';
import type { Channel, SwarmMember } from '../monitoring/swarm-member.ts';

/** What a connection tells about itself. */
export interface ChannelEvents {
  /** The server has greeted us, or a lost connection has been restored: requests can be sent from now on. */
  up(): void;
  /** The connection broke. ZeroMQ is restoring it. */
  down(): void;
  /**
   * The connection could not be made, or was given up; it is closed.
   * @param offence whether the server did something harmful that no honest one does
   */
  failed(reason: string, offence: boolean): void;
}

/** Makes a connection to a storage server. May throw. */
export type Connect = (node: Node, events: ChannelEvents) => Channel;

/**
 * - `queued`: waits for its turn to be connected
 * - `connecting`: has not greeted us yet
 * - `up`: connected
 * - `down`: was up; ZeroMQ is restoring the connection
 * - `cooldown`: could not be connected; will be tried again
 * - `cut-off`: did us harm; left alone for an hour
 * - `unneeded`: only keeps accounts that other hiveminds look after
 * - `unusable`: has no address, or none that we may connect to; its swarm still counts
 */
export type NodeState = 'queued' | 'connecting' | 'up' | 'down' | 'cooldown' | 'cut-off' | 'unneeded' | 'unusable';

/** A storage server of the network, and our connection to it. */
export class Node {
  /** Public key in hex, which identifies the server. */
  readonly key: string;
  /** As listed; the last known one if the list has none. */
  address: ServiceNode;
  /** What monitoring knows of it. */
  readonly swarmMember: SwarmMember;
  state: NodeState = 'unusable';
  channel: Channel | undefined;
  /** Since when (unix ms) it has been up. */
  upSince: number | undefined;
  /** How often we have reconnected to it under a new routing id, because it had fallen silent. */
  reconnects = 0;
  /** Failed connections in a row. */
  failedConnects = 0;
  lastError = '';
  retry: Timer | undefined;

  constructor(key: string, address: ServiceNode, swarmMember: SwarmMember) {
    this.key = key;
    this.address = address;
    this.swarmMember = swarmMember;
  }
}

/** A storage server as `admin.get_nodes` reports it. */
export interface NodeReport extends MonitoringReport {
  /** `tcp://HOST:PORT`; empty if oxend knows none. */
  address: string;
  /** The first 12 hex digits of its public key. */
  key: string;
  /** In lower-case hex, as oxend's `swarm`. */
  swarm: string;
  /** `silent`: connected, but has stopped answering. */
  state: NodeState | 'silent';
  /** Unix seconds; null if it is not connected. */
  connected_since: number | null;
}

/** @param monitored monitoring's report of it */
export function reportNode(node: Node, monitored: MonitoringReport): NodeReport {
  const { address, key, swarmMember, state, upSince, lastError } = node;
  return {
    address: address.host === '' ? '' : `tcp://${address.host}:${address.port}`,
    key: key.slice(0, 12),
    swarm: address.swarm.toString(16),
    state: swarmMember.isSilent ? 'silent' : state,
    connected_since: upSince === undefined ? null : Math.floor(upSince / 1000),
    ...monitored,
    last_error: swarmMember.isUp ? monitored.last_error : lastError,
  };
}
