import { type Encodable, encode } from '../codec/bencode.ts';
import { toBase32z } from '../codec/bytes.ts';
import { blake2b } from '../session/sodium.ts';
import { INVALID_SWARM, SwarmSpace } from '../session/swarm.ts';
import type { Refusal } from './monitor-request.ts';

/** What storage servers tell about a member of a swarm. */
export interface Contact {
  /** X25519, 32 bytes */
  readonly publicKey: Buffer;
  readonly host: string;
  readonly port: number;
}

/** The swarms as one storage server knows them, by its own latest block, which need not be everybody's. */
export interface SwarmView {
  /** The server's own swarm. */
  readonly own: bigint;
  readonly swarms: ReadonlyMap<bigint, readonly Contact[]>;
}

/** Decides by a view which accounts are a server's own (docs/spec/upstream.md, sections 1.1 and 1.3). */
export interface Judge {
  /** Whether the view has any swarm. */
  readonly informed: boolean;
  /** Why the account is not monitored here; undefined if it is. */
  refusal(account: Uint8Array): Refusal | undefined;
  /** The body of `notify.monitor_ended`, if the account does not belong here, or no longer. */
  ended(account: Buffer): Buffer | undefined;
}

const WRONG_SWARM = 6;
const NO_SWARM_INFO = 7;

/** The judge of a view. Without a view every account is the server's own, as with servers before 2.11. */
export function judgeOf(view: SwarmView | undefined): Judge {
  const space = new SwarmSpace([...(view?.swarms.keys() ?? [])]);
  const informed = space.ids.length > 0;
  const contacts = new Map<bigint, Encodable[]>();
  /** Where else the account is; undefined if it is here. */
  const elsewhere = (account: Uint8Array): { snodes: Encodable[]; swarm: string } | undefined => {
    const id = space.ids[space.closest(account)] ?? INVALID_SWARM;
    if (!view || id === view.own) return undefined;
    let snodes = contacts.get(id);
    if (!snodes) {
      snodes = (view.swarms.get(id) ?? []).map(snode);
      contacts.set(id, snodes);
    }
    return { snodes, swarm: id.toString(16) };
  };
  return {
    informed,
    refusal(account) {
      if (view && !informed) return { errcode: NO_SWARM_INFO, error: 'This service node knows no swarms' };
      const there = elsewhere(account);
      const error = "Account is not stored by this service node's swarm";
      return there && { errcode: WRONG_SWARM, error, ...there };
    },
    ended(account) {
      const there = elsewhere(account);
      const error = "Account is no longer stored by this service node's swarm";
      return there && encode({ '@': account, errcode: WRONG_SWARM, error, ...there });
    },
  };
}

/** The Ed25519 key of the node with that X25519 key, 32 bytes. */
export function nodeEd25519(publicKey: Buffer): Buffer {
  return otherKey(publicKey, 'ed25519');
}

/** A node's other two keys are not used here: they only have to look like keys, and to stay the same. */
function otherKey(publicKey: Buffer, use: 'ed25519' | 'legacy'): Buffer {
  return blake2b(32, Buffer.concat([publicKey, Buffer.from(use)]));
}

function snode({ publicKey, host, port }: Contact): Encodable {
  const legacy = otherKey(publicKey, 'legacy');
  return {
    address: `${toBase32z(legacy)}.snode`,
    ip: host,
    port: String(port - 1),
    port_https: port - 1,
    port_omq: port,
    port_quic: port,
    pubkey_ed25519: nodeEd25519(publicKey).toString('hex'),
    pubkey_legacy: legacy.toString('hex'),
    pubkey_x25519: publicKey.toString('hex'),
  };
}
