import { specialBlock } from '../special-addresses.ts';

/**
 * Why we should not connect to a node's address; undefined if we may. Anybody can register a node with any address, and
 * must not make us connect to our own machines. Ports are not restricted: a public address is its owner's business.
 *
 * @param host as oxend gives it; a node's public_ip can only be IPv4
 * @param allowPrivate allows any address that a host in a private network can have, loopback included
 */
export function addressTrouble(host: string, allowPrivate: boolean): string | undefined {
  const block = host.includes(':') ? null : specialBlock(host);
  if (block === null) return 'the address is no IPv4 address';
  if (!block || (allowPrivate && !block.never)) return undefined;
  return block.never ? `the address is ${block.what}` : `the address is ${block.what}, and allow_private_nodes is no`;
}
