import { setFlagsFromString } from 'node:v8';
import { runDaemon } from '../daemon/run.ts';
import { ConfigError } from '../settings/section.ts';
import { buildNotifier } from './runtime/build.ts';

// Nearly everything that a notifier allocates is soon garbage; V8 would let the heap grow to four times what is in use.
setFlagsFromString('--heap-growing-percent=150');
const service = process.argv[2] ?? '';
// No logging before the configuration is read: a wrong command line is explained in one sentence.
if (!/^[\w.-]{1,32}$/.test(service)) {
  process.stderr.write('usage: node src/notifiers/main.ts NAME, for example apns; its settings are in [notify-NAME]\n');
  process.exit(2);
}
await runDaemon(`notify-${service}`, async (context) => {
  try {
    return await buildNotifier(service, context);
  } catch (error) {
    // A backend's errors about its settings are plain Errors with a sentence; any other kind is a fault, which is
    // logged with its stack.
    const sentence = error instanceof Error && error.constructor === Error;
    throw sentence ? new ConfigError([`[notify-${service}]: ${error.message}`]) : error;
  }
});
