import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseIni } from '../../src/settings/ini.ts';
import { editDistance, nearest } from '../../src/settings/nearest.ts';

function values(text: string): Record<string, Record<string, string>> {
  const { sections } = parseIni(text);
  return Object.fromEntries(
    [...sections].map(([name, entries]) => [
      name,
      Object.fromEntries([...entries].map(([key, { value }]) => [key, value])),
    ]),
  );
}

test('a key ends at the first = or :, and blanks around both are dropped', () => {
  assert.deepEqual(values('[a]\nx=1\ny : 2\nz  =  a = b : c\nurl = postgresql://u:p@h/d?x=1\nt:u=v'), {
    a: { x: '1', y: '2', z: 'a = b : c', url: 'postgresql://u:p@h/d?x=1', t: 'u=v' },
  });
});

test('values keep ; # quotes and dots, and true stays text', () => {
  assert.deepEqual(values('[a]\npw = a;b#c ; d\nq = "x"\nb = true\nn = null\nf = 1.50'), {
    a: { pw: 'a;b#c ; d', q: '"x"', b: 'true', n: 'null', f: '1.50' },
  });
});

test('comments are lines that start with # or ;, indented or not', () => {
  assert.deepEqual(values('# one\n; two\n[a]\n  ; three\nx = 1\n  # four\ny = 2'), { a: { x: '1', y: '2' } });
});

test('keys are case-insensitive, section names are not, and neither dots nor hyphens split them', () => {
  assert.deepEqual(values('[notify-apns]\nCert_File = x\n[a.b.c]\nX.Y = 1\n[A.b.c]\nk = v'), {
    'notify-apns': { cert_file: 'x' },
    'a.b.c': { 'x.y': '1' },
    'A.b.c': { k: 'v' },
  });
});

test('__proto__ is a name like any other', () => {
  const { sections } = parseIni('[__proto__]\npolluted = 1\n[a]\n__proto__ = 2\nconstructor = 3');
  assert.equal(sections.get('__proto__')?.get('polluted')?.value, '1');
  assert.equal(sections.get('a')?.get('__proto__')?.value, '2');
  assert.equal(sections.get('a')?.get('constructor')?.value, '3');
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
});

test('lines that are indented deeper continue the value, over comments and empty lines', () => {
  assert.deepEqual(values('[a]\nkeys =\n    one\n    # not this\n\n    two\nx = 1\n'), {
    a: { keys: '\none\n\ntwo', x: '1' },
  });
});

test('%% and %(key)s are substituted, a lone % stays', () => {
  assert.deepEqual(
    values('[DEFAULT]\nhome = /srv\n[a]\np = 100%%\nq = %(home)s/x\nr = %(P)s\ns = a%40b %(nosuch)s\nl = %(l)s').a,
    {
      p: '100%',
      q: '/srv/x',
      r: '100%',
      s: 'a%40b %(nosuch)s',
      l: '%(l)s',
    },
  );
});

test('what cannot be read is reported with its line, all of it', () => {
  const { problems } = parseIni('x = 1\n[a]\nk = 1\nK = 2\nnonsense\n[b]\n[a]\n = 5');
  assert.equal(problems.length, 5);
  assert.match(problems[0]!, /^line 1: .*before the first \[section\]/);
  assert.match(problems[1]!, /^line 4: \[a\]\.k was already set on line 3/);
  assert.match(problems[2]!, /^line 5: no "key = value"/);
  assert.match(problems[3]!, /^line 7: section \[a\] appears a second time/);
  assert.match(problems[4]!, /^line 8: /);
});

test('Windows line ends and a byte order mark do no harm', () => {
  assert.deepEqual(values('\uFEFF[a]\r\nx = 1\r\n\r\ny = 2\r\n'), { a: { x: '1', y: '2' } });
});

