import { writeFileSync } from 'node:fs';
import { APNS } from '../src/notifiers/apns/settings.ts';
import { FIREBASE } from '../src/notifiers/firebase/settings.ts';
import { HUAWEI } from '../src/notifiers/huawei/settings.ts';
import { WEBPUSH } from '../src/notifiers/webpush/settings.ts';
import { CANARY } from '../src/settings/canary.ts';
import { DATABASE } from '../src/settings/database.ts';
import { comment, renderSection } from '../src/settings/example.ts';
import { HIVEMIND } from '../src/settings/hivemind.ts';
import { KEYS } from '../src/settings/keys.ts';
import { LOG } from '../src/settings/log.ts';
import { NOTIFIER } from '../src/settings/notifier.ts';
import { WEB } from '../src/settings/web.ts';

const HEAD = [
  `SPNS configuration. Copy this to spns.ini, or anywhere else and name it in the environment variable SPNS_CONFIG.`,
  '',
  `Keys that are commented out show their default, or an example if they have none. Lines that start with ; or # are
   comments; after a value, ; and # are part of it.`,
  'A % sign is written %% (as in the original, where a password in db.url may contain one).',
  `"spns check-config" (with --unit: as systemd runs it) reports everything that is wrong with the file. SIGHUP
   (systemctl reload) makes a daemon read it again; keys that need a restart say so.`,
];

const NOTIFIERS = `One section for each notifier that you run. Each may have a metrics_listen of its own, which needs a
  restart; a reload applies everything else, including certificates and tokens that were replaced.`;

const common = [
  renderSection({ name: 'db', tables: [DATABASE] }),
  renderSection({ name: 'hivemind', tables: [HIVEMIND] }),
  renderSection({ name: 'keys', tables: [KEYS] }),
  renderSection({ name: 'log', tables: [LOG] }),
  renderSection({ name: 'web', tables: [WEB] }),
];

const metrics = (port: number) => ({ metrics_listen: `127.0.0.1:${port}` });
const notifier = (name: string, tables: Parameters<typeof renderSection>[0]['tables'], port: number) =>
  renderSection({
    name: `notify-${name}`,
    tables: [...tables, { settings: { metricsListen: NOTIFIER.settings.metricsListen } }],
    values: metrics(port),
    optional: true,
  });
const notifiers = [
  notifier('apns', [APNS], 9182),
  renderSection({
    name: 'notify-apns-sandbox',
    text: "Apple's environment for development builds; the same keys.",
    tables: [APNS],
    only: ['identifier', 'cert_file'],
    values: { cert_file: 'apns-sandbox.pem' },
    optional: true,
  }),
  notifier('firebase', [FIREBASE], 9183),
  notifier('huawei', [HUAWEI], 9184),
  notifier('webpush', [WEBPUSH], 9185),
  renderSection({
    name: 'notify-dummy',
    text: 'The dummy notifier logs what it is given, and needs no settings.',
    tables: [],
    optional: true,
  }),
  renderSection({
    name: 'notify-example',
    text: `One of your own: the file that holds it, and whatever keys it reads (DOCUMENTATION.md tells how to write
      one).`,
    tables: [NOTIFIER],
    optional: true,
  }),
];

const canary = renderSection({
  name: 'canary',
  text: `A canary: a process that stores a small message in the network each minute, for an account of its own, and measures
    how long its push takes. With this section, run one (spns-canary); one is enough.`,
  tables: [CANARY],
  optional: true,
  marked: true,
});

const head = HEAD.flatMap((text) => (text === '' ? [';'] : comment(text))).join('\n');

/** The text of spns.ini.example, as the tables of settings have it. */
export const EXAMPLE = `${[
  [head, common[0]].join('\n\n'),
  ...common.slice(1),
  canary,
  [comment(NOTIFIERS).join('\n'), ...notifiers].join('\n\n'),
].join('\n\n\n')}\n`;

/** `npm run example` writes it. */
if (import.meta.main) writeFileSync(new URL('../spns.ini.example', import.meta.url), EXAMPLE);
