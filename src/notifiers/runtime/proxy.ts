import { isIPv6 } from 'node:net';
import { parsed } from '../../settings/table.ts';

/** An HTTP proxy through which a notifier reaches its provider. */
export interface HttpProxy {
  readonly host: string;
  readonly port: number;
  /** The value of Proxy-Authorization; undefined if the proxy needs no user. */
  readonly authorization: string | undefined;
}

/**
 * Reads `http://[user:password@]host[:port]`. Characters in user and password that mean something else in a URL must be
 * percent-encoded.
 *
 * @throws Error with a sentence
 */
export function parseProxy(text: string): HttpProxy {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'https:') {
    throw new Error(
      'must begin with http://: the proxy itself is asked in plain HTTP, what goes through it is encrypted',
    );
  }
  if (
    url?.protocol !== 'http:' ||
    url.hostname === '' ||
    url.pathname !== '/' ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    throw new Error('must be http://[user:password@]host:port');
  }
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? 80 : Number(url.port),
    authorization: authorizationOf(url),
  };
}

function authorizationOf({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined;
  let credentials: string;
  try {
    credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  } catch {
    throw new Error('has a stray % in its user or password: write it %25');
  }
  return `Basic ${Buffer.from(credentials).toString('base64')}`;
}

/** Host and port, written as in a URL and in a CONNECT request. */
export function authority(host: string, port: number): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

/** The key of every notifier that can use a proxy. */
export const PROXY = parsed('proxy', parseProxy, {
  secret: true,
  example: 'http://user:password@proxy.example.org:3128',
  text: `An HTTP proxy (CONNECT) through which to reach the provider, also for access tokens. The environment variable
    HTTPS_PROXY is not read.`,
});
