import { execFileSync } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../src/devnet/postgres.ts';
import { preparePlaces } from '../../src/devnet/postgres-files.ts';
import type { Cleaner } from './hivemind.ts';

/** A PostgreSQL with a synchronous streaming replica: what is committed is on both. */
export interface ReplicatedPostgres {
  /** The URL of that database on whichever of them accepts writes. */
  url(database: string): string;
  /** Crashes the primary, and promotes the replica. */
  failOver(): Promise<void>;
}

/**
 * @param folder for the data of both
 * @param database the name of a database to create
 */
export async function startReplicatedPostgres(
  t: Cleaner,
  folder: string,
  database: string,
): Promise<ReplicatedPostgres> {
  const [dataDir, replicaDir] = [path.join(folder, 'primary'), path.join(folder, 'replica')];
  let primary: Postgres = await startPostgres({ dataDir });
  t.after(() => primary.remove());
  await primary.createDatabase(database);
  await primary.stop();
  const { cluster } = await preparePlaces(dataDir);
  const places = await preparePlaces(replicaDir);
  // As pg_basebackup does of a running server, with the owners of the files.
  execFileSync('cp', ['-a', cluster, places.cluster]);
  await fs.writeFile(path.join(places.cluster, 'standby.signal'), '');
  primary = await startPostgres({ dataDir, settings: ['synchronous_standby_names=*'] });
  const replica = await startPostgres({
    dataDir: replicaDir,
    settings: [`primary_conninfo=host=${primary.socketDir} user=postgres`],
  });
  t.after(() => replica.remove());
  const hosts = [primary, replica].map(({ socketDir }) => encodeURIComponent(socketDir)).join(',');
  return {
    url: (name) => `postgresql:///${name}?host=${hosts}&user=postgres&target_session_attrs=read-write`,
    async failOver() {
      await primary.stop('immediate');
      const client = new pg.Client({ connectionString: replica.url('postgres') });
      await client.connect();
      try {
        await client.query('SELECT pg_promote()');
      } finally {
        await client.end();
      }
    },
  };
}
