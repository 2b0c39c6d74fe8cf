import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { copyRows } from '../src/hivemind/store/copy-rows.ts';

/**
 * Reads all subscriptions as the hivemind does when it loads them, and looks at none of them: what PostgreSQL and the
 * connection alone take. Its argument is the URL of the database.
 */
const client = new pg.Client({ connectionString: process.argv[2] });
await client.connect();
const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
await pipeline(client.query(copyTo(copyRows())), nowhere);
await client.end();
