import { readFileSync } from 'node:fs';

/** The version of this program, from package.json: `MAJOR.MINOR.PATCH`. */
export const VERSION: string = read();

function read(): string {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return version;
}
