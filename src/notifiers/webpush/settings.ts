import { readFileSync } from 'node:fs';
import { integer, number, parsed, string, type Table } from '../../settings/table.ts';
import { readVapidKey } from '../../settings/vapid-key.ts';
import { PROXY } from '../runtime/proxy.ts';
import { readHosts } from './endpoints.ts';

/** `[notify-webpush]` */
export const WEBPUSH = {
  settings: {
    key: parsed('vapid_key_file', (file, section) => readVapidKey(section.path('vapid_key_file') ?? file), {
      required: true,
      example: 'vapid.pem',
      text: `The key by which push services know this server, made by "spns keygen --vapid FILE", and an address at
        which their operators can reach you. Apps register at their push services with the key's public half.`,
    }),
    contact: string('contact', {
      required: true,
      example: 'mailto:push@example.org',
      pattern: /^(mailto:[^\s@]+@[^\s@]+|https:\/\/\S+)$/,
      what: 'a mailto: or https: address',
    }),
    allowed: parsed('allowed_endpoints', (text) => readHosts(text, true), {
      example: '*.push.services.mozilla.com, fcm.googleapis.com, ntfy.sh',
      text: `Hosts of the push services to push to, with *. for all below a domain. Unless set, every host of the
        internet, so that people can use their own UnifiedPush server.`,
    }),
    ownHosts: parsed('private_endpoints', (text) => readHosts(text, false), {
      example: 'ntfy.example.org',
      text: `Hosts that may have an address of a private network or of this machine, such as your own ntfy. All others
        are refused there.`,
    }),
    connections: integer('connections', {
      default: 500,
      min: 2,
      max: 2000,
      text: `How many pushes may be on their way at the same time, to all push services together, and how many seconds
        one may take. No service gets so many that nothing is left for the others.`,
    }),
    /** Seconds. */
    timeout: number('timeout', { default: 10, min: 0.1, max: 30 }),
    proxy: PROXY,
    ca: parsed('ca_file', (file) => readFileSync(file), { hidden: true }),
    // A name server to ask instead of the system's, as address:port.
    nameServer: string('name_server', { hidden: true }),
  },
} satisfies Table;
