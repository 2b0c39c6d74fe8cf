import assert from 'node:assert/strict';
import os from 'node:os';
import { describe, it } from 'node:test';
import { completeUrl } from '../../../src/hivemind/store/database-url.ts';

const USER = encodeURIComponent(os.userInfo().username);

describe('the URL of the database', () => {
  it('stays as it is when it names a host and a user', () => {
    for (const url of [
      'postgresql://spns:secret@db.example:5433/spns',
      'postgresql://spns@%2Fvar%2Frun%2Fpostgresql/spns',
      'postgresql:///spns?host=%2Ftmp&user=spns',
      'postgresql://spns@[::1]:5432/spns?sslmode=require',
    ]) {
      assert.equal(completeUrl(url, {}), url);
    }
  });

  it('gets the user of the process, as libpq does', () => {
    assert.equal(completeUrl('postgresql://db.example/spns', {}), `postgresql://db.example/spns?user=${USER}`);
    assert.equal(
      completeUrl('postgresql://db.example/spns?sslmode=disable', {}),
      `postgresql://db.example/spns?sslmode=disable&user=${USER}`,
    );
    assert.equal(completeUrl('postgresql://db.example/spns', { PGUSER: 'x' }), 'postgresql://db.example/spns');
  });

  it('leaves host and user to the environment where that has them', () => {
    assert.equal(completeUrl('postgresql:///spns', { PGHOST: 'db', PGUSER: 'x' }), 'postgresql:///spns');
  });
});
