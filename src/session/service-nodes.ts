/** rpc.get_service_nodes: oxend's list of the nodes that storage servers run on (docs/spec/network.md, section 1). */

import { fromHex } from '../codec/bytes.ts';
import { parseJson } from '../codec/json.ts';
import { INVALID_SWARM } from './swarm.ts';

/** The request's one data part: active nodes, and only the fields that are needed. */
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

/** A node that belongs to a swarm. */
export interface ServiceNode {
  /** X25519, 32 bytes. */
  readonly publicKey: Buffer;
  /**
   * As oxend gives it, 1 to 45 characters of visible ASCII, not checked to be an address. Empty if oxend knows none, as
   * just after it has synchronised.
   */
  readonly host: string;
  /** 1 to 65535; 0 if oxend knows no address. */
  readonly port: number;
  readonly swarm: bigint;
}

/** The network at a block. */
export interface ServiceNodes {
  readonly height: number;
  /** 64 hex digits. */
  readonly blockHash: string;
  readonly nodes: readonly ServiceNode[];
  /** The swarms of all listed nodes, including nodes that `nodes` leaves out; in any order, with repetitions. */
  readonly swarms: readonly bigint[];
  /** How many listed nodes `nodes` leaves out: those without a key, or in no swarm. */
  readonly skipped: number;
}

/**
 * Reads oxend's reply. A node that lacks something is no error: every list has some. Which swarm an account belongs to
 * depends on all swarms, so every listed one counts, whether or not its nodes can be reached.
 *
 * @param reply all its parts
 * @throws Error with a sentence for the log, or JsonError, if the reply is not a list of nodes
 */
export function parseServiceNodes(reply: readonly Buffer[]): ServiceNodes {
  const [status, body] = reply;
  if (!status || !body || reply.length > 2) throw new Error(`oxend answered with ${reply.length} parts instead of 2`);
  if (status.toString('latin1') !== '200') {
    throw new Error(`oxend answered ${status.toString().slice(0, 20)}: ${body.toString().slice(0, 200)}`);
  }
  const answer = record(parseJson(body));
  const states = answer.service_node_states;
  if (!Array.isArray(states)) throw new Error('oxend answered without a list of service nodes');
  const { height, block_hash: blockHash } = answer;
  if (typeof height !== 'number' || !Number.isInteger(height)) throw new Error('oxend answered without a height');
  if (typeof blockHash !== 'string' || blockHash.length !== 64) throw new Error('oxend answered without a block hash');
  const nodes: ServiceNode[] = [];
  const swarms: bigint[] = [];
  for (const state of states) {
    const fields = record(state);
    const swarm = swarmOf(fields.swarm_id);
    if (swarm === undefined) continue;
    swarms.push(swarm);
    const key = fields.pubkey_x25519;
    const publicKey = typeof key === 'string' ? fromHex(key) : undefined;
    if (publicKey?.length === 32) nodes.push({ publicKey, swarm, ...addressOf(fields) });
  }
  return { height, blockHash, nodes, swarms, skipped: states.length - nodes.length };
}

function swarmOf(id: unknown): bigint | undefined {
  const swarm = typeof id === 'bigint' ? id : Number.isSafeInteger(id) ? BigInt(id as number) : INVALID_SWARM;
  return swarm >= 0n && swarm < INVALID_SWARM ? swarm : undefined;
}

function addressOf({ public_ip: host, storage_lmq_port: port }: Record<string, unknown>) {
  const known =
    typeof host === 'string' &&
    /^[\x21-\x7e]{1,45}$/.test(host) &&
    host !== '0.0.0.0' &&
    typeof port === 'number' &&
    Number.isInteger(port) &&
    port > 0 &&
    port <= 65535;
  return known ? { host, port } : { host: '', port: 0 };
}

/** What is no object has no fields. */
function record(value: unknown): Record<string, unknown> {
  return Object(value);
}
