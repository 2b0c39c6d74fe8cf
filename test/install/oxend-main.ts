// An oxend with an empty list, at the socket that docs/install.md names.
import { randomBytes } from 'node:crypto';
import { chmodSync } from 'node:fs';
import { systemClock } from '../../src/clock.ts';
import { startOxend } from '../../src/devnet/oxend.ts';

const socket = '/var/lib/oxen/oxend.sock';
await startOxend({ clock: systemClock, random: randomBytes, listen: `ipc://${socket}` });
chmodSync(socket, 0o660);
