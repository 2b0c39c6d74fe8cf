import { string, type Table, type Values } from './table.ts';

/** `[db]`: the hivemind's, and read by the commands that look into the database. */
export const DATABASE = {
  settings: {
    url: string('url', {
      default: 'postgresql:///spns',
      pattern: /^postgres(ql)?:/,
      what: 'a PostgreSQL address that starts with postgresql://, such as postgresql:///spns',
      restart: ['hivemind'],
      text: `PostgreSQL: postgresql://USER:PASSWORD@HOST/DATABASE, as libpq documents it: several hosts,
        ?sslmode=verify-full&sslrootcert=FILE, passfile= and the environment (PGHOST, PGSSLMODE, …) among it; what is
        not supported is refused by name. The default is the database "spns" over the local socket. PgBouncer may stand
        between in session mode.`,
    }),
  },
} satisfies Table;

export type DatabaseSettings = Values<typeof DATABASE.settings>;
