import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { findUser, mayRead } from '../../src/cli/child.ts';
import { type Deployed, isHandedOver, underUnits } from '../../src/cli/under-units.ts';
import { readUnit } from '../../src/cli/unit.ts';
import { parseIni } from '../../src/settings/ini.ts';

const UNITS = join(import.meta.dirname, '../../systemd');
const FILE = '/etc/spns/spns.ini';

const DEPLOYED: readonly Deployed[] = [
  { kind: 'hivemind', unit: readUnit('spns-hivemind', [UNITS])! },
  { kind: 'web', unit: readUnit('spns-web', [UNITS])! },
  { kind: 'notifier', service: 'apns', unit: readUnit('spns-notifier@apns', [UNITS])! },
];

/** What is found about the configuration itself; this machine has neither these users nor these folders. */
function found(text: string, deployed = DEPLOYED): string[] {
  const own = /who does not exist on this machine|which does not exist/;
  return underUnits(FILE, parseIni(text), deployed).filter((problem) => !own.test(problem));
}

const GOOD = [
  '[hivemind]',
  'oxend_rpc = ipc:///var/lib/oxen/oxend.sock',
  'listen = ipc:///run/spns/hivemind.sock',
  'listen_push = ipc:///run/spns/push.sock',
  'metrics_listen = 127.0.0.1:9180',
  '[keys]',
  'hivemind = hivemind.key',
  'onionreq = onionreq.key',
  '[web]',
  'listen = unix:/run/spns-web/web.sock',
  '[notify-apns]',
  'cert_file = apns.pem',
  '',
].join('\n');

test('our units are read as they are: users, folders, credentials, and what they hide', () => {
  const [hivemind, web, apns] = DEPLOYED.map(({ unit }) => unit) as [
    Deployed['unit'],
    Deployed['unit'],
    Deployed['unit'],
  ];
  assert.deepEqual([hivemind.user, web.user, apns.user], ['spns', 'spns-web', 'spns-notifier']);
  assert.equal(hivemind.folder, '/etc/spns');
  assert.equal(hivemind.environment.get('SPNS_CONFIG'), FILE);
  assert.deepEqual(hivemind.writable, ['/run/spns', '/var/cache/spns']);
  assert.deepEqual(web.writable, ['/run/spns-web', '/var/cache/spns-web']);
  assert.deepEqual([...apns.credentials], [['hivemind.key', '/etc/spns/hivemind.key']]);
  assert.deepEqual([...hivemind.hidden.keys()], ['/home', '/root', '/run/user', '/tmp', '/var/tmp']);
  assert.equal(hivemind.lowPorts, false);
  assert.deepEqual(apns.programs, ['/opt/spns/src/cli/node', '/opt/spns/src/notifiers/main.ts']);
  assert.equal(readUnit('spns-nothing', [UNITS]), undefined);
});

test('a front-end with a configuration of its own is checked against that file', () => {
  const [hivemind, web] = DEPLOYED as [Deployed, Deployed, Deployed];
  const own = { ...web, unit: { ...web.unit, environment: new Map([['SPNS_CONFIG', '/etc/spns/web.ini']]) } };
  const both = GOOD.replace('unix:/run/spns-web/web.sock', 'unix:web.sock');
  assert.deepEqual(found(both, [hivemind, own]), []);
  const [problem, ...more] = underUnits('/etc/spns/web.ini', parseIni('[web]\nlisten = unix:web.sock\n'), [
    hivemind,
    { ...own, unit: { ...own.unit, user: undefined, programs: [], credentials: new Map(), folder: '/' } },
  ]);
  assert.match(problem!, /^\[web\]\.listen = unix:web\.sock: spns-web would create its socket at \/web\.sock/);
  assert.deepEqual(more, []);
  assert.match(
    underUnits('/srv/other.ini', parseIni(GOOD), DEPLOYED)[0]!,
    /^spns-hivemind reads \/etc\/spns\/spns\.ini, not/,
  );
});

