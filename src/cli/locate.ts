import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { DATABASE } from '../settings/database.ts';
import { readHivemind } from '../settings/hivemind.ts';
import { hivemindListens } from '../settings/hivemind-instances.ts';
import { type Ini, parseIni } from '../settings/ini.ts';
import { ConfigError, Section } from '../settings/section.ts';
import { readTable } from '../settings/table.ts';
import { CliError, type Given, type Option } from './command.ts';

/** The option of every command that reads the configuration. */
export const CONFIG: Option = {
  type: 'string',
  value: 'FILE',
  help: 'the configuration; relative paths in it are then relative to its folder',
};

/** Where docs/install.md puts the file and the systemd units look for it. */
const INSTALLED = '/etc/spns/spns.ini';

/**
 * Settles which spns.ini is used, by this process and its children (SPNS_CONFIG): from `--config`, the environment, the
 * current folder or /etc/spns, in this order. For the first and the last it changes to the file's folder, as the units
 * do, so that relative paths in it mean the same as there.
 *
 * @returns its absolute path
 * @throws CliError if there is none
 */
export function locateConfig(given: Given): string {
  const named = given.text('config');
  if (named === undefined && process.env.SPNS_CONFIG) return resolve(process.env.SPNS_CONFIG);
  if (named === undefined && existsSync('spns.ini')) return use(resolve('spns.ini'));
  const file = resolve(named ?? INSTALLED);
  if (!existsSync(file)) {
    throw new CliError(
      named
        ? `${file} does not exist, or this user may not see it`
        : `there is neither spns.ini in this folder nor ${INSTALLED} that this user may see: name your configuration by --config FILE`,
    );
  }
  process.chdir(dirname(file));
  return use(file);
}

function use(file: string): string {
  process.env.SPNS_CONFIG = file;
  return file;
}

/**
 * What a command needs to reach the hivemind or the database. Read without the rest of the file, since whoever runs the
 * command may not be allowed to read the keys.
 */
export interface Reach {
  readonly file: string;
  /** `[hivemind] listen`, or that of each of several hiveminds. */
  readonly listens: readonly string[];
  /** `[db] url` */
  readonly databaseUrl: string;
}

/** Reads them from the file that {@link locateConfig} finds. @throws CliError or ConfigError */
export function readReach(given: Given): Reach {
  const file = locateConfig(given);
  const ini = readIni(file);
  const section = (name: string) => new Section(name, ini.sections.get(name) ?? new Map(), ini.defaults);
  const [hivemind, db] = [section('hivemind'), section('db')];
  readHivemind(hivemind, 'web', []);
  const { url } = readTable(db, DATABASE);
  const problems = [...ini.problems, ...hivemind.problems, ...db.problems];
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => `${file}: ${problem}`));
  return { file, listens: hivemindListens(ini).map(({ listen }) => listen), databaseUrl: url };
}

/**
 * The file as written, with whatever is wrong in it among its `problems`.
 *
 * @throws CliError if there is no reading it
 */
export function readIni(file: string): Ini {
  try {
    return parseIni(readFileSync(file));
  } catch (error) {
    throw new CliError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
