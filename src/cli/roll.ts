import { spawn } from 'node:child_process';
import { systemClock } from '../clock.ts';
import { instancesIn } from '../settings/hivemind-instances.ts';
import { CliError, type Command, type Given, print } from './command.ts';
import { TO_HIVEMIND, withAdmin } from './hivemind.ts';
import { locateConfig, readIni } from './locate.ts';
import { askCluster, type ClusterLine } from './members.ts';

/** How long one may take to start and to cover its slots, ms: with a large database it takes a quarter of a minute. */
const PATIENCE = 10 * 60_000;
const LOOK_EVERY = 500;

export const command: Command = {
  summary: 'Restarts the hiveminds of this machine one after the other, so that no push is lost',
  words: ['[NAME]'],
  help: [
    'For each section [hivemind-NAME], or only for NAME: waits until all slots are covered by as many hiveminds as they',
    'should be, restarts that hivemind, and waits until it covers its slots again. Run it as root.',
    'It stops at the first that does not come back; the others go on as they were.',
  ].join('\n'),
  options: {
    with: {
      type: 'string',
      value: 'COMMAND',
      help: 'the command that restarts one, with {} for its name; by default: systemctl restart spns-hivemind@{}',
    },
    ...TO_HIVEMIND,
  },
  async run(given) {
    const names = given.words[0] === undefined ? instancesIn(readIni(locateConfig(given))) : [given.words[0]];
    if (names.length === 0)
      throw new CliError('there is no section [hivemind-NAME] here: name the hivemind to restart');
    const { copies } = await look(given);
    if (copies === 1)
      throw new CliError(
        'with copies = 1 nobody else hears what the one that restarts misses. Use systemctl, or copies = 2',
      );
    const restart = given.text('with') ?? 'systemctl restart spns-hivemind@{}';
    for (const name of names) {
      const before = await covered(given, name);
      print(`restarting ${name}`);
      await run(restart.replaceAll('{}', name));
      const { covers } = await covered(given, name, before.run);
      print(`${name} is back, and covers ${covers} slots`);
    }
    return 0;
  },
};

function look(given: Given): Promise<ClusterLine> {
  return withAdmin(given, askCluster);
}

/**
 * Waits until all slots are covered as they should be and that hivemind is among those that cover them.
 *
 * @param before its former run, which does not count
 */
async function covered(given: Given, name: string, before?: string): Promise<ClusterLine['members'][number]> {
  const end = systemClock.monotonic() + PATIENCE;
  let what = '';
  for (;;) {
    try {
      const { coverage, members } = await look(given);
      const member = members.find((one) => one.name === name);
      if (member?.state === 'ready' && member.run !== before && coverage.full === 256) return member;
      what =
        member?.state === 'ready'
          ? `${256 - coverage.full} slots are covered by fewer hiveminds than they should be`
          : `the hivemind ${name} is ${member?.state ?? 'not there'}`;
    } catch (error) {
      // The hivemind that we ask may be the one that restarts.
      if (!(error instanceof CliError)) throw error;
      what = error.message;
    }
    if (systemClock.monotonic() >= end) throw new CliError(`given up after ${PATIENCE / 60_000} minutes: ${what}`);
    await new Promise<void>((resolve) => systemClock.setTimeout(resolve, LOOK_EVERY));
  }
}

async function run(line: string): Promise<void> {
  const child = spawn(line, { shell: true, stdio: 'inherit' });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  if (code !== 0) throw new CliError(`"${line}" has failed`);
}
