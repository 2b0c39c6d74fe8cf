import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import pg from 'pg';
import { dropStatement, removeStatement, upsertStatement } from '../../../src/hivemind/store/statements.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';

const NOW = 1_700_000_000;

describe("the statements for clients' requests", () => {
  it('read namespaces and unsubscriptions by index alone, before the server has gathered statistics as well as after', async (t) => {
    const client = new pg.Client({ connectionString: await createDatabase(t) });
    client.on('error', () => undefined);
    await client.connect();
    t.after(() => client.end());
    const rows = Array.from({ length: 256 }, () => makeRow({ namespaces: [0, 1, 2, 3] }));
    const removals = rows.map((row) => ({ ...row, signedAt: NOW + 1 }));
    const plans = async () => {
      const found: string[] = [];
      for (const mode of ['force_custom_plan', 'force_generic_plan']) {
        await client.query(`SET plan_cache_mode = ${mode}`);
        for (const { name, text, values } of [
          upsertStatement(rows),
          removeStatement(removals),
          dropStatement(removals),
        ]) {
          await client.query('BEGIN');
          const plan = await client.query<{ 'QUERY PLAN': string }>({
            name: `${mode} ${name} ${found.length}`,
            text: `EXPLAIN ${text}`,
            values: values as unknown[],
          });
          await client.query('ROLLBACK');
          found.push(`${name}: ${plan.rows.map((row) => row['QUERY PLAN']).join('\n')}`);
        }
      }
      return found;
    };
    await client.query(
      `INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
       SELECT sha256(int4send(n)), '', n, true, '', 'apns', n::text FROM generate_series(1, 20000) n`,
    );
    await client.query('INSERT INTO sub_namespaces SELECT id, n FROM subscriptions, generate_series(0, 3) n');
    await client.query(
      'INSERT INTO spns_unsubscribed SELECT account, service, svcid, signature_ts, id % 2 = 0 FROM subscriptions',
    );
    const all = await plans();
    await client.query('ANALYZE');
    all.push(...(await plans()));
    assert.equal(all.length, 12);
    for (const plan of all) assert.doesNotMatch(plan, /Seq Scan on (sub_namespaces|spns_unsubscribed)/, plan);
  });
});