test('each of several hiveminds is checked against its own section, and against the common one where that says nothing', () => {
  const hiveminds = ['a', 'b'].map((instance) => ({
    kind: 'hivemind' as const,
    instance,
    unit: readUnit(`spns-hivemind@${instance}`, [UNITS])!,
  }));
  const sections = (a: string, b: string) => `${GOOD}[hivemind-a]\n${a}\n[hivemind-b]\n${b}\n`;
  const own = 'listen = ipc:///run/spns/b.sock\nlisten_push = ipc:///run/spns/push-b.sock';
  assert.deepEqual(found(sections('', own), hiveminds), []);
  const [problem, ...more] = found(sections('', 'listen = ipc:///tmp/b.sock'), hiveminds);
  assert.match(
    problem!,
    /^\[hivemind-b\]\.listen = ipc:\/\/\/tmp\/b\.sock: spns-hivemind@b would create its socket in \/tmp/,
  );
  assert.deepEqual(more, []);
  const common = GOOD.replace('listen_push = ipc:///run/spns/push.sock', 'listen_push = ipc:///srv/push.sock');
  assert.deepEqual(
    found(`${common}[hivemind-a]\n[hivemind-b]\n${own}\n`, hiveminds).map((text) => text.slice(0, 66)),
    ['[hivemind].listen_push = ipc:///srv/push.sock: spns-hivemind@a woul'.slice(0, 66)],
  );
  const [wrong] = found(sections('oxend_rpc = ipc:///home/oxend.sock', own), hiveminds);
  assert.match(wrong!, /^\[hivemind-a\]\.oxend_rpc: \/home\/oxend\.sock is hidden from spns-hivemind@a/);
});

test("a notifier's credential that systemd hands over is recognised as such", () => {
  const apns = DEPLOYED[2]!;
  const handing = (...names: string[]) => ({
    ...apns,
    unit: { ...apns.unit, credentials: new Map(names.map((name) => [name, `/etc/spns/${name}`])) },
  });
  assert.equal(isHandedOver(parseIni(GOOD), handing('hivemind.key')), false);
  assert.equal(isHandedOver(parseIni(GOOD), handing('hivemind.key', 'apns.pem')), true);
});

test('the configuration of docs/install.md has no problem under the units', () => {
  assert.deepEqual(found(GOOD), []);
});

test('what runs when started by hand and fails under the units is reported', () => {
  const change = (from: string, to: string) => found(GOOD.replace(from, to));
  for (const [from, to, problem] of [
    // The untouched example.
    [
      'listen = ipc:///run/spns/hivemind.sock\n',
      '',
      /^\[hivemind\]\.listen is not set, and spns-hivemind would create its socket at \/etc\/spns\/hivemind\.sock, in a folder that it may not write to: set it to a path in \/run\/spns$/,
    ],
    [
      'ipc:///run/spns/push.sock',
      'ipc://./push.sock',
      /^\[hivemind\]\.listen_push = ipc:\/\/\.\/push\.sock: .*\/etc\/spns\/push\.sock/,
    ],
    ['ipc:///run/spns/push.sock', 'ipc:///run/spns-web/push.sock', /may not write to/],
    ['ipc:///run/spns/push.sock', 'ipc:///tmp/push.sock', /in \/tmp, which nobody else can see \(PrivateTmp\)/],
    ['ipc:///run/spns/push.sock', 'ipc:///home/x/push.sock', /\(ProtectHome\)/],
    [
      'unix:/run/spns-web/web.sock',
      'unix:web.sock',
      /^\[web\]\.listen = unix:web\.sock: spns-web .*set it to a path in \/run\/spns-web$/,
    ],
    [
      'unix:/run/spns-web/web.sock',
      '0.0.0.0:443',
      /^\[web\]\.listen = 0\.0\.0\.0:443: spns-web may not listen below port 1024/,
    ],
    ['127.0.0.1:9180', '127.0.0.1:80', /^\[hivemind\]\.metrics_listen .*below port 1024/],
    ['127.0.0.1:9180', 'unix:metrics.sock', /^\[hivemind\]\.metrics_listen .*may not write to/],
    [
      '/var/lib/oxen/oxend.sock',
      '/home/x/.oxen/oxend.sock',
      /^\[hivemind\]\.oxend_rpc: \/home\/x\/\.oxen\/oxend\.sock is hidden from spns-hivemind \(ProtectHome\)/,
    ],
    ['= hivemind.key', '= /root/hivemind.key', /^\[keys\]\.hivemind: \/root\/hivemind\.key is hidden/],
    ['= onionreq.key', '= /tmp/onionreq.key', /^\[keys\]\.onionreq: \/tmp\/onionreq\.key is hidden from spns-web/],
    ['= apns.pem', '= /home/x/apns.pem', /^\[notify-apns\]\.cert_file: .* is hidden from spns-notifier@apns/],
    ['[keys]', '[db]\nurl = postgresql:///spns?host=/tmp\n[keys]', /^\[db\]\.url: \/tmp\/? is hidden/],
    [
      '[keys]',
      '[db]\nurl = postgresql://h/spns?sslrootcert=/root/ca.pem&x=1\n[keys]',
      /^\[db\]\.url: \/root\/ca\.pem is hidden/,
    ],
  ] as const) {
    const problems = change(from, to);
    assert.match(problems[0] ?? '', problem, to);
  }
  // In the front-end's folder these are right.
  assert.deepEqual(change('unix:/run/spns-web/web.sock', '127.0.0.1:8000'), []);
  assert.deepEqual(change('ipc:///run/spns/push.sock', 'ipc://@spns-push'), []);
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'spns-units-'));
  t.after(() => rmSync(path, { recursive: true }));
  chmodSync(path, 0o755);
  return path;
}

