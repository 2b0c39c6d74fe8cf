/** Addresses that lead to no host of the internet (IANA's special-purpose registries of IPv4 and IPv6). */

export interface SpecialBlock {
  /** Completes "the address is …". */
  readonly what: string;
  /** Wrong even in a private network: no single host has such an address. */
  readonly never?: true;
}

const IPV4: readonly (SpecialBlock & { readonly base: number; readonly bits: number })[] = [
  { base: ip(0), bits: 8, what: 'of this network (0.0.0.0/8)', never: true },
  { base: ip(10), bits: 8, what: 'private' },
  { base: ip(100, 64), bits: 10, what: 'shared behind a NAT (100.64.0.0/10)' },
  { base: ip(127), bits: 8, what: 'loopback' },
  { base: ip(168, 63, 129, 16), bits: 32, what: "of Azure's platform (168.63.129.16)" },
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

/** Within 2000::/3; nothing else in IPv6 is on the internet, except what contains an IPv4 address. */
const IPV6: readonly (SpecialBlock & { readonly base: readonly number[]; readonly bits: number })[] = [
  { base: [0x2001, 0], bits: 23, what: 'for protocol assignments (2001::/23)' },
  { base: [0x2001, 0xdb8], bits: 32, what: 'for documentation' },
  { base: [0x2002], bits: 16, what: 'of 6to4' },
  { base: [0x3fff], bits: 20, what: 'for documentation' },
];
/** Prefixes of 96 bits before an IPv4 address: mapped (RFC 4291), and translated by the network (RFC 6052). */
const AROUND_IPV4: readonly (readonly number[])[] = [
  [0, 0, 0, 0, 0, 0xffff],
  [0x64, 0xff9b, 0, 0, 0, 0],
];

/**
 * The block of special addresses that an IPv4 or IPv6 address lies in; undefined if it is public, null if `text` is no
 * address. IPv4 with leading zeros is none, since some read those as octal, nor is IPv6 with a zone.
 */
export function specialBlock(text: string): SpecialBlock | undefined | null {
  const ipv4 = readIpv4(text);
  if (ipv4 !== undefined) return IPV4.find(({ base, bits }) => (ipv4 ^ base) >>> (32 - bits) === 0);
  const groups = readIpv6(text);
  if (!groups) return null;
  if (AROUND_IPV4.some((prefix) => prefix.every((group, index) => groups[index] === group))) {
    const [high = 0, low = 0] = groups.slice(6);
    return specialBlock([high >>> 8, high & 255, low >>> 8, low & 255].join('.'));
  }
  const [first = 0] = groups;
  if (first >>> 13 !== 1) return { what: 'of no public part of IPv6' };
  return IPV6.find(({ base, bits }) => startsWith(groups, base, bits));
}

function readIpv4(text: string): number | undefined {
  const octets = text.split('.');
  if (octets.length !== 4 || !octets.every((octet) => /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) <= 255)) {
    return undefined;
  }
  const [a = 0, b, c, d] = octets.map(Number);
  return ip(a, b, c, d);
}

/** @returns 8 numbers of 16 bits */
function readIpv6(text: string): number[] | undefined {
  // The last 32 bits may be written as an IPv4 address.
  const dotted = /[^:]*\.[^:]*$/.exec(text)?.[0] ?? '';
  const last = dotted === '' ? undefined : readIpv4(dotted);
  if (dotted !== '' && last === undefined) return undefined;
  const hex =
    last === undefined
      ? text
      : `${text.slice(0, -dotted.length)}${(last >>> 16).toString(16)}:${(last & 0xffff).toString(16)}`;
  const halves = hex.split('::');
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - head.length - tail.length;
  if (halves.length > 2 || (halves.length === 1 ? missing !== 0 : missing < 1)) return undefined;
  const groups = [...head, ...Array<string>(missing).fill('0'), ...tail];
  return groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))
    ? groups.map((group) => Number.parseInt(group, 16))
    : undefined;
}

function startsWith(groups: readonly number[], base: readonly number[], bits: number): boolean {
  for (let index = 0; index * 16 < bits; index++) {
    const differ = (groups[index] ?? 0) ^ (base[index] ?? 0);
    if (differ >>> Math.max(16 * (index + 1) - bits, 0) !== 0) return false;
  }
  return true;
}

function ip(a: number, b = 0, c = 0, d = 0): number {
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}
