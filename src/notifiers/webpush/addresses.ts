import { lookup as systemLookup } from 'node:dns/promises';
import { isIPv6, type LookupFunction } from 'node:net';
import { specialBlock } from '../../special-addresses.ts';

/** Asks the DNS. Both reject with an Error that has a `code`. */
export interface NameServers {
  resolve4(host: string): Promise<string[]>;
  resolve6(host: string): Promise<string[]>;
}

/** The code of the error for a host that has no public address. */
export const NOT_PUBLIC = 'ENOTPUBLIC';

/**
 * How connections to endpoints look up their addresses. Subscribers choose the host, and its owner decides what the DNS
 * answers, perhaps something else the second time. So addresses that are not public are left out here, and the
 * connection is made to one of the rest without another look-up.
 *
 * Names are looked up by {@link NameServers}, which hold up nothing while somebody's server lets us wait: the system's
 * look-up blocks one of four threads for each name. The operator's own hosts use the system's, since they may be in
 * /etc/hosts.
 *
 * @param own hosts that may have a private address
 */
export function publicLookup(servers: NameServers, own: readonly string[]): LookupFunction {
  return (host, { all }, callback) => {
    const found = own.includes(host) ? ownAddresses(host) : publicAddresses(host, servers);
    found.then(
      (addresses) => {
        const list = addresses.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 }));
        // There is always a first one.
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
