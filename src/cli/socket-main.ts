import { ipcConnectTrouble } from '../oxenmq/ipc-trouble.ts';

/**
 * For "spns check-config": tries whether this user can connect to the socket at a path, and prints what prevents it as
 * JSON, or nothing.
 */
const trouble = await ipcConnectTrouble(process.argv[2] ?? '');
if (trouble) process.stdout.write(JSON.stringify(trouble));
