import { string, type Table, type Values } from './table.ts';

/** `[db]`: for the hivemind, and for the commands that look into the database. */
export const DATABASE = {
  settings: {
    url: string('url', {
      default: 'postgresql:///spns',
      pattern: /^postgres(ql)?:/,
      what: 'a PostgreSQL address that starts with postgresql://, such as postgresql:///spns',
      restart: ['hivemind'],
      text: `PostgreSQL: postgresql://USER:PASSWORD@HOST/DATABASE, as libpq documents it, including several hosts,
        ?sslmode=verify-full&sslrootcert=FILE, passfile= and environment variables (PGHOST, PGSSLMODE, …); parameters
        that are not supported are refused by name. The default is the database "spns" over the local socket. A
        PgBouncer in between must be in session mode.`,
    }),
  },
} satisfies Table;

export type DatabaseSettings = Values<typeof DATABASE.settings>;
