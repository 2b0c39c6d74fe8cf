import type { Member } from './member.ts';
import type { Node, NodeState } from './nodes.ts';

/** A storage server, as `admin.get_nodes` tells it. */
export interface NodeReport {
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
  /** Accounts that it should monitor, has confirmed since the last handshake, has not yet, and refuses. */
  accounts: number;
  confirmed: number;
  unconfirmed: number;
  refused: number;
  /** Age of the oldest confirmation; what was never confirmed counts from when it was first wanted. */
  oldest_seconds: number;
  /** Requests that wait for an answer. */
  in_flight: number;
  /** Requests that failed in a row. */
  failures: number;
  last_error: string;
}

/** The whole network in a few figures. */
export interface Summary {
  nodes: number;
  swarms: number;
  /** Connections that are up, and those that are being established. */
  connected: number;
  pending: number;
  /** -1 and empty before oxend's first answer. */
  blockHeight: number;
  blockHash: string;
  /** Servers that confirmed, since their last handshake and within the lifetime of a monitor, all they were asked. */
  fresh: number;
  /** Servers that are connected and answer nothing. */
  silent: number;
  /** Listed servers that have no address, or none that we connect to; and those that are left alone for what they did. */
  unusable: number;
  cutOff: number;
  /** How long ago the stalest account was last confirmed by any server of its swarm. */
  oldestSeconds: number;
  /** Pairs of server and account that are not confirmed; those that the server refuses. */
  unconfirmed: number;
  refused: number;
  /** Accounts that no server of their swarm has confirmed. */
  uncovered: number;
}

/** Requests in a row without an answer after which a server counts as silent. */
const SILENT_AFTER = 3;

export function isSilent(member: Member): boolean {
  return member.link !== undefined && member.failures >= SILENT_AFTER;
}

/** Whether a server has confirmed everything that it was asked. */
export function isFresh(member: Member): boolean {
  return member.link !== undefined && member.confirmed + member.refusedAccounts === member.accounts;
}

/** @param now seconds on the monitor's clock */
export function reportNode({ address, key, member, state, upSince, lastError }: Node, now: number): NodeReport {
  const { accounts, confirmed, refusedAccounts, oldest } = member;
  return {
    address: address.host === '' ? '' : `tcp://${address.host}:${address.port}`,
    key: key.slice(0, 12),
    swarm: address.swarm.toString(16),
    state: isSilent(member) ? 'silent' : state,
    connected_since: upSince === undefined ? null : Math.floor(upSince / 1000),
    accounts,
    confirmed,
    unconfirmed: accounts - confirmed - refusedAccounts,
    refused: refusedAccounts,
    oldest_seconds: oldest === 0 ? 0 : now - oldest,
    in_flight: member.urgentInFlight + (member.bulkInFlight ? 1 : 0),
    failures: member.failures,
    last_error: member.link ? member.lastError : lastError,
  };
}
