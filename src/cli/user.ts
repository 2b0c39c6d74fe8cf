import { findUser, type User } from './child.ts';
import { CliError, type Given, type Option } from './command.ts';

export const USER: Option = {
  type: 'string',
  value: 'NAME',
  help: 'when started by root: as whom the daemons run and use the database; "spns" unless told, if there is such a user',
};

/**
 * As whom the daemons run. Root alone may read the keys, but PostgreSQL knows the user of the daemons, and that one
 * must be able to read the rest; so root's command asks and looks as that one.
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
