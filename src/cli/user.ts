import { findUser, type User } from './child.ts';
import { CliError, type Given, type Option } from './command.ts';

export const USER: Option = {
  type: 'string',
  value: 'NAME',
  help: 'when started by root: the user as whom the daemons run and use the database; by default "spns", if that exists',
};

/**
 * The user as whom the daemons run. Only root may read the keys, but PostgreSQL knows the daemons' user, who must also
 * be able to read the rest; so a command of root's connects and reads as that user.
 *
 * @returns undefined: as ourselves
 */
export function daemonUser(given: Given): User | undefined {
  const named = given.text('user');
  if (process.getuid?.() !== 0) {
    if (named !== undefined) throw new CliError('--user is for root: run this command as that user instead');
    return undefined;
  }
  const user = findUser(named ?? 'spns');
  if (named !== undefined && user === undefined) throw new CliError(`there is no user ${named}`);
  return user;
}
