import { loadConfig } from '../daemon/config.ts';
import { ConfigError } from '../daemon/section.ts';
import { runProgram } from './child.ts';
import { type Command, type Given, print } from './command.ts';
import { CONFIG, locateConfig, readIni, readReach } from './locate.ts';
import { databaseUser, USER } from './user.ts';

export const command: Command = {
  summary:
    'Checks the configuration, the keys, the credentials and the database, and tells everything that is wrong at once',
  words: [],
  help: [
    'Nothing is changed and nothing is sent to a provider. Exit code 1 if anything must be put right.',
    'Run it as root when the keys are readable to root alone.',
  ].join('\n'),
  options: {
    config: CONFIG,
    user: USER,
    'no-database': { type: 'boolean', help: 'leave the database alone' },
  },
  async run(given) {
    const file = locateConfig(given);
    const findings = await checkAll(file, given);
    print(report(file, findings));
    return findings.problems.length > 0 ? 1 : 0;
  },
};

export interface Findings {
  readonly problems: string[];
  readonly warnings: string[];
  /** What was looked at and found in order. */
  readonly good: string[];
}

async function checkAll(file: string, given: Given): Promise<Findings> {
  const findings: Findings = { problems: [], warnings: [], good: [] };
  const take = (problems: readonly string[], warnings: readonly string[], good: string) => {
    findings.problems.push(...problems);
    findings.warnings.push(...warnings);
    if (problems.length === 0) findings.good.push(good);
  };

  const { problems, warnings } = checkFile();
  const short = (text: string) => text.replace(`${file}: `, '');
  take(problems.map(short), warnings, 'settings and keys of the hivemind and the web front-end');

  const services = [...readIni(file).sections.keys()]
    .filter((name) => /^notify-./.test(name))
    .map((name) => name.slice('notify-'.length));
  if (services.length === 0)
    findings.warnings.push('there is no [notify-…] section: without a notifier nobody is woken');
  const checks = services.map((service) => runProgram('notifiers/check.ts', [service]));
  for (const [index, service] of services.entries()) {
    const { code, output, errors } = await checks[index]!;
    const found: Pick<Findings, 'problems' | 'warnings'> =
      code === 0
        ? JSON.parse(output)
        : { problems: [`[notify-${service}]: the check failed: ${errors || output}`], warnings: [] };
    take(found.problems, found.warnings, `settings and credential of ${service}`);
  }
  if (!given.is('no-database')) await checkDatabase(given, take);
  return findings;
}

function checkFile(): { problems: readonly string[]; warnings: readonly string[] } {
  try {
    const config = loadConfig(process.env);
    const there = new Set([...config.ini.sections.keys()]);
    const missing = config.hivemind.notifiersExpected.filter((name) => !there.has(`notify-${name}`));
    return {
      problems: [],
      warnings: [
        ...config.warnings,
        ...missing.map(
          (name) => `[hivemind].notifiers_expected names ${name}, which has no section [notify-${name}] here`,
        ),
      ],
    };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error;
  }
}

async function checkDatabase(
  given: Given,
  take: (problems: string[], warnings: string[], good: string) => void,
): Promise<void> {
  let databaseUrl: string;
  try {
    ({ databaseUrl } = readReach(given));
  } catch (error) {
    // What is wrong with the file has been told.
    if (error instanceof ConfigError) return;
    throw error;
  }
  const { code, output, errors } = await runProgram('hivemind/database-main.ts', ['check'], {
    env: { SPNS_DATABASE_URL: databaseUrl },
    as: databaseUser(given),
  });
  if (code === 0) take([], [], output);
  else take([`[db].url: the database cannot be used: ${output || errors}`], [], '');
}

/** What the operator reads: what must be put right first. */
export function report(file: string, { problems, warnings, good }: Findings): string {
  const lines = [
    ...problems.map((text) => `  wrong    ${text}`),
    ...warnings.map((text) => `  careful  ${text}`),
    ...good.map((text) => `  good     ${text}`),
  ];
  const verdict =
    problems.length > 0
      ? `${problems.length === 1 ? '1 thing' : `${problems.length} things`} must be put right.`
      : warnings.length > 0
        ? 'This will run.'
        : 'All is well.';
  return [file, ...lines, verdict].join('\n');
}
