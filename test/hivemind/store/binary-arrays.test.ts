import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import pg from 'pg';
import {
  boolArray,
  byteaArray,
  int4Array,
  int8Array,
  textArray,
  varcharArray,
} from '../../../src/hivemind/store/binary-arrays.ts';
import { createDatabase } from '../../support/postgres.ts';

describe('arrays in the binary format', () => {
  it('are to PostgreSQL what the same arrays are as texts', async (t) => {
    const client = new pg.Client({ connectionString: await createDatabase(t) });
    client.on('error', () => undefined);
    await client.connect();
    t.after(() => client.end());
    const times = [0, 1, -1, 1_700_000_000, 2 ** 31, 2 ** 32 - 1, -(2 ** 33) - 1, Number.MAX_SAFE_INTEGER];
    const bytes = [Buffer.of(0, 1, 255), null, Buffer.alloc(0), Buffer.alloc(100_000, 7)];
    const texts = ['', 'a"b\\,{}', 'ünïcode-\u{1f600}', 'NULL'];
    const cases: [type: string, binary: Buffer, values: readonly unknown[]][] = [
      ['int', int4Array([0, -5, 2 ** 31 - 1, -(2 ** 31)]), [0, -5, 2 ** 31 - 1, -(2 ** 31)]],
      ['bigint', int8Array(times), times],
      ['boolean', boolArray([true, false]), [true, false]],
      ['bytea', byteaArray(bytes), bytes],
      ['varchar', varcharArray(texts), texts],
      ['text', textArray(texts), texts],
      ['bytea', byteaArray([null]), [null]],
      ['varchar', varcharArray([]), []],
    ];
    for (const [type, binary, values] of cases) {
      const { rows } = await client.query<{ same: boolean; count: number }>(
        `SELECT coalesce($1::${type}[], '{}') = $2::${type}[] AS same, cardinality($1::${type}[]) AS count`,
        [binary, values],
      );
      assert.deepEqual(rows, [{ same: true, count: values.length }], type);
    }
  });
});
