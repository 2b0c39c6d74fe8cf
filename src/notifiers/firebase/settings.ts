import { readFileSync } from 'node:fs';
import { integer, number, parsed, string, type Table } from '../../settings/table.ts';
import { PROXY } from '../runtime/proxy.ts';
import { readServiceAccount } from './service-account.ts';

/** `[notify-firebase]` */
export const FIREBASE = {
  settings: {
    account: parsed('token_file', (file, section) => readServiceAccount(section.path('token_file') ?? file), {
      required: true,
      example: 'firebase.json',
      text: "The service account's JSON file.",
    }),
    connections: integer('connections', {
      default: 4,
      min: 1,
      max: 16,
      text: `How many batches may be on their way to Google at the same time, and for how many seconds pushes are
        gathered for one.`,
    }),
    /** Seconds. */
    notifyInterval: number('notify_interval', { default: 0.05, min: 0, max: 10 }),
    proxy: PROXY,
    // A server in place of Google's; the one for access tokens is named in the service account's file.
    url: string('url', { pattern: /^https:\/\//, what: 'an https:// address', hidden: true }),
    ca: parsed('ca_file', (file) => readFileSync(file), { hidden: true }),
  },
  obsolete: {
    retries: 'all notifiers retry by the same rule, for up to an hour',
    retry_interval: 'all notifiers retry by the same rule, for up to an hour',
  },
} satisfies Table;