const vectors: { name: string; text: string; sections: Record<string, Record<string, string>> }[] = JSON.parse(
  readFileSync(new URL('../vectors/configparser.json', import.meta.url), 'utf8'),
);
for (const { name, text, sections } of vectors) {
  test(`it reads what Python's configparser reads: ${name}`, () => {
    assert.deepEqual(parseIni(text).problems, []);
    assert.deepEqual(withDefaults(text), sections);
    assert.deepEqual(withDefaults(Buffer.from(text)), sections, 'from bytes');
  });
}

/** As Python shows sections: with what they take from [DEFAULT]. */
function withDefaults(file: string | Buffer): Record<string, Record<string, string>> {
  const { sections, defaults } = parseIni(file);
  return Object.fromEntries(
    [...sections].map(([name, entries]) => [
      name,
      Object.fromEntries([...defaults, ...entries].map(([key, { value }]) => [key, value])),
    ]),
  );
}

test('each entry knows its line, also after continued lines and in sections with dots', () => {
  const { sections } = parseIni('# x\n[a.b]\nx = 1\n  2\n\n; y\nz = 3\n[c]\n\nw = 4');
  assert.equal(sections.get('a.b')?.get('x')?.line, 3);
  assert.equal(sections.get('a.b')?.get('z')?.line, 7);
  assert.equal(sections.get('c')?.get('w')?.line, 10);
});

test('a file in another encoding is reported by its line, and nothing of it is shown', () => {
  const text = '[db]\n# Schlüssel\nurl = postgresql://u:geheimß@h/d\n';
  const latin1 = parseIni(Buffer.from(text, 'latin1'));
  assert.deepEqual(latin1.problems, ['line 2 is not in UTF-8 (in Latin-1?): save the file as UTF-8']);
  const little = Buffer.from(`\ufeff${text}`, 'utf16le');
  assert.deepEqual(parseIni(little).problems, ['the file is in UTF-16: save it as UTF-8']);
  assert.deepEqual(parseIni(Buffer.from(little).swap16()).problems, ['the file is in UTF-16: save it as UTF-8']);
  for (const bytes of [little.subarray(2), Buffer.from('[a]\nx = 1\0\n')]) {
    const { problems } = parseIni(bytes);
    assert.equal(problems.length, 1);
    assert.match(problems[0]!, /zero bytes: save it as UTF-8$/);
  }
  assert.deepEqual(parseIni(Buffer.from(text)).problems, []);
  assert.deepEqual(parseIni(Buffer.from('[a]\nx = \ufffd')).problems, [], 'a replacement character of its own');
});

test('no problem shows more of a line than its key', () => {
  const { problems } = parseIni('hunter2\n[db]\nurl postgresql, hunter2\nx = hunter2\nX = hunter2\n= hunter2\n');
  assert.equal(problems.length, 4);
  for (const problem of problems) assert.doesNotMatch(problem, /hunter2/);
});

test('references that grow without bounds are a problem, and all values together stay within bounds', () => {
  const bomb = ['[a]', `k0 = ${'x'.repeat(30)}`];
  for (let n = 1; n < 12; n++) bomb.push(`k${n} = ${`%(k${n - 1})s`.repeat(10)}`);
  const { sections, problems } = parseIni(bomb.join('\n'));
  assert.ok(problems.length > 0);
  assert.match(problems[0]!, /^line 7: \[a\]\.k5 becomes too long by its %\(…\)s/);
  assert.equal(sections.get('a')?.get('k2')?.value.length, 3000);
  const total = [...sections.get('a')!.values()].reduce((sum, { value }) => sum + value.length, 0);
  assert.ok(total <= 1024 * 1024);
});

test('the nearest name is found for a typo or two, and none for a different word', () => {
  assert.equal(editDistance('listen', 'lisetn'), 1);
  assert.equal(editDistance('', 'abc'), 3);
  assert.equal(nearest('oxen_rpc', ['oxend_rpc', 'listen']), 'oxend_rpc');
  assert.equal(nearest('filter_lifetme', ['filter_lifetime', 'listen']), 'filter_lifetime');
  assert.equal(nearest('banana', ['oxend_rpc', 'listen']), undefined);
});
