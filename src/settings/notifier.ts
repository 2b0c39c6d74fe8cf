import { checkedListen } from './listen-address.ts';
import { parsed, path, type Table } from './table.ts';

/** The services whose notifier comes with SPNS. */
export const BUILT_IN_SERVICES = ['apns', 'apns-sandbox', 'firebase', 'huawei', 'webpush', 'dummy'] as const;

/**
 * The keys that every `[notify-…]` section may have; a provider's own are in its notifier's folder.
 */
export const NOTIFIER = {
  settings: {
    module: path('module', { example: '/etc/spns/example.ts' }),
    /** `host:port` or `unix:/path`. */
    metricsListen: parsed('metrics_listen', checkedListen, { restart: ['notifier'], listens: 'notifier' }),
  },
} satisfies Table;
