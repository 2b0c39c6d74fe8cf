import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { EXAMPLE } from '../../ops/example.ts';
import { APNS } from '../../src/notifiers/apns/settings.ts';
import { FIREBASE } from '../../src/notifiers/firebase/settings.ts';
import { HUAWEI } from '../../src/notifiers/huawei/settings.ts';
import { WEBPUSH } from '../../src/notifiers/webpush/settings.ts';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import { changedKeys, RESTART_KEYS } from '../../src/settings/changes.ts';
import { type Config, type LoadOptions, loadConfig, runnableServices } from '../../src/settings/config.ts';
import { DATABASE } from '../../src/settings/database.ts';
import { HIVEMIND } from '../../src/settings/hivemind.ts';
import { generateKeyFile, readKeyFile } from '../../src/settings/key-file.ts';
import { KEYS as KEY_FILES } from '../../src/settings/keys.ts';
import { LOG } from '../../src/settings/log.ts';
import { NOTIFIER } from '../../src/settings/notifier.ts';
import { ConfigError } from '../../src/settings/section.ts';
import type { Table } from '../../src/settings/table.ts';
import { WEB } from '../../src/settings/web.ts';

const folder = mkdtempSync(join(tmpdir(), 'spns-config-'));
after(() => rmSync(folder, { recursive: true }));

const secret = Buffer.alloc(32, 7);
const keyFile = join(folder, 'good.key');
writeFileSync(keyFile, `${secret.toString('hex')}\n`, { mode: 0o600 });
const KEYS = `[keys]\nhivemind = ${keyFile}\nonionreq = ${keyFile}\n`;
const MINIMUM = `${KEYS}[hivemind]\noxend_rpc = ipc:///oxend.sock\n`;

let files = 0;
function load(text: string, options?: LoadOptions, env: NodeJS.ProcessEnv = {}): Config {
  const file = join(folder, `${files++}.ini`);
  writeFileSync(file, text);
  return loadConfig({ ...env, SPNS_CONFIG: file }, options);
}

function problems(text: string, options?: LoadOptions, env?: NodeJS.ProcessEnv): string[] {
  try {
    load(text, options, env);
  } catch (error) {
    assert(error instanceof ConfigError);
    return error.problems.map((problem) => problem.replace(/^.*?\.ini: /, ''));
  }
  return [];
}

test('the defaults are those of the original, and safe for what is ours', () => {
  const config = load(MINIMUM);
  assert.deepEqual(config.db, { url: 'postgresql:///spns' });
  assert.deepEqual(config.hivemind, {
    subsInterval: 30,
    maxConnects: 500,
    allowPrivateNodes: false,
    filterLifetime: 600,
    startupWait: 10,
    notifiersExpected: [],
    listen: 'ipc://./hivemind.sock',
    listenCurve: undefined,
    listenPush: undefined,
    listenCurvePublic: undefined,
    listenCurveAdmin: [],
    oxendRpc: 'ipc:///oxend.sock',
    outboxMaxBytes: 268435456,
    outboxMaxAge: 3600,
    goneBreakerShare: 0.5,
    goneBreakerMinimum: 100,
    instance: undefined,
    copies: 2,
    advertise: undefined,
    advertisePush: undefined,
    metricsListen: undefined,
  });
  assert.deepEqual(config.web, {
    listen: '127.0.0.1:8000',
    bodyLimit: 100000,
    trustProxy: false,
    rateLimit: 0,
    inFlightLimit: 500,
    metricsListen: undefined,
  });
  assert.deepEqual(config.log, { level: 'info', levels: new Map(), format: 'auto' });
  assert.deepEqual(config.keys.hivemind, secret);
  assert.deepEqual(config.keys.onionreq, secret);
  assert.deepEqual(config.warnings, []);
  assert.throws(() => Object.assign(config.hivemind, { maxConnects: 1 }), TypeError);
});

