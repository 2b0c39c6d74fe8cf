/** rpc.get_service_nodes: oxend's list of the nodes that storage servers run on (spec/network.md, section 1). */

import { fromHex } from '../codec/bytes.ts';
import { parseJson } from '../codec/json.ts';
import { INVALID_SWARM } from './swarm.ts';

/** The request's one data part: active nodes, and of each only what is needed. */
export const SERVICE_NODES_REQUEST: string = JSON.stringify({
  active_only: true,
  fields: {
    pubkey_x25519: true,
    public_ip: true,
    storage_lmq_port: true,
    swarm_id: true,
    block_hash: true,
    height: true,
  },
});

/** A node whose storage server can be asked. */
export interface ServiceNode {
  /** X25519, 32 bytes. */
  readonly publicKey: Buffer;
  /** IPv4, dotted. */
  readonly host: string;
  readonly port: number;
  readonly swarm: bigint;
}

/** The network at a block. */
export interface ServiceNodes {
  readonly height: number;
  /** 64 hex digits. */
  readonly blockHash: string;
  readonly nodes: readonly ServiceNode[];
  /** How many listed nodes are left out: without proof of life, address or swarm. */
  readonly skipped: number;
}

/**
 * Reads oxend's reply. Nodes that cannot be asked are skipped, not fatal: a list always has some.
 *
 * @param reply all its parts
 * @throws Error with a sentence for the log, if the reply is no list of nodes
 */
export function parseServiceNodes(reply: readonly Buffer[]): ServiceNodes {
  const [status, body] = reply;
  if (!status || !body || reply.length !== 2) throw new Error(`oxend answered with ${reply.length} parts instead of 2`);
  if (status.toString('latin1') !== '200') {
    throw new Error(`oxend answered ${status.toString().slice(0, 20)}: ${body.toString().slice(0, 200)}`);
  }
  const answer = record(parseJson(body));
  const states = answer?.service_node_states;
  if (!answer || !Array.isArray(states)) throw new Error('oxend answered without a list of service nodes');
  const { height, block_hash: blockHash } = answer;
  if (typeof height !== 'number' || !Number.isInteger(height)) throw new Error('oxend answered without a height');
  if (typeof blockHash !== 'string' || blockHash.length !== 64) throw new Error('oxend answered without a block hash');
  const nodes = states.map(parseNode).filter((node) => node !== undefined);
  return { height, blockHash, nodes, skipped: states.length - nodes.length };
}

function parseNode(state: unknown): ServiceNode | undefined {
  const fields = record(state);
  if (!fields) return undefined;
  const { pubkey_x25519: key, public_ip: host, storage_lmq_port: port, swarm_id: id } = fields;
  const publicKey = typeof key === 'string' ? fromHex(key) : undefined;
  if (publicKey?.length !== 32) return undefined;
  if (typeof host !== 'string' || !isAddress(host)) return undefined;
  if (typeof port !== 'number' || !Number.isInteger(port) || port <= 0 || port > 65535) return undefined;
  const swarm = typeof id === 'bigint' ? id : Number.isSafeInteger(id) ? BigInt(id as number) : -1n;
  if (swarm < 0n || swarm >= INVALID_SWARM) return undefined;
  return { publicKey, host, port, swarm };
}

/** An address that a node can have; it becomes part of one to connect to, so it is looked at closely. */
function isAddress(host: string): boolean {
  const octets = host.split('.');
  const valid = octets.every((octet) => /^\d{1,3}$/.test(octet) && Number(octet) <= 255);
  return octets.length === 4 && valid && host !== '0.0.0.0';
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
}
