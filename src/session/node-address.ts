import { specialBlock } from '../special-addresses.ts';

/**
 * Why a node's address is not one to connect to; undefined if it is. Anybody can register a node with any address, and
 * must not make us knock at our own doors. Every port is taken: on a public address it is its owner's.
 *
 * @param host as oxend tells it; nothing but IPv4 can be a node's public_ip
 * @param allowPrivate takes all that can be a host of a private network, loopback included
 */
export function addressTrouble(host: string, allowPrivate: boolean): string | undefined {
  const block = host.includes(':') ? null : specialBlock(host);
  if (block === null) return 'the address is no IPv4 address';
  if (!block || (allowPrivate && !block.never)) return undefined;
  return block.never ? `the address is ${block.what}` : `the address is ${block.what}, and allow_private_nodes is no`;
}
