import type pg from 'pg';
import { StoreError } from './store-error.ts';

/** The first key of our advisory locks, which are local to a database. Any fixed numbers would do here. */
const SPACE = 0x53504e53;
/** Held by a hivemind while it is connected: exclusively, or shared by hiveminds with names. */
const HIVEMIND = 2;
// 3 is held by transactions that delete what all members have read (migrations/006_cluster.sql).
/** From this second key on, locks are the marks of single hiveminds. See {@link takeLock}. */
export const MARKS = 16;
/** The first key of the locks that stand for names. */
const NAMES = 0x53504e54;

/** The second key, beside {@link NAMES}, of the lock for a name. @param name an SQL expression */
const lockOfName = (name: string) => `(hashtext(${name}) & 2147483647)`;

/** SQL for whether somebody holds the lock for a name. @param name an SQL expression */
export function isNameHeld(name: string): string {
  return `EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = ${NAMES} AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid = ${lockOfName(name)})`;
}

/**
 * Takes a hivemind's locks. Without a name it has the database to itself; with one it shares the database with
 * hiveminds of other names.
 *
 * @param mark the second key of a lock that marks our own connections. One that broke without PostgreSQL's noticing
 *   would hold the lock for up to a minute more: it is ended
 * @returns the id of the server process that serves this client
 * @throws StoreError `locked` if another hivemind is in the way
 */
export async function takeLock(client: pg.Client, mark: number, name: string | undefined): Promise<number> {
  // Taken first, so that if the reply to the next query is lost, our next connection can tell whose lock it is.
  await client.query('SELECT pg_advisory_lock_shared($1, $2)', [SPACE, mark]);
  const { rows } = await client.query<{ locked: boolean; pid: number }>(
    `SELECT pg_try_advisory_lock${name === undefined ? '' : '_shared'}($1, $2) AS locked, pg_backend_pid() AS pid`,
    [SPACE, HIVEMIND],
  );
  const [own] = rows;
  if (!own?.locked) {
    const holder = await findHolder(client, mark, SPACE, String(HIVEMIND));
    if (name !== undefined) {
      throw locked('A hivemind without a name', holder, 'stop it first, or give it a name too ([hivemind] instance)');
    }
    if (holder?.shares) {
      throw locked(
        'A hivemind with a name',
        holder,
        'stop it first, or give this one a name too ([hivemind] instance)',
      );
    }
    throw locked('Another hivemind', holder, 'stop it first, or give this one a database of its own');
  }
  if (name === undefined) return own.pid;
  const named = await client.query<{ locked: boolean }>(
    `SELECT pg_try_advisory_lock($1, ${lockOfName('$2::text')}) AS locked`,
    [NAMES, name],
  );
  if (named.rows[0]?.locked) return own.pid;
  const holder = await findHolder(client, mark, NAMES, lockOfName(client.escapeLiteral(name)));
  throw locked(`Another hivemind named ${name}`, holder, 'stop it first, or give this one a name of its own');
}

interface Holder {
  readonly pid: number;
  readonly host: string | null;
  /** Whether it holds the lock shared. */
  readonly shares: boolean;
}

/** Finds who holds a lock. @throws StoreError `unavailable` if it was a lost connection of ours, which is ended */
async function findHolder(client: pg.Client, mark: number, space: number, lock: string): Promise<Holder | undefined> {
  const { rows } = await client.query<Holder & { ours: boolean }>(
    `WITH locks AS (
       SELECT pid, classid, objid, mode FROM pg_locks
       WHERE locktype = 'advisory' AND granted AND objsubid = 2
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
     )
     SELECT l.pid, host(a.client_addr) AS host, l.mode = 'ShareLock' AS shares,
       EXISTS (SELECT FROM locks m WHERE m.pid = l.pid AND m.classid = ${SPACE} AND m.objid = $2) AS ours
     FROM locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.classid = $1 AND l.objid = ${lock}`,
    [space, mark],
  );
  const own = rows.find(({ ours }) => ours);
  if (own === undefined) return rows[0];
  await client.query('SELECT pg_terminate_backend($1)', [own.pid]);
  // The lock will be free in a moment, for the next attempt.
  throw new StoreError('unavailable', 'The lost connection still held the lock, and has been ended');
}

function locked(who: string, holder: Holder | undefined, advice: string): StoreError {
  const where = holder ? ` (from ${holder.host ?? 'this machine'}, served by PostgreSQL process ${holder.pid})` : '';
  return new StoreError('locked', `${who} is at work on this database${where}: ${advice}`);
}
