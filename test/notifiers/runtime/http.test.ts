import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jsonObject, trouble } from '../../../src/notifiers/runtime/http.ts';

test('only a JSON object counts: no list, no null, no other value, and no text that is not JSON', () => {
  assert.deepEqual(jsonObject('{"a":{"b":1}}'), { a: { b: 1 } });
  for (const text of ['null', '[]', '[{}]', '1', '"{}"', 'true', '', '{', 'a'])
    assert.equal(jsonObject(text), undefined);
});

test('a problem is named by its code, without addresses', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED 192.0.2.1:443'), { code: 'ECONNREFUSED' });
  assert.equal(trouble(refused), 'connection trouble (ECONNREFUSED)');
  assert.equal(trouble(new Error('192.0.2.1')), 'connection trouble');
  assert.equal(trouble(new Error('no answer in time')), 'no answer in time');
});
