import { ipcConnectTrouble } from '../oxenmq/ipc-trouble.ts';

/**
 * Whether this user may connect to the socket of a path, for "spns check-config": prints what is in the way as JSON, or
 * nothing.
 */
const trouble = await ipcConnectTrouble(process.argv[2] ?? '');
if (trouble) process.stdout.write(JSON.stringify(trouble));
