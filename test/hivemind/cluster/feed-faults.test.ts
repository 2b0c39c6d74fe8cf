import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs/promises';
import { after, before, describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { type Postgres, startPostgres } from '../../../src/devnet/postgres.ts';
import type { StoreError } from '../../../src/hivemind/store/store.ts';
import { type FedMember, NO_SLOTS, openMember, startMember } from '../../support/members.ts';
import { startOwnServer } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

interface Member extends FedMember {
  /** Why it had to give up. */
  readonly taken: StoreError[];
}

describe('members on a failing database', () => {
  let dataDir: string;
  let server: Postgres;
  let made = 0;

  // A server of our own: the one that all test files share must not be stopped.
  before(async () => {
    ({ dataDir, server } = await startOwnServer());
  });

  after(() => server.remove());

  async function startMembers(t: TestContext): Promise<[Member, Member]> {
    const database = `fault_${++made}`;
    await server.createDatabase(database);
    return [await start(t, database, 'a'), await start(t, database, 'b')];
  }

  async function start(t: TestContext, database: string, name: string): Promise<Member> {
    const taken: StoreError[] = [];
    const onTaken = (error: StoreError) => taken.push(error);
    return { ...(await startMember(t, server.url(database), name, { onTaken })), taken };
  }

  it('come back after a crash of the server, under their names, and know everything that is stored', async (t) => {
    const members = await startMembers(t);
    const [a, b] = members;
    for (let n = 0; n < 20; n++) await a.upsert(makeRow());
    await until(() => b.devices.size === 20);
    await server.stop('immediate');
    await until(() => members.every(({ store }) => !store.connected));
    server = await startPostgres({ dataDir, fsync: false });
    await until(() => members.every(({ store }) => store.connected));
    await b.upsert(makeRow());
    await until(() => a.devices.size === 21 && members.every(({ feed }) => feed.counters.reloads === 1));
    const { members: rows } = await a.store.cluster.beat({ state: 'ready', covers: NO_SLOTS });
    assert.deepEqual(
      rows.map(({ name, generation }) => [name, generation]),
      [
        ['a', a.store.cluster.membership.generation],
        ['b', b.store.cluster.membership.generation],
      ],
    );
    for (const { taken } of members) assert.deepEqual(taken, []);
  });

  it('load anew when a backup is restored, and forget what it does not have', async (t) => {
    const members = await startMembers(t);
    const [a, b] = members;
    const kept = makeRow();
    await a.upsert(kept);
    await until(() => b.devices.size === 1);
    const backup = `${dataDir}-backup`;
    t.after(() => fs.rm(backup, { recursive: true, force: true }));
    await server.stop();
    await promisify(execFile)('cp', ['-a', dataDir, backup]);
    server = await startPostgres({ dataDir, fsync: false });
    await until(() => members.every(({ store }) => store.connected));
    for (let n = 0; n < 50; n++) await b.upsert(makeRow());
    await until(() => members.every(({ devices }) => devices.size === 51));

    await server.stop('immediate');
    await fs.rm(dataDir, { recursive: true });
    await promisify(execFile)('mv', [backup, dataDir]);
    server = await startPostgres({ dataDir, fsync: false });
    await until(() => members.every(({ devices }) => devices.size === 1));
    for (const { devices, taken } of members) {
      assert.deepEqual(devices.get(kept.account, kept.service, kept.serviceId), kept);
      assert.deepEqual(taken, []);
    }
    await a.upsert(makeRow());
    await until(() => b.devices.size === 2);
  });

  it('are told when a backup from before they joined is restored', async (t) => {
    const database = `fault_${++made}`;
    await server.createDatabase(database);
    const backup = `${dataDir}-backup`;
    t.after(() => fs.rm(backup, { recursive: true, force: true }));
    await (await openMember(t, server.url(database), 'a')).close();
    await server.stop();
    await promisify(execFile)('cp', ['-a', dataDir, backup]);
    server = await startPostgres({ dataDir, fsync: false });
    const a = await start(t, database, 'a');
    await server.stop('immediate');
    await fs.rm(dataDir, { recursive: true });
    await promisify(execFile)('mv', [backup, dataDir]);
    server = await startPostgres({ dataDir, fsync: false });
    await until(() => a.taken.length > 0);
    assert.match(a.taken[0]!.message, /^The database no longer knows this hivemind \(a\): /);
  });
});
