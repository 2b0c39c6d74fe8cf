import { CliError, type Command, print } from './command.ts';
import { TO_HIVEMIND, withAdmin } from './hivemind.ts';

/** The answer to admin.expire. */
interface ExpiryReport {
  expired: number;
  doubt?: string;
  held?: string;
}

/** How long to wait, ms: many subscriptions are deleted in slices. */
const PATIENCE = 300_000;

export const command: Command = {
  summary:
    'Shows how many expired subscriptions are kept because they are suspiciously many, and deletes them with --yes',
  words: [],
  help: [
    'Subscriptions expire 14 days after they were signed. When a large part of them seems to expire at once, the',
    'hivemind keeps them, since its clock may be wrong. If they have really expired, for example because the hivemind',
    'was off for two weeks, check the time (timedatectl), then delete them with --yes.',
  ].join('\n'),
  options: { yes: { type: 'boolean', help: 'the time is right: delete them' }, ...TO_HIVEMIND },
  async run(given) {
    const words = given.is('yes') ? ['yes'] : [];
    const answer = await withAdmin(given, (admin) => admin.ask('admin.expire', words, PATIENCE));
    const { expired, doubt, held } = answer as ExpiryReport;
    if (doubt !== undefined) throw new CliError(`nothing is deleted while the time is in doubt: ${doubt}`);
    if (given.is('yes')) print(`${expired} subscriptions were deleted`);
    else print(held ?? 'nothing is held');
    return 0;
  },
};
