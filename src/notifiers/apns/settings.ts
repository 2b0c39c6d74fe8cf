import { readFileSync } from 'node:fs';
import { integer, number, parsed, path, string, type Table } from '../../settings/table.ts';
import { PROXY } from '../runtime/proxy.ts';

const ON_THE_PAGE = { pattern: /^[A-Z0-9]{10}$/, what: "10 capital letters and digits, as on Apple's page of keys" };

/** `[notify-apns]` and `[notify-apns-sandbox]`. */
export const APNS = {
  settings: {
    topic: string('identifier', {
      required: true,
      example: 'com.loki-project.loki-messenger',
      text: "The app's bundle id, and the client certificate with its key in one PEM file.",
    }),
    certFile: path('cert_file', { example: 'apns.pem' }),
    keyFile: path('key_file', {
      example: 'AuthKey_ABC1234567.p8',
      text: "Instead of cert_file: a key of the team (.p8 file), with its ids from Apple's page of keys.",
    }),
    keyId: string('key_id', { requiredWith: 'key_file', example: 'ABC1234567', ...ON_THE_PAGE }),
    teamId: string('team_id', { requiredWith: 'key_file', example: 'DEF7654321', ...ON_THE_PAGE }),
    connections: integer('connections', {
      default: 3,
      min: 1,
      max: 16,
      text: `How many connections to Apple to make, how many pushes may be on their way in each, and how many seconds
        Apple may take for one.`,
    }),
    streams: integer('streams', { default: 500, min: 1, max: 1000 }),
    /** Seconds. */
    timeout: number('timeout', { default: 10, min: 0.1, max: 60 }),
    proxy: PROXY,
    // A server in place of Apple's.
    host: string('host', { hidden: true }),
    port: integer('port', { default: 443, min: 1, max: 65_535, hidden: true }),
    ca: parsed('ca_file', (file) => readFileSync(file), { hidden: true }),
  },
  obsolete: {
    retries: 'all notifiers retry by the same rule, for up to an hour',
    retry_interval: 'all notifiers retry by the same rule, for up to an hour',
  },
} satisfies Table;