test("every key of the original's is read", () => {
  const admin = 'ab'.repeat(32);
  const config = load(`${KEYS}[db]
url = postgresql://spns:p%%23@db/spns
[hivemind]
subs_interval = 15
MAX_CONNECTS = 0
filter_lifetime = 300
startup_wait = 2.5
notifiers_expected = apns, firebase,huawei
listen = tcp://127.0.0.1:22028
listen_curve = tcp://0.0.0.0:22029
listen_curve_admin = ${admin}
  ${admin.toUpperCase()}, ${admin}
oxend_rpc = tcp://127.0.0.1:22025
[log]
level = WARNING
level-snode = trace
level-Hivemind = none
`);
  assert.equal(config.db.url, 'postgresql://spns:p%23@db/spns');
  assert.equal(config.hivemind.subsInterval, 15);
  assert.equal(config.hivemind.maxConnects, 0);
  assert.equal(config.hivemind.filterLifetime, 300);
  assert.equal(config.hivemind.startupWait, 2.5);
  assert.deepEqual(config.hivemind.notifiersExpected, ['apns', 'firebase', 'huawei']);
  assert.equal(config.hivemind.listen, 'tcp://127.0.0.1:22028');
  assert.equal(config.hivemind.listenCurve, 'tcp://0.0.0.0:22029');
  assert.deepEqual(config.hivemind.listenCurveAdmin, Array(3).fill(Buffer.from(admin, 'hex')));
  assert.equal(config.hivemind.oxendRpc, 'tcp://127.0.0.1:22025');
  assert.equal(config.log.level, 'warning');
  assert.deepEqual(
    [...config.log.levels],
    [
      ['snode', 'trace'],
      ['hivemind', 'none'],
    ],
  );
  assert.deepEqual(config.warnings, []);
});

test('everything that is wrong is reported at once, with section, key, value and what to do', () => {
  const found = problems(`[db]
url = mysql://root:hunter2@h/d
[hivemind]
subs_interval = soon
max_connects = -1
startup_wait = 1,5
listen = http://x
listen_curve = ipc://x
listen_curve_admin = abc
gone_breaker_share = 50
metrics_listen = 9180
[keys]
hivemind = ${folder}/none.key
[log]
level = loud
format = xml
[web]
listen = nowhere
trust_proxy = proxy.example
nonsense
`);
  const expected = [
    /^line 20: no "key = value"/,
    /^\[db\]\.url = mysql:\/\/root:\*\*\*@h\/d: must be a PostgreSQL address/,
    /^\[hivemind\]\.oxend_rpc: is required and not set/,
    /^\[hivemind\]\.listen = http:\/\/x: must be an address that starts with tcp:\/\/ or ipc:\/\/$/,
    /^\[hivemind\]\.listen_curve = ipc:\/\/x: must be an address that starts with tcp:\/\/$/,
    /^\[hivemind\]\.listen_curve_admin = abc: must be public keys of 64 hex digits/,
    /^\[hivemind\]\.subs_interval = soon: must be a whole number$/,
    /^\[hivemind\]\.max_connects = -1: must be at least 0$/,
    /^\[hivemind\]\.startup_wait = 1,5: must be a number$/,
    /^\[hivemind\]\.gone_breaker_share = 50: must be at most 1$/,
    /^\[hivemind\]\.metrics_listen = 9180: must be host:port/,
    /^\[keys\]\.hivemind = .*none\.key does not exist: create it with "spns keygen/,
    /^\[keys\]\.onionreq: is required and not set/,
    /^\[log\]\.level = loud: must be one of trace, debug, info, warning, error, critical, none$/,
    /^\[log\]\.format = xml: must be auto, plain or json$/,
    /^\[web\]\.listen = nowhere: must be host:port/,
    /^\[web\]\.trust_proxy = proxy\.example: must be yes, no/,
  ];
  assert.equal(found.length, expected.length, found.join('\n'));
  for (const [index, pattern] of expected.entries()) assert.match(found[index]!, pattern);
});

