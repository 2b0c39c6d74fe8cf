import { fromHex } from '../codec/bytes.ts';
import { checkedListen } from './listen-address.ts';
import { parsed, type Table, type Values } from './table.ts';

/** `[canary]`: an installation that has this section runs a canary. */
export const CANARY = {
  settings: {
    frontEnd: parsed('front_end', frontEnd, {
      required: true,
      restart: ['canary'],
      example: 'https://push.example.org',
      text: `The public address at which clients reach the web front-end, so that the web server, the certificate and the
        firewall in between are tested as well; and the public key that belongs to [keys] onionreq, 64 hex digits, as
        "spns keygen" printed it.`,
    }),
    frontEndKey: parsed('front_end_key', frontEndKey, {
      required: true,
      restart: ['canary'],
      example: '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
    }),
    /** `host:port` or `unix:/path`. */
    metricsListen: parsed('metrics_listen', checkedListen, {
      restart: ['canary'],
      listens: 'canary',
      example: '127.0.0.1:9186',
      text: 'As for the hivemind.',
    }),
  },
} satisfies Table;

export type CanarySettings = Values<typeof CANARY.settings>;

/** The front-end's address without a trailing slash. */
function frontEnd(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
    throw new Error('must be an address such as https://push.example.org');
  }
  return url.href.replace(/\/+$/, '');
}

function frontEndKey(text: string): Buffer {
  const key = fromHex(text);
  if (key?.length !== 32) throw new Error('must be 64 hex digits: the public key that belongs to [keys] onionreq');
  return key;
}