test('what an operator changed by "systemctl edit" counts', (t) => {
  const dir = folder(t);
  mkdirSync(join(dir, 'spns-hivemind.service.d'));
  const edit = (text: string) =>
    writeFileSync(join(dir, 'spns-hivemind.service.d/override.conf'), `[Service]\n${text}\n`);
  const look = () => readUnit('spns-hivemind', [dir, UNITS])!;
  edit(
    'ReadWritePaths=/etc/spns /srv/x\nProtectHome=no\nUser=other\nLoadCredential=\nLoadCredential=my.key:/etc/my.key',
  );
  assert.deepEqual(look().writable, ['/run/spns', '/var/cache/spns', '/etc/spns', '/srv/x']);
  assert.ok(!look().hidden.has('/home'));
  assert.equal(look().user, 'other');
  assert.deepEqual([...look().credentials], [['my.key', '/etc/my.key']]);
  edit('ProtectSystem=full\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nEnvironment="SPNS_CONFIG=/srv/a b.ini"');
  assert.equal(look().writable, undefined);
  assert.equal(look().lowPorts, true);
  assert.equal(look().environment.get('SPNS_CONFIG'), '/srv/a b.ini');
  const [other] = underUnits(FILE, parseIni(GOOD), [{ kind: 'hivemind', unit: look() }]);
  assert.match(other!, /^spns-hivemind reads \/srv\/a b\.ini, not this file/);
});

test('a user, program or credential that does not exist is reported: systemd would not start the unit', () => {
  const problems = underUnits(FILE, parseIni(GOOD), [
    {
      kind: 'hivemind',
      unit: {
        ...DEPLOYED[0]!.unit,
        user: 'spns-not-there',
        folder: '/spns-not-there',
        programs: ['/spns/not-there'],
        credentials: new Map([['hivemind.key', '/spns/not-there.key']]),
      },
    },
  ]).join('\n');
  assert.match(problems, /runs as the user spns-not-there, who does not exist on this machine/);
  assert.match(problems, /starts \/spns\/not-there, which does not exist/);
  assert.match(problems, /works in \/spns-not-there/);
  assert.match(problems, /is handed hivemind\.key from \/spns\/not-there\.key, which does not exist/);
});

const nobody = findUser('nobody');
const skip = (process.getuid?.() !== 0 || !nobody) && 'only root can look with the eyes of another user';
test('for a key that only root may read, handing it over is recommended', { skip }, (t) => {
  const dir = folder(t);
  const key = join(dir, 'hive.key');
  writeFileSync(key, '07'.repeat(32), { mode: 0o600 });
  assert.ok(!mayRead(key, nobody!));
  const unit = { ...DEPLOYED[0]!.unit, user: 'nobody', hidden: new Map() };
  const look = (credentials: Map<string, string>) =>
    found(GOOD.replace('= hivemind.key', `= ${key}`), [{ kind: 'hivemind', unit: { ...unit, credentials } }])[0]!;
  assert.match(
    look(new Map()),
    /^\[keys\]\.hivemind: the user nobody of spns-hivemind may not read \S+hive\.key: let it be handed over \(LoadCredential=NAME:/,
  );
  assert.match(look(new Map([['hivemind.key', key]])), /: write it as hivemind\.key, which systemd hands over$/);
});
