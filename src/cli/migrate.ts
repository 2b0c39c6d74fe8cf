import { runProgram } from './child.ts';
import { CliError, type Command, print } from './command.ts';
import { CONFIG, readReach } from './locate.ts';
import { daemonUser, USER } from './user.ts';

export const command: Command = {
  summary: 'Creates or upgrades the tables in the database; the hivemind does the same when it starts',
  words: [],
  help: 'Works on an empty database, on one of the original SPNS, and on one of ours. Does no harm when there is nothing to do.',
  options: { config: CONFIG, user: USER },
  async run(given) {
    const { databaseUrl } = readReach(given);
    const { code, output, errors } = await runProgram('hivemind/store/database-main.ts', ['migrate'], {
      env: { SPNS_DATABASE_URL: databaseUrl },
      as: daemonUser(given),
    });
    if (code !== 0) throw new CliError(`the database: ${output || errors}`);
    print(output);
    return 0;
  },
};
