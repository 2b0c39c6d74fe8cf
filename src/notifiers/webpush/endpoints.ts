import { isIP } from 'node:net';

/** Where pushes may go. */
export interface Endpoints {
  /** Hosts, with `*.` before a domain for all below it; empty for all hosts of the internet. */
  readonly allowed: readonly string[];
  /** Hosts that may have a private address. */
  readonly private: readonly string[];
}

const NAME = /^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** Lower ports belong to well-known services, some of which only we may reach. */
const FIRST_FREE_PORT = 1024;

/**
 * Why pushes are not sent to an endpoint, by its URL alone; undefined if they are. Anybody can subscribe with any
 * address, and must not make us connect to our own machines. Where a name leads is checked in addresses.ts.
 */
export function endpointTrouble({ protocol, hostname, port, username, password, hash }: URL, endpoints: Endpoints) {
  if (protocol !== 'https:') return 'expected an https:// address';
  if (username !== '' || password !== '') return 'it must not have a user';
  if (hash !== '') return 'it must not have a fragment';
  if (hostname.startsWith('[') || isIP(hostname) !== 0) return 'an IP address is no name of a push service';
  if (!NAME.test(hostname)) return 'its host is not a name';
  if (!hostname.includes('.') && !endpoints.private.includes(hostname)) return 'its host is not a public name';
  if (port !== '' && Number(port) < FIRST_FREE_PORT) return `its port is below ${FIRST_FREE_PORT} and not 443`;
  if (!isAllowed(hostname, endpoints)) return 'this server does not push to that host';
  return undefined;
}

function isAllowed(host: string, { allowed, private: own }: Endpoints): boolean {
  if (allowed.length === 0 || own.includes(host)) return true;
  return allowed.some((pattern) => (pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) : host === pattern));
}

/**
 * Reads host names from a setting, in lower case.
 *
 * @param wildcards whether `*.` before a domain is allowed
 * @throws Error with a sentence
 */
export function readHosts(text: string, wildcards: boolean): readonly string[] {
  const hosts = text.split(/[\s,]+/).filter((host) => host !== '');
  return hosts.map((given) => {
    const host = given.toLowerCase();
    const name = wildcards ? host.replace(/^\*\./, '') : host;
    if (NAME.test(name)) return host;
    const example = wildcards ? 'ntfy.sh or *.push.services.mozilla.com' : 'ntfy.example.org';
    throw new Error(`${given} is not a host name, such as ${example}`);
  });
}