test('unknown keys and sections are warned about, with the name that was probably meant', () => {
  const { warnings } = load(`${MINIMUM}
outbox_max_bites = 1
colour = red
[hivemnd]
x = 1
[uwsgi]
[log]
level-snodes = debug
level-mine = debug
`);
  assert.deepEqual(
    warnings.map((warning) => warning.replace(/ \(line \d+\)/, '')),
    [
      '[log].level-snodes names a category that may not exist: did you mean level-snode?',
      '[hivemind].outbox_max_bites is not a known key and is ignored: did you mean outbox_max_bytes?',
      '[hivemind].colour is not a known key and is ignored: remove it, or see spns.ini.example for all keys',
      'section [hivemnd] is not known and is ignored: did you mean [hivemind]?',
      'section [uwsgi] is not known and is ignored: remove it',
    ],
  );
});

test("each of the original's example files is a valid configuration, once its keys are there", () => {
  const vectors: { name: string; text: string }[] = JSON.parse(
    readFileSync(new URL('../vectors/configparser.json', import.meta.url), 'utf8'),
  );
  const told = (year: string) => {
    const { text } = vectors.find(({ name }) => name === `the original's example of ${year}`)!;
    return load(text.replace(/^(hivemind|onionreq) = .*/gm, `$1 = ${keyFile}`)).warnings.map((warning) =>
      warning.replace(/ \(line \d+\)/, ''),
    );
  };
  const admin = /^\[hivemind\]\.listen_curve_admin names keys, but there is no listen_curve/;
  const [first, ...rest] = told('2024');
  assert.match(first!, admin);
  assert.deepEqual(rest, []);
  assert.deepEqual(
    told('2026').filter((warning) => !admin.test(warning)),
    [
      '[hivemind].quic_listen has no meaning for this server: it takes requests as onion requests, HTTPS and OxenMQ, not over QUIC. Keep it if you may go back to the original',
      '[keys].quic has no meaning for this server: it does not speak QUIC. Keep it if you may go back to the original',
    ],
  );
});

test("what the original's readers accept is accepted", () => {
  const log = (text: string) => load(`${MINIMUM}[log]\n${text}`).log;
  for (const [alias, level] of Object.entries({
    WARN: 'warning',
    warning: 'warning',
    Err: 'error',
    error: 'error',
    crit: 'critical',
    off: 'none',
    none: 'none',
  })) {
    assert.equal(log(`level = ${alias}`).level, level);
    assert.equal(log(`level-snode = ${alias}`).levels.get('snode'), level);
  }
  const compound = log('level = info, snode=debug;PG=off\n  *=warn\nlevel-pg = trace');
  assert.equal(compound.level, 'warning');
  assert.deepEqual(
    [...compound.levels],
    [
      ['snode', 'debug'],
      ['pg', 'trace'],
    ],
  );
  assert.match(problems(`${MINIMUM}[log]\nlevel = info, snode=loud`)[0]!, /level = info, snode=loud: must be one of/);
  assert.match(problems(`${MINIMUM}[log]\nlevel = =debug`)[0]!, /must name a category/);
  assert.match(load(`${MINIMUM}[log]\nlevel = info, snodes=debug`).warnings[0]!, /did you mean snode\?$/);

  const { hivemind } = load(`${MINIMUM}max_connects = 1_000\nstartup_wait = 1_0.5_0\nfilter_lifetime = +0_300\n`);
  assert.equal(hivemind.maxConnects, 1000);
  assert.equal(hivemind.startupWait, 10.5);
  assert.equal(hivemind.filterLifetime, 300);
  for (const wrong of ['1__000', '_1', '1_', '1,000', '0x10', '1_000.']) {
    assert.match(problems(`${MINIMUM}max_connects = ${wrong}\n`)[0]!, /must be a whole number/, wrong);
  }
});

test("the section of an operator's own notifier is left alone, and that is logged; with a module it is ours", () => {
  const config = load(`${MINIMUM}[notify-telegram]\ntoken = x\n[notify-apns]\n[notify-mine]\nmodule = m.ts\n`);
  assert.equal(config.warnings.length, 1);
  assert.match(config.warnings[0]!, /^\[notify-telegram\] is left to a program of your own/);
  assert.deepEqual(runnableServices(config.ini), ['apns', 'mine']);
  assert.match(load(`${MINIMUM}[notify-firebse]\n`).warnings[0]!, /did you mean \[notify-firebase\]\?$/);
});

