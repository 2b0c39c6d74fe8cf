/**
 * Which addresses a storage server can have (IANA's special-purpose registry of IPv4; nothing else can be public_ip).
 */

/**
 * Blocks that lead to ourselves, to our own network or to no single host; those marked are never right, even in a
 * private network.
 */
const SPECIAL: readonly { base: number; bits: number; what: string; never?: true }[] = [
  { base: ip(0), bits: 8, what: 'of this network (0.0.0.0/8)', never: true },
  { base: ip(10), bits: 8, what: 'private' },
  { base: ip(100, 64), bits: 10, what: 'shared behind a NAT (100.64.0.0/10)' },
  { base: ip(127), bits: 8, what: 'loopback' },
  { base: ip(169, 254), bits: 16, what: 'link-local' },
  { base: ip(172, 16), bits: 12, what: 'private' },
  { base: ip(192), bits: 24, what: 'for protocol assignments (192.0.0.0/24)' },
  { base: ip(192, 0, 2), bits: 24, what: 'for documentation' },
  { base: ip(192, 88, 99), bits: 24, what: 'for 6to4 relays' },
  { base: ip(192, 168), bits: 16, what: 'private' },
  { base: ip(198, 18), bits: 15, what: 'for benchmarks' },
  { base: ip(198, 51, 100), bits: 24, what: 'for documentation' },
  { base: ip(203, 0, 113), bits: 24, what: 'for documentation' },
  { base: ip(224), bits: 4, what: 'multicast', never: true },
  { base: ip(240), bits: 4, what: 'reserved or broadcast', never: true },
];

/**
 * Why a node's address is not one to connect to; undefined if it is. Anybody can register a node with any address, and
 * must not make us knock at our own doors. Every port is taken: on a public address it is its owner's.
 *
 * @param host as oxend tells it
 * @param allowPrivate takes all that can be a host of a private network, loopback included
 */
export function addressTrouble(host: string, allowPrivate: boolean): string | undefined {
  const octets = host.split('.');
  // Without leading zeros, which some read as octal numbers.
  if (octets.length !== 4 || !octets.every((octet) => /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) <= 255)) {
    return 'the address is no IPv4 address';
  }
  const [a, b, c, d] = octets.map(Number);
  const address = ip(a!, b, c, d);
  const block = SPECIAL.find(({ base, bits }) => (address ^ base) >>> (32 - bits) === 0);
  if (!block || (allowPrivate && !block.never)) return undefined;
  return block.never ? `the address is ${block.what}` : `the address is ${block.what}, and allow_private_nodes is no`;
}

function ip(a: number, b = 0, c = 0, d = 0): number {
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}
