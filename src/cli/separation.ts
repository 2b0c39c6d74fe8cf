import type { Ini } from '../settings/ini.ts';
import { isSecretKey } from '../settings/section.ts';
import { findUser, mayRead, type User } from './child.ts';

/** The users as whom the daemons run; undefined: as ourselves. */
export interface DaemonUsers {
  readonly hivemind: User | undefined;
  readonly notifier: User | undefined;
  readonly web: User | undefined;
}

/**
 * The users that our units name, as far as this machine has them; else the hivemind's.
 *
 * @param hivemind undefined if this command may not act as other users
 * @param named whether the operator named that user, as whom all daemons are then assumed to run
 */
export function daemonUsers(hivemind: User | undefined, named: boolean): DaemonUsers {
  const own = (name: string) => (hivemind === undefined || named ? hivemind : (findUser(name) ?? hivemind));
  return { hivemind, notifier: own('spns-notifier'), web: own('spns-web') };
}

/** The keys that hold secrets, as `[section].key`. */
export function secretsIn(ini: Ini): string[] {
  return [...ini.sections].flatMap(([name, section]) =>
    [...section]
      .filter(([key, { value }]) => isSecretKey(key) || /^(postgres(ql)?|http):\/\/[^:/@]*:[^@/]+@/.test(value))
      .map(([key]) => `[${name}].${key}`),
  );
}

/** Warnings if whoever takes over the web front-end, which strangers talk to, could do more than it needs to. */
export function webHasTooMuch(file: string, ini: Ini, { hivemind, web }: DaemonUsers): string[] {
  const separate = web !== undefined && web.uid !== hivemind?.uid;
  const found: string[] = [];
  if (!ini.sections.get('hivemind')?.has('listen_push') && (separate || file.startsWith('/etc/spns/'))) {
    found.push(
      '[hivemind].listen_push is not set: the web front-end connects to listen, where everybody is an administrator, and under the units it may not: set it to ipc:///run/spns/push.sock',
    );
  }
  const secrets = secretsIn(ini);
  if (separate && secrets.length > 0 && mayRead(file, web)) {
    found.push(
      `the user ${web.name} may read this file, which holds ${secrets.join(' and ')}: give the web front-end a file of its own, as docs/install.md says`,
    );
  }
  return found;
}
