import pg from 'pg';
import { systemClock } from '../src/clock.ts';
import { CopyOut } from '../src/hivemind/store/copy-out.ts';
import { copyRows } from '../src/hivemind/store/copy-rows.ts';

/**
 * Reads all subscriptions as the hivemind does when it loads them, and looks at none of them: what PostgreSQL and the
 * connection alone take. Its argument is the URL of the database.
 */
const client = new pg.Client({ connectionString: process.argv[2] });
await client.connect();
await client.query(new CopyOut(copyRows(), () => {}, systemClock)).done;
await client.end();
