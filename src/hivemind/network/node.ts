import type { Timer } from '../../clock.ts';
import type { ServiceNode } from '../../session/service-nodes.ts';
import type { MemberReport } from '../monitoring/freshness.ts';
import type { Link, Member } from '../monitoring/member.ts';

/** What a connection tells about itself. */
export interface LinkEvents {
  /** The server greeted us, or a lost connection has been restored: from now on requests make sense. */
  up(): void;
  /** The connection broke; it is being restored without our doing. */
  down(): void;
  /**
   * It never came about, or was given up, and is closed.
   * @param offence the server did what no honest one does, at our cost
   */
  failed(reason: string, offence: boolean): void;
}

/** Makes a connection to a storage server. May throw. */
export type Connect = (node: Node, events: LinkEvents) => Link;

/**
 * - `queued`: waits for its turn to be connected
 * - `connecting`: not greeted yet
 * - `up`
 * - `down`: was up; ZeroMQ is restoring it
 * - `cooldown`: could not be connected, is tried again later
 * - `cut-off`: did us harm, and is left alone for an hour
 * - `unneeded`: keeps accounts of other hiveminds alone
 * - `unusable`: has no address, or none that we connect to; its swarm counts, but nothing is asked of it
 */
export type NodeState = 'queued' | 'connecting' | 'up' | 'down' | 'cooldown' | 'cut-off' | 'unneeded' | 'unusable';

/** A storage server of the network, and our connection to it. */
export class Node {
  /** Public key in hex: what makes it the same server. */
  readonly key: string;
  /** As listed; where the list has none, or no longer, the one known before. */
  address: ServiceNode;
  /** What monitoring knows of it. */
  readonly member: Member;
  state: NodeState = 'unusable';
  link: Link | undefined;
  /** Since when (unix ms) it is up. */
  upSince: number | undefined;
  /** How often it was connected under a new name of ours, having fallen silent. */
  renewals = 0;
  /** Connections in a row that failed. */
  failedConnects = 0;
  lastError = '';
  retry: Timer | undefined;

  constructor(key: string, address: ServiceNode, member: Member) {
    this.key = key;
    this.address = address;
    this.member = member;
  }
}

/** A storage server, as `admin.get_nodes` tells it. */
export interface NodeReport extends MemberReport {
  /** Empty if oxend knows none. */
  address: string;
  /** The first 12 hex digits of its public key. */
  key: string;
  /** In lower-case hex, as oxend's `swarm`. */
  swarm: string;
  /** `silent`: connected, but nothing was answered lately. */
  state: NodeState | 'silent';
  /** Unix seconds; null if it is not connected. */
  connected_since: number | null;
}

/** @param monitored what it monitors for us */
export function reportNode(node: Node, monitored: MemberReport): NodeReport {
  const { address, key, member, state, upSince, lastError } = node;
  return {
    address: address.host === '' ? '' : `tcp://${address.host}:${address.port}`,
    key: key.slice(0, 12),
    swarm: address.swarm.toString(16),
    state: member.isSilent ? 'silent' : state,
    connected_since: upSince === undefined ? null : Math.floor(upSince / 1000),
    ...monitored,
    last_error: member.isUp ? monitored.last_error : lastError,
  };
}