test('a database password is never shown, whatever is in it', () => {
  for (const password of ['hunter2', 'hun@ter2', 'hun:ter2', 'h%%40unter2', 'hun/ter2@@']) {
    const [problem = ''] = problems(`[db]\nurl = mysql://root:${password}@h/d\n${MINIMUM}`);
    assert.match(problem, /^\[db\]\.url = mysql:\/\/root:\*\*\*@h\/d: must be/, password);
  }
});

test('omq_push_instances is accepted and explained', () => {
  const { warnings } = load(`${MINIMUM}omq_push_instances = 4\n`);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /omq_push_instances is no longer needed/);
  assert.deepEqual(load(`${MINIMUM}omq_push_instances = 0\n`).warnings, []);
});

test('a limit for clients who cannot be told apart, and trust in everybody, are warned about', () => {
  const warnings = (text: string) => load(`${MINIMUM}[web]\n${text}`).warnings;
  for (const fine of [
    'rate_limit = 10\ntrust_proxy = yes',
    'rate_limit = 10\ntrust_proxy = loopback\nlisten = unix:web.sock',
    'rate_limit = 10\nlisten = 0.0.0.0:8000',
    'trust_proxy = 192.0.2.1\nlisten = 0.0.0.0:8000',
  ]) {
    assert.deepEqual(warnings(fine), [], fine);
  }
  assert.match(warnings('rate_limit = 10')[0]!, /^\[web\]\.rate_limit counts all clients as one: .*trust_proxy/);
  assert.match(warnings('rate_limit = 10\nlisten = unix:web.sock')[0]!, /^\[web\]\.rate_limit has no effect/);
  assert.match(
    warnings('trust_proxy = yes\nlisten = [::]:8000')[0]!,
    /^\[web\]\.trust_proxy = yes believes the X-Forwarded-For of everybody/,
  );
});

