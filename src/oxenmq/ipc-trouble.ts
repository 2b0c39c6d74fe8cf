/** Why an ipc address cannot be connected to. libzmq does not report that: it keeps trying. */

import { accessSync, constants, readFileSync, type Stats, statSync } from 'node:fs';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { dirname, resolve } from 'node:path';
import { MAX_IPC_PATH } from './bind-address.ts';

/** What prevents a connection. */
export interface IpcTrouble {
  /** What is wrong, who owns the file, and what to do: a sentence without its full stop. */
  readonly text: string;
  /** Somebody has to mend it; otherwise a process may just not have started yet. */
  readonly lasting: boolean;
}

/**
 * Looks only at files, with this process's own rights.
 *
 * @param path of an ipc address; an abstract socket has no file, so it never has trouble
 * @returns undefined if the socket is there and may be connected to, whether or not somebody listens
 */
export function ipcTrouble(path: string): IpcTrouble | undefined {
  if (path.startsWith('@')) return undefined;
  if (Buffer.byteLength(path) > MAX_IPC_PATH) {
    return lasting(`the path ${path} has more than ${MAX_IPC_PATH} bytes, which no socket can have`);
  }
  const socket = resolve(path);
  for (const folder of foldersOf(socket)) {
    const trouble = entering(folder, socket);
    if (trouble) return trouble;
  }
  const found = look(socket);
  if (typeof found === 'string') {
    if (found === 'ENOENT') return { text: `there is no socket ${socket}`, lasting: false };
    return lasting(`the socket ${socket} cannot be used (${found})`);
  }
  if (!found.isSocket())
    return lasting(`${socket} is not a socket but ${found.isDirectory() ? 'a folder' : 'something else'}`);
  if (may(socket, constants.W_OK)) return undefined;
  return lasting(`${us()} may not connect to ${socket}, ${belongs(found, 0o020, 'w')}`);
}

/** As {@link ipcTrouble}, and also connects, to see whether somebody listens. */
export async function ipcConnectTrouble(path: string): Promise<IpcTrouble | undefined> {
  const trouble = ipcTrouble(path);
  if (trouble) return trouble;
  const code = await new Promise<string | undefined>((done) => {
    const socket = connect(path.replace(/^@/, '\0'));
    socket.once('connect', () => {
      socket.destroy();
      done(undefined);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
  });
  if (code === undefined) return undefined;
  const where = path.startsWith('@') ? path : resolve(path);
  if (code === 'ECONNREFUSED') return { text: `nobody listens at the socket ${where}`, lasting: false };
  return { text: `the socket ${where} cannot be connected to (${code})`, lasting: false };
}

/** From the root down. */
function foldersOf(path: string): string[] {
  const folder = dirname(path);
  return folder === path ? [] : [...foldersOf(folder), folder];
}

function entering(folder: string, socket: string): IpcTrouble | undefined {
  const found = look(folder);
  if (typeof found === 'string') {
    if (found === 'ENOENT')
      return { text: `there is no socket ${socket}: the folder ${folder} is not there`, lasting: false };
    return lasting(`the folder ${folder} of the socket ${socket} cannot be used (${found})`);
  }
  if (!found.isDirectory()) return lasting(`${folder} is not a folder, so there is no socket ${socket}`);
  if (may(folder, constants.X_OK)) return undefined;
  return lasting(
    `${us()} may not enter ${folder}, where the socket ${socket} should be, ${belongs(found, 0o010, 'x')}`,
  );
}

function lasting(text: string): IpcTrouble {
  return { text, lasting: true };
}

function look(path: string): Stats | string {
  try {
    return statSync(path);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

function may(path: string, what: number): boolean {
  try {
    accessSync(path, what);
    return true;
  } catch {
    return false;
  }
}

/** Whose a file is, and how to let this user in. @param bit what the group needs @param letter chmod's name for it */
function belongs({ uid, gid, mode }: Stats, bit: number, letter: string): string {
  const [owner, group] = [nameOf('/etc/passwd', uid), nameOf('/etc/group', gid)];
  const open = (mode & bit) !== 0 ? '' : `chmod g+${letter} it, and `;
  const advice =
    gid === 0
      ? `give it a group of its own (chgrp, chmod g+${letter}) and make this user a member of that`
      : `${open}make this user a member of that group (adduser ${userName()} ${group}) and restart`;
  return `which belongs to ${owner}, group ${group}, mode ${(mode & 0o7777).toString(8).padStart(4, '0')}: ${advice}`;
}

function us(): string {
  return `the user ${userName()}`;
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.());
  }
}

/** The name of an id in /etc/passwd or /etc/group; one that only a name service knows stays a number. */
function nameOf(file: string, id: number): string {
  try {
    const line = readFileSync(file, 'utf8')
      .split('\n')
      .find((one) => one.split(':')[2] === String(id));
    return line?.split(':')[0] ?? String(id);
  } catch {
    return String(id);
  }
}
