import { lookup as systemLookup } from 'node:dns/promises';
import { isIPv6, type LookupFunction } from 'node:net';
import { specialBlock } from '../../special-addresses.ts';

/** Asks the DNS; rejects with an Error that has a `code`. */
export interface NameServers {
  resolve4(host: string): Promise<string[]>;
  resolve6(host: string): Promise<string[]>;
}

/** The code of the error for a host that has no public address. */
export const NOT_PUBLIC = 'ENOTPUBLIC';

/**
 * How connections to endpoints find their addresses. Whoever subscribed named the host, and the DNS says what its owner
 * likes, the second time something else: so addresses that are not public are left out here, and what is left is what
 * the connection is made to, without being looked up again.
 *
 * Names are asked for by {@link NameServers}, which hold up nothing while somebody's server lets us wait: the system's
 * way blocks one of four threads for each name. The operator's own hosts go that way, for they may stand in /etc/hosts.
 * @param own hosts whose address may be a private one
 */
export function publicLookup(servers: NameServers, own: readonly string[]): LookupFunction {
  return (host, { all }, callback) => {
    const found = own.includes(host) ? ownAddresses(host) : publicAddresses(host, servers);
    found.then(
      (addresses) => {
        const list = addresses.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 }));
        // Never empty.
        const [first] = list;
        if (all || !first) callback(null, list);
        else callback(null, first.address, first.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, []),
    );
  };
}

async function ownAddresses(host: string): Promise<string[]> {
  return (await systemLookup(host, { all: true })).map(({ address }) => address);
}

async function publicAddresses(host: string, servers: NameServers): Promise<string[]> {
  const answers = await Promise.allSettled([servers.resolve4(host), servers.resolve6(host)]);
  const all = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  if (all.length === 0) throw answers.find((answer) => answer.status === 'rejected')?.reason ?? failure('ENODATA');
  const usable = all.filter((address) => specialBlock(address) === undefined);
  if (usable.length === 0) throw failure(NOT_PUBLIC);
  return usable;
}

function failure(code: string): Error {
  return Object.assign(new Error(`no address (${code})`), { code });
}