test('the address of oxend is parsed, key and all', () => {
  const key = 'ab'.repeat(32);
  const oxend = (address: string) => problems(`${KEYS}[hivemind]\noxend_rpc = ${address}\n`);
  assert.deepEqual(oxend(`curve://oxend.example:22025/${key}`), []);
  assert.match(
    oxend('tcp://oxend.example')[0]!,
    /oxend_rpc = tcp:\/\/oxend\.example: must be an OxenMQ address: .* \(Could not/,
  );
  assert.match(oxend('curve://oxend.example:22025')[0]!, /must be an OxenMQ address/);
  assert.match(oxend('udp://oxend.example:22025')[0]!, /must be an OxenMQ address/);
});

test('a listener for administrators that admits nobody is warned about', () => {
  const warned = (text: string) => load(`${MINIMUM}${text}`).warnings.filter((line) => line.includes('listen_curve'));
  assert.match(warned('listen_curve = tcp://*:1\n')[0] ?? '', /listen_curve admits nobody.*listen_curve_admin/);
  assert.deepEqual(warned(`listen_curve = tcp://*:1\nlisten_curve_admin = ${'ab'.repeat(32)}\n`), []);
});

test('anybody who could be an administrator by way of listen is named where that is not intended', () => {
  const warned = (listen: string) =>
    load(`${MINIMUM}listen = ${listen}\n`).warnings.filter((line) => line.startsWith('[hivemind].listen ='));
  for (const listen of ['ipc://./hivemind.sock', 'ipc:///run/spns/hivemind.sock', 'tcp://127.0.0.1:1', 'tcp://[::1]:1'])
    assert.deepEqual(warned(listen), [], listen);
  assert.match(warned('ipc://@spns')[0]!, /every user of this machine .* would be an administrator/);
  for (const listen of [
    'tcp://*:1',
    'tcp://0.0.0.0:1',
    'tcp://[::]:1',
    'tcp://192.0.2.1:1',
    'tcp://push.example.org:1',
  ])
    assert.match(warned(listen)[0]!, /over the network/, listen);
});

test('an address at which nobody could be reached is refused, for every listener', () => {
  for (const key of ['listen', 'listen_push', 'listen_curve', 'listen_curve_public']) {
    assert.match(problems(`${MINIMUM}${key} = tcp://127.0.0.1:*\n`)[0]!, /must name its port/, key);
    assert.match(problems(`${MINIMUM}${key} = tcp://127.0.0.1:99999\n`)[0]!, /65535 at most/, key);
  }
  assert.match(problems(MINIMUM.replace(/oxend_rpc = .*/, 'oxend_rpc = tcp://*:22025'))[0]!, /say where oxend is/);
});

test('two listeners cannot share an address', () => {
  assert.match(
    problems(`${MINIMUM}listen = tcp://127.0.0.1:5\nlisten_push = tcp://*:5\n`)[0]!,
    /listen_push = .* is the address of another listener/,
  );
  assert.match(
    problems(`${MINIMUM}listen = ipc:///a\nlisten_push = ipc:///a\n`)[0]!,
    /^\[hivemind\]\.listen_push = ipc:\/\/\/a: is the address of another listener/,
  );
  assert.match(
    problems(`${MINIMUM}listen_curve = tcp://*:1\nlisten_curve_public = tcp://*:1\n`)[0]!,
    /^\[hivemind\]\.listen_curve_public = tcp:\/\/\*:1: is the address of another listener/,
  );
});

test('each role requires only what it needs', () => {
  const none = '[log]\nlevel = info\n';
  assert.equal(problems(none, { role: 'hivemind' }).length, 2, 'oxend_rpc and its key');
  assert.match(problems(none, { role: 'notifier' }).join(), /^\[keys\]\.hivemind: is required/);
  assert.match(problems(none, { role: 'web' }).join(), /^\[keys\]\.onionreq: is required/);
  const unreadable = `[keys]\nhivemind = /nowhere\nonionreq = ${keyFile}\n`;
  const web = load(unreadable, { role: 'web' });
  assert.deepEqual(web.keys.onionreq, secret);
  assert.throws(() => web.keys.hivemind, /not loaded for the role "web"/);
  assert.equal(load(`[keys]\nhivemind = ${keyFile}\n`, { role: 'notifier' }).keys.onionreq, undefined);
});

test('a missing file is reported with the places looked at, and an empty SPNS_CONFIG means no file', () => {
  assert.throws(
    () => loadConfig({ SPNS_CONFIG: join(folder, 'missing.ini') }),
    (error: ConfigError) => /missing\.ini is not there: name your configuration/.test(error.problems.join()),
  );
  assert.throws(
    () => loadConfig({ SPNS_CONFIG: '' }, { role: 'web' }),
    (error: ConfigError) =>
      error.problems.length === 1 && error.problems[0] === '[keys].onionreq: is required and not set: add it',
  );
});

test('the example is a valid configuration without a warning, and so are its commented keys', () => {
  const example = readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8').replace(
    /^(hivemind|onionreq) = .*/gm,
    `$1 = ${keyFile}`,
  );
  assert.deepEqual(load(example).warnings, []);
  // The public key must be that of the key that is put in above.
  const everything = example
    .replace(/^;(\[|\w+ =| {4}\w)/gm, '$1')
    .replace(/^(front_end_key) = .*/gm, `$1 = ${x25519Public(secret).toString('hex')}`);
  const config = load(everything);
  assert.deepEqual(config.warnings, []);
  assert.equal(config.hivemind.listenCurveAdmin.length, 2);
  assert.equal(config.section('notify-apns').string('cert_file'), 'apns.pem');
});

test('what the example comments out is the default, except where there is none', () => {
  const example = readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8').replace(
    /^(hivemind|onionreq) = .*/gm,
    `$1 = ${keyFile}`,
  );
  const plain = load(example);
  const shown = load(example.replace(/^;(\[|\w+ =| {4}\w)/gm, '$1'));
  const differing = (['db', 'hivemind', 'web', 'log'] as const).flatMap((section) =>
    Object.entries(shown[section])
      .filter(([key, value]) => !isDeepStrictEqual(value, (plain[section] as Record<string, unknown>)[key]))
      .map(([key]) => `${section}.${key}`),
  );
  assert.deepEqual(differing, [
    'hivemind.listenPush',
    'hivemind.listenCurve',
    'hivemind.listenCurveAdmin',
    'hivemind.listenCurvePublic',
    'hivemind.notifiersExpected',
    'hivemind.instance',
    'hivemind.advertise',
    'hivemind.advertisePush',
    'hivemind.metricsListen',
    'web.metricsListen',
  ]);
});

test('the example explains every key that is read', () => {
  const example = readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8');
  const keys = [DATABASE, HIVEMIND, KEY_FILES, LOG, WEB].flatMap(({ settings }: Table) => Object.values(settings));
  assert(keys.length > 20);
  for (const { key } of keys) assert.match(example, new RegExp(`^;?${key} =`, 'm'), `${key} is missing`);
});

test('the example explains every key of a notifier, with its true default', () => {
  // What only the tests set.
  const unexplained = ['host', 'port', 'url', 'oauth_url', 'ca_file', 'name_server'];
  const sections = readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8').split(/^;\[notify-/m);
  for (const [name, table] of Object.entries<Table>({
    apns: APNS,
    firebase: FIREBASE,
    huawei: HUAWEI,
    webpush: WEBPUSH,
    example: { settings: { module: NOTIFIER.settings.module } },
  })) {
    const example = sections.find((section) => section.startsWith(`${name}]`))!;
    const settings = Object.values(table.settings);
    assert(settings.length > 0);
    for (const { key, default: value } of settings) {
      if (unexplained.includes(key)) continue;
      assert.match(example, new RegExp(`^;${key} = ${value ?? '.'}`, 'm'), `${key} of ${name}`);
    }
  }
});

test('[canary]: there is none without a section, and its wrong or unknown keys are reported', () => {
  assert.equal(load(MINIMUM).canary, undefined);
  const section = (frontEnd: string, key: string) =>
    `${MINIMUM}[canary]\nfront_end = ${frontEnd}\nfront_end_key = ${key}\n`;
  const right = x25519Public(secret).toString('hex');
  const { canary, warnings, metricsListen } = load(section('https://push.example.org/base/', right));
  assert.equal(canary?.frontEnd, 'https://push.example.org/base');
  assert.equal(canary?.frontEndKey.toString('hex'), right);
  assert.deepEqual(warnings, []);
  assert.equal(metricsListen('canary'), undefined);
  const strange = load(section('https://push.example.org', '11'.repeat(32))).warnings;
  assert.match(strange.join(), /^\[canary\]\.front_end_key is not the public key of \[keys\]\.onionreq/);
  for (const wrong of [
    'push.example.org',
    'ftp://push.example.org',
    'https://me:word@push.example.org',
    'https://x/?a',
  ]) {
    assert.match(problems(section(wrong, right)).join(), /^\[canary\]\.front_end = .*: must be an address such as/);
  }
  assert.match(problems(section('https://x', 'abc')).join(), /^\[canary\]\.front_end_key = abc: must be 64 hex digits/);
  // Who runs one without a section is told what it lacks.
  assert.match(problems(MINIMUM, { role: 'canary' }).join(), /\[canary\]\.front_end: is required/);
});

test('the example in the repository is the one generated from the tables: npm run example', () => {
  assert.equal(readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8'), EXAMPLE);
});

test('the example marks exactly those keys that need a restart', () => {
  const example = readFileSync(new URL('../../spns.ini.example', import.meta.url), 'utf8').split(/^;?\[notify-/m)[0]!;
  const marked: string[] = [];
  for (const part of example.split(/^(?=;?\[)/m)) {
    const section = /^;?(\[\w+\])/.exec(part)?.[1];
    for (const paragraph of part.split(/\n\n+/)) {
      if (!/needs? a restart/i.test(paragraph)) continue;
      marked.push(...[...paragraph.matchAll(/^;?(\w+) =/gm)].map((match) => `${section}.${match[1]}`));
    }
  }
  assert.deepEqual(marked.sort(), [...new Set(Object.values(RESTART_KEYS).flat())].sort());
});

test('key files: raw bytes, hex with blanks; what is wrong with others', () => {
  const file = (name: string, content: string | Buffer) => {
    writeFileSync(join(folder, name), content, { mode: 0o600 });
    return join(folder, name);
  };
  assert.deepEqual(readKeyFile(file('raw', secret)), { key: secret, exposed: false });
  assert.deepEqual(readKeyFile(file('hex', `  ${secret.toString('hex').toUpperCase()}\r\n\n`)).key, secret);
  assert.throws(
    () => readKeyFile(file('short', secret.subarray(1))),
    /holds 31 bytes that are not a key: it must be 32 raw bytes or 64 hex/,
  );
  assert.throws(() => readKeyFile(file('empty', '')), /holds 0 bytes/);
  assert.throws(() => readKeyFile(file('other', 'z'.repeat(64))), /holds 64 bytes that are not a key/);
  assert.throws(() => readKeyFile(file('huge', Buffer.alloc(100000))), /holds more than 1024 bytes/);
  assert.throws(() => readKeyFile(folder), /cannot be read \(EISDIR\)/);
});

test('a key file that everybody may read is warned about', () => {
  const open = join(folder, 'open.key');
  writeFileSync(open, secret);
  chmodSync(open, 0o644);
  const { warnings } = load(`[keys]\nonionreq = ${open}\n`, { role: 'web' });
  assert.equal(warnings.length, 1);
  assert.match(
    warnings[0]!,
    /^\[keys\]\.onionreq: every user of this machine may read or change .*open\.key: chmod 600 it$/,
  );
  chmodSync(open, 0o640);
  assert.deepEqual(load(`[keys]\nonionreq = ${open}\n`, { role: 'web' }).warnings, []);
});

test("a relative key path that is in systemd's credentials directory is taken from there", () => {
  const credentials = join(folder, 'credentials');
  mkdirSync(credentials);
  writeFileSync(join(credentials, 'web.key'), secret, { mode: 0o400 });
  const env = { CREDENTIALS_DIRECTORY: credentials };
  assert.deepEqual(load('[keys]\nonionreq = web.key\n', { role: 'web' }, env).keys.onionreq, secret);
  assert.match(
    problems('[keys]\nonionreq = other.key\n', { role: 'web' }, env)[0]!,
    new RegExp(`${process.cwd()}/other.key does not exist`),
  );
});

test('a new key is written for its owner alone, never over another, and its public half is printed', () => {
  const path = join(folder, 'new.key');
  const told = generateKeyFile(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(keyPairFromSecret(readKeyFile(path).key).publicKey.toString('hex'), told);
  assert.throws(() => generateKeyFile(path), /is already there and is not overwritten/);
  assert.equal(keyPairFromSecret(readKeyFile(path).key).publicKey.toString('hex'), told);
});

test('what changed between two configurations is named, without the values', () => {
  const before = load(`${MINIMUM}subs_interval = 30\n[notify-huawei]\napp_secret = one\nretries = 1\n`);
  const after = load(`${MINIMUM}max_connects = 3\n[notify-huawei]\napp_secret = two\nretries = 1\n`);
  assert.deepEqual(changedKeys(before, after), [
    '[hivemind].subs_interval',
    '[hivemind].max_connects',
    '[notify-huawei].app_secret',
  ]);
  assert.deepEqual(changedKeys(before, before), []);
});

test('a misspelt key is pointed out together with the problem that it causes', () => {
  assert.throws(
    () => load(`${KEYS}[hivemind]\noxend_rcp = ipc:///oxend.sock\n`),
    (error: ConfigError) => {
      assert.match(error.problems.join(), /\[hivemind\]\.oxend_rpc: is required and not set/);
      assert.match(error.warnings.join(), /\[hivemind\]\.oxend_rcp .* did you mean oxend_rpc\?/);
      return true;
    },
  );
});
