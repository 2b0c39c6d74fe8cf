import { readFileSync } from 'node:fs';
import { integer, parsed, string, type Table } from '../../settings/table.ts';
import { PROXY } from '../runtime/proxy.ts';

const HTTPS = { pattern: /^https:\/\//, what: 'an https:// address', hidden: true } as const;

/** `[notify-huawei]` */
export const HUAWEI = {
  settings: {
    appId: string('app_id', { required: true, example: '107205081', pattern: /^\d+$/, what: 'the number of the app' }),
    secret: string('app_secret', { required: true, example: 'SECRET', secret: true }),
    connections: integer('connections', {
      default: 100,
      min: 1,
      max: 1000,
      text: 'How many pushes may be on their way to Huawei at the same time.',
    }),
    proxy: PROXY,
    // Servers in place of Huawei's.
    url: string('url', { default: 'https://push-api.cloud.huawei.com', ...HTTPS }),
    oauthUrl: string('oauth_url', { default: 'https://oauth-login.cloud.huawei.com/oauth2/v3/token', ...HTTPS }),
    ca: parsed('ca_file', (file) => readFileSync(file), { hidden: true }),
  },
  obsolete: { notify_interval: 'pushes are sent as they come' },
} satisfies Table;
