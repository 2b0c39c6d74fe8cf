import { existsSync, statSync } from 'node:fs';
import { loadConfig, runnableServices } from '../settings/config.ts';
import { instancesIn } from '../settings/hivemind-instances.ts';
import type { Ini } from '../settings/ini.ts';
import { ConfigError } from '../settings/section.ts';
import { mayRead, runProgram, type User } from './child.ts';
import { type Command, type Given, print } from './command.ts';
import { CONFIG, locateConfig, readIni, readReach } from './locate.ts';
import { reach } from './reach.ts';
import { daemonUsers, secretsIn, webHasTooMuch } from './separation.ts';
import { configOf, type Deployed, isHandedOver, underUnits } from './under-units.ts';
import { isInstalled, readUnit } from './unit.ts';
import { daemonUser, USER } from './user.ts';

export const command: Command = {
  summary:
    'Checks the configuration, the keys, the credentials and the database, and reports everything that is wrong at once',
  words: [],
  help: [
    'Nothing is changed and nothing is sent to a provider. Exit code 1 if anything must be put right.',
    'Run it as root if only root may read the keys; everything else that the daemons read is then checked as their user.',
  ].join('\n'),
  options: {
    config: CONFIG,
    user: USER,
    unit: {
      type: 'boolean',
      help: 'check it as systemd will run it: with its users, folders and rights; the default for the file that an installed unit reads',
    },
    'no-database': { type: 'boolean', help: 'do not connect to the database, only check its address' },
  },
  async run(given) {
    const file = locateConfig(given);
    const findings = await checkAll(file, given);
    print(report(file, findings));
    if (!findings.units)
      print(
        `This was checked from the folder ${process.cwd()}. To check it with what systemd's units change, such as users and writable folders: spns check-config --unit`,
      );
    return findings.problems.length > 0 ? 1 : 0;
  },
};

export interface Findings {
  readonly problems: string[];
  readonly warnings: string[];
  /** What was checked and is in order. */
  readonly good: string[];
  /** Whether it was checked as the units will run it. */
  readonly units?: boolean;
}

async function checkAll(file: string, given: Given): Promise<Findings> {
  const ini = readIni(file);
  const services = runnableServices(ini);
  const units = given.is('unit') || runsUnderUnits(file) ? deployed(ini, services) : undefined;
  const findings: Findings = { problems: [], warnings: [], good: [], units: units !== undefined };
  const take = (problems: readonly string[], warnings: readonly string[], good: string) => {
    findings.problems.push(...problems);
    findings.warnings.push(...warnings);
    if (problems.length === 0) findings.good.push(good);
  };

  const { problems, warnings } = checkFile();
  const short = (text: string) => text.replace(`${file}: `, '');
  take(problems.map(short), warnings, 'settings and keys of the hivemind and the web front-end');

  const users = daemonUsers(daemonUser(given), given.text('user') !== undefined);
  const blind = new Map(
    Object.values(users).flatMap((user: User | undefined) =>
      user === undefined || mayRead(file, user) ? [] : [[user.name, user] as const],
    ),
  );
  for (const name of blind.keys()) {
    // The front-end may have its own file.
    const found = `the user ${name} may not read this file: chgrp ${name.startsWith('spns') ? 'spns-config' : name} and chmod 640 it`;
    findings[name === 'spns-web' ? 'warnings' : 'problems'].push(found);
  }
  findings.warnings.push(...exposedSecrets(file, ini), ...webHasTooMuch(file, ini, users));

  if (units) take(underUnits(file, ini, units), [], 'what the systemd units change');
  const ownFolder = units?.[0]?.unit.folder;
  const reached = await reach(ini, users, ownFolder !== undefined && existsSync(ownFolder) ? ownFolder : process.cwd());
  for (const kind of ['problems', 'warnings', 'good'] as const) findings[kind].push(...reached[kind]);
  if (services.length === 0)
    findings.warnings.push('there is no [notify-…] section: without a notifier nobody is woken');
  const checks = services.map((service) => {
    const handedOver = units?.some((one) => one.service === service && isHandedOver(ini, one)) ?? false;
    const blindfolded = users.notifier !== undefined && blind.has(users.notifier.name);
    return { service, found: checkNotifier(service, handedOver || blindfolded ? undefined : users.notifier) };
  });
  for (const { service, found } of checks) {
    const { problems, warnings } = await found;
    take(problems, warnings, `settings and credential of ${service}`);
  }
  await checkDatabase(given, ini, take, units?.[0]);
  return findings;
}

