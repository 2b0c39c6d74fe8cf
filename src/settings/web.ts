import { isIP } from 'node:net';
import { checkedListen, parseListen } from './listen-address.ts';
import type { Section } from './section.ts';
import { integer, parsed, readTable, type Table, type Values } from './table.ts';

/**
 * `[web]`. The table is here and not beside the front-end since every program checks the whole file, and the commands
 * need to know where the front-end listens.
 */
export const WEB = {
  settings: {
    /** `host:port` or `unix:/path`. */
    listen: parsed('listen', checkedListen, {
      default: '127.0.0.1:8000',
      restart: ['web'],
      listens: 'web',
      text: 'host:port, or unix:/path for a web server such as nginx in front.',
    }),
    bodyLimit: integer('body_limit', {
      default: 100_000,
      min: 1024,
      max: 16 * 1024 * 1024,
      restart: ['web'],
      text: 'Longest request body, in bytes.',
    }),
    /** Whether to believe nobody, everybody, or these addresses and networks, separated by commas. */
    trustProxy: parsed('trust_proxy', trustProxy, {
      default: 'no',
      restart: ['web'],
      text: `Whose X-Forwarded-For header is believed: no, yes (only if nobody but your proxy can connect), or addresses
        and networks of your proxies.`,
    }),
    /** Requests a minute; 0: no limit. */
    rateLimit: integer('rate_limit', {
      default: 0,
      min: 0,
      text: `Plain requests a minute from one client address; 0: no limit. Onion requests are never limited: they come
        from the service nodes. Behind a proxy set trust_proxy too, or all clients count as one.`,
    }),
    inFlightLimit: integer('in_flight_limit', {
      default: 500,
      min: 1,
      text: `How many requests may wait for the hivemind at the same time; further ones are answered 503 with Retry-After.
        A request of more than 8,000 bytes counts as several; such requests get at most half of the places, and one
        client address at most four fifths.`,
    }),
    /** `host:port` or `unix:/path`. */
    metricsListen: parsed('metrics_listen', checkedListen, {
      restart: ['web'],
      listens: 'web',
      example: '127.0.0.1:9181',
      text: 'As for the hivemind; there is no status page here.',
    }),
  },
} satisfies Table;

export type WebSettings = Values<typeof WEB.settings>;

export function readWeb(section: Section, warnings: string[]): WebSettings {
  const settings = readTable(section, WEB);
  if (section.problems.length === 0) warnings.push(...proxyWarnings(settings));
  return settings;
}

/** Settings that do not go together with where the front-end listens. */
function proxyWarnings({ listen, trustProxy, rateLimit }: WebSettings): string[] {
  const address = parseListen(listen);
  const local = 'path' in address || /^(127\.|::1$|localhost$)/.test(address.host);
  if (rateLimit > 0 && trustProxy === false && local) {
    const effect = 'path' in address ? 'has no effect' : 'counts all clients as one';
    return [
      `[web].rate_limit ${effect}: with listen = ${listen} clients come through a proxy, and can be told apart only if [web].trust_proxy is set`,
    ];
  }
  if (trustProxy === true && !local) {
    return [
      `[web].trust_proxy = yes believes the X-Forwarded-For of everybody who can connect to ${listen}: name your proxies instead, unless nobody else can connect`,
    ];
  }
  return [];
}

function trustProxy(text: string): boolean | string {
  if (/^(no|false|off|0)$/i.test(text)) return false;
  if (/^(yes|true|on|1)$/i.test(text)) return true;
  const words = text.split(/[\s,]+/).filter((word) => word !== '');
  for (const word of words) {
    if (!/^(loopback|linklocal|uniquelocal)$/.test(word) && !isNetwork(word)) {
      throw new Error(
        'must be yes, no, or the addresses or networks of your proxies, such as 127.0.0.1, 10.0.0.0/8 or loopback',
      );
    }
  }
  return words.join(',');
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}
