import { readFileSync } from 'node:fs';

/** Of this program, as package.json has it: `MAJOR.MINOR.PATCH`. */
export const VERSION: string = read();

function read(): string {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return version;
}
