import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderSection } from '../../src/settings/example.ts';
import { parseIni } from '../../src/settings/ini.ts';
import { Section } from '../../src/settings/section.ts';
import { boolean, integer, list, parsed, readTable, string, type Table } from '../../src/settings/table.ts';

const TABLE = {
  settings: {
    address: string('address', { required: ['web'], example: 'tcp://x', restart: ['web'], text: 'Where it is.' }),
    size: integer('size', { default: 3, min: 1, text: 'How large.' }),
    loud: boolean('loud', { default: false }),
    names: list('names', { example: ['a', 'b'] }),
    code: string('code', { requiredWith: 'names' }),
    big: parsed('big', (text) => BigInt(text), { default: '10', hidden: true }),
  },
  obsolete: { speed: 'it is always fast' },
} satisfies Table;

function read(body: string, role?: Parameters<typeof readTable>[2]) {
  const section = new Section('x', parseIni(`[x]\n${body}`).sections.get('x')!, new Map());
  return { values: readTable(section, TABLE, role), section };
}

test('a table reads all its keys, by the names that the code has for them', () => {
  const { values, section } = read('address = tcp://y\nsize = 7\nloud = yes\nbig = 12\nspeed = 1\nsizes = 2\n');
  assert.deepEqual(values, { address: 'tcp://y', size: 7, loud: true, names: [], code: undefined, big: 12n });
  assert.throws(() => Object.assign(values, { size: 1 }), TypeError);
  assert.deepEqual(section.problems, []);
  const [obsolete, unknown] = section.warnings();
  assert.match(obsolete!, /\[x\]\.speed .* has no meaning for this server: it is always fast/);
  assert.match(unknown!, /did you mean size\?$/);
});

test('a key is required of the programs that need it, or together with another key', () => {
  assert.deepEqual(read('', 'hivemind').section.problems, []);
  for (const role of ['web', 'all'] as const) {
    assert.deepEqual(read('', role).section.problems, ['[x].address: is required and not set: add it']);
  }
  assert.deepEqual(read('names = a', 'hivemind').section.problems, ['[x].code: is required and not set: add it']);
});

test('a section of the example shows what must be set, defaults and examples, under their descriptions', () => {
  assert.equal(
    renderSection({ name: 'x', tables: [TABLE], text: 'Before it.' }),
    `; Before it.
[x]
; Where it is. Needs a restart.
address = tcp://x

; How large.
;size = 3
;loud = no
;names =
;    a
;    b`,
  );
  assert.equal(
    renderSection({ name: 'x', tables: [TABLE], only: ['address', 'size'], values: { size: '4' }, optional: true }),
    ';[x]\n;address = tcp://x\n;size = 4',
  );
});

test('one text cannot describe both a key that needs a restart and one that does not', () => {
  const table: Table = {
    settings: {
      one: integer('one', { default: 1, text: 'Numbers.', restart: ['web'] }),
      two: integer('two', { default: 2 }),
    },
  };
  assert.throws(() => renderSection({ name: 'x', tables: [table] }), /one: only some of the keys/);
});