type Found = Pick<Findings, 'problems' | 'warnings'>;

/**
 * Checks as the daemons' user, and as root if that finds a problem: a file that only root may read is right if systemd
 * hands it over, and wrong if not.
 */
async function checkNotifier(service: string, user: User | undefined): Promise<Found> {
  const found = await checkNotifierAs(service, user);
  if (user === undefined || found.problems.length === 0) return found;
  const forRoot = await checkNotifierAs(service, undefined);
  if (forRoot.problems.length > 0) return forRoot;
  const advice = `root may, the user ${user.name} may not: chgrp ${user.name.replace('spns-notifier', 'spns')} and chmod 640 it, unless a LoadCredential hands it over`;
  return {
    problems: [],
    warnings: [...forRoot.warnings, ...found.problems.map((problem) => `${problem} (${advice})`)],
  };
}

async function checkNotifierAs(service: string, as: User | undefined): Promise<Found> {
  const { code, output, errors } = await runProgram('notifiers/check.ts', [service], { as });
  if (code === 0) return JSON.parse(output);
  return { problems: [`[notify-${service}]: the check failed: ${errors || output}`], warnings: [] };
}

function exposedSecrets(file: string, ini: Ini): string[] {
  if ((statSync(file).mode & 0o004) === 0) return [];
  const secrets = secretsIn(ini);
  return secrets.length === 0
    ? []
    : [`every user of this machine may read this file, which holds ${secrets.join(' and ')}: chmod 640 it`];
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
  ini: Ini,
  take: (problems: string[], warnings: string[], good: string) => void,
  hivemind: Deployed | undefined,
): Promise<void> {
  let databaseUrl: string;
  try {
    ({ databaseUrl } = readReach(given));
  } catch (error) {
    // Problems of the file have been reported already.
    if (error instanceof ConfigError) return;
    throw error;
  }
  const areSeveral = instancesIn(ini).length > 0 || ini.sections.get('hivemind')?.has('instance') === true;
  const { code, output, errors } = await runProgram(
    'hivemind/store/database-main.ts',
    given.is('no-database') ? ['address'] : areSeveral ? ['check', 'shared'] : ['check'],
    {
      env: { ...(hivemind && databaseEnvironment(hivemind)), SPNS_DATABASE_URL: databaseUrl },
      as: daemonUser(given),
    },
  );
  if (code === 0 && output === '') return;
  if (code === 0) take([], [], output);
  else take([`[db].url: the database cannot be used: ${output || errors}`], [], '');
}

/** The unit's environment, without this shell's variables for libpq, which the unit does not have. */
function databaseEnvironment({ unit }: Deployed): Record<string, string | undefined> {
  const ours = Object.keys(process.env).filter((name) => name.startsWith('PG'));
  return { ...Object.fromEntries(ours.map((name) => [name, undefined])), ...Object.fromEntries(unit.environment) };
}

function runsUnderUnits(file: string): boolean {
  // The template is read without an instance, since its instances are not known yet.
  return ['spns-hivemind', 'spns-hivemind@'].some((name) => {
    const unit = isInstalled(name) ? readUnit(name) : undefined;
    return unit !== undefined && configOf(unit) === file;
  });
}

/** The units of all daemons of this configuration, the hiveminds' first. */
function deployed(ini: Ini, services: readonly string[]): Deployed[] {
  const instances = instancesIn(ini);
  const all: readonly (Omit<Deployed, 'unit'> & { name: string })[] = [
    ...(instances.length === 0
      ? [{ name: 'spns-hivemind', kind: 'hivemind' as const }]
      : instances.map((instance) => ({ name: `spns-hivemind@${instance}`, kind: 'hivemind' as const, instance }))),
    { name: 'spns-web', kind: 'web' },
    ...services.map((service) => ({ name: `spns-notifier@${service}`, kind: 'notifier' as const, service })),
    ...(ini.sections.has('canary') ? [{ name: 'spns-canary', kind: 'canary' as const }] : []),
  ];
  return all.flatMap(({ name, ...rest }) => {
    const unit = readUnit(name);
    return unit ? [{ ...rest, unit }] : [];
  });
}

/** The report for the operator, with what must be put right at the top. */
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
