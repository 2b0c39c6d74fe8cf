import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { stringifySorted } from '../../src/codec/json.ts';
import { keyPairFromSecret, randomKeyPair } from '../../src/oxenmq/keys.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import type { Access, Commands } from '../../src/oxenmq/remote.ts';
import { ended } from '../support/once.ts';
import { folder, type Result, spns, startSpns } from './spns.ts';

const SERVICE = {
  service: 'apns',
  notifiers: 2,
  subscriptions: 61_000,
  queued: 1_200,
  queued_bytes: 840_000,
  in_flight: 40,
  oldest_seconds: 75,
  handed: 9_000,
  accepted: 8_900,
  refused: 3,
  redelivered: 1,
  dropped: { overflow: 5, expired: 2 },
  gone: 17,
  breaker_open: true,
  latency: { median: 0.4321, p95: 75.2 },
};
const NODE = {
  address: 'tcp://198.51.100.1:22020',
  key: '0123456789ab',
  swarm: 'ff',
  state: 'up',
  connected_since: Math.floor(Date.now() / 1000) - 7_200,
  accounts: 500,
  confirmed: 500,
  unconfirmed: 0,
  refused: 0,
  oldest_seconds: 600,
  in_flight: 0,
  failures: 0,
  last_error: '',
  limited: 7,
  unheld: 1_000,
  contradicted: 20,
  alone: 300,
};
const NODES = [
  { ...NODE },
  { ...NODE, address: 'tcp://198.51.100.2:22020', oldest_seconds: 1_200 },
  {
    ...NODE,
    address: 'tcp://198.51.100.3:22020',
    state: 'cooldown',
    connected_since: null,
    confirmed: 0,
    unconfirmed: 500,
    failures: 4,
    last_error: 'no \u001b[31mHELLO',
  },
];
const STATS = {
  accounts_monitored: 80_000,
  block_hash: 'aa',
  block_height: 1_234_567,
  connections: 1_998,
  pending_connections: 2,
  snodes: 2_000,
  subscriptions: { apns: 61_000, total: 61_000 },
  swarms: 280,
  uptime: 7_200,
  freshness: { fresh_nodes: 1_995, oldest_seconds: 3_000, unconfirmed: 10, uncovered: 0, oxend: true },
  since_start: {
    raw: 5_000,
    duplicates: 4_000,
    unique: 1_000,
    pushes: 1_100,
    unwanted: 3,
    unasked: 2,
    expired: 4,
    limited: 500,
    unshown: 8,
    contradicted: 6,
    unheld: 70,
    held: 8,
    malformed: { malformed: 1 },
  },
  services: [SERVICE],
};

/** Something that answers as a hivemind does, and a configuration that leads to it. */
async function hivemind(
  t: { after(fn: () => Promise<void>): void },
  answers: Record<string, (parts: string[]) => unknown> = {},
  access: Access = 'admin',
): Promise<string> {
  const dir = await folder(t);
  const given: Record<string, (parts: string[]) => unknown> = {
    get_stats: () => STATS,
    get_nodes: () => NODES,
    get_services: () => [SERVICE],
    ...answers,
  };
  const commands: Commands = {
    admin: {
      access: 'admin',
      commands: Object.fromEntries(
        Object.entries(given).map(([name, answer]) => [
          name,
          {
            kind: 'request' as const,
            handler: (message) => message.reply(stringifySorted(answer(message.parts.map(String)))),
          },
        ]),
      ),
    },
  };
  const listener = new Listener({ clock: systemClock, address: `ipc://${dir}/h.sock`, access, commands });
  await listener.bind();
  t.after(() => listener.close());
  await writeFile(join(dir, 'spns.ini'), '[hivemind]\nlisten = ipc://./h.sock\n');
  return dir;
}

function succeeded({ code, out, err }: Result): string {
  assert.equal(code, 0, err);
  assert.equal(err, '');
  return out;
}

test('stats shows the figures, and --json all of them', async (t) => {
  const dir = await hivemind(t);
  const text = succeeded(await spns(['stats'], dir));
  assert.match(text, /^Up +2\.0 h, block 1,234,567$/m);
  assert.match(text, /^Network +2,000 storage servers in 280 swarms: 1,998 connected, 2 being connected$/m);
  assert.match(text, /^Freshness +1,995 servers fresh; stalest account 50 min; 0 accounts uncovered$/m);
  assert.match(text, /^Notifications +5,000, of them copies 4,000$/m);
  assert.match(
    text,
    /^Dropped +3 unwanted, 2 not asked for, 1 malformed, 4 expired, 570 too many, 6 contradicted, 8 not to be shown$/m,
  );
  assert.match(text, /^apns +2 /m);
  assert.deepEqual(JSON.parse(succeeded(await spns(['stats', '--json'], dir))), STATS);
});

test('stats works with a hivemind of the original kind, which reports less', async (t) => {
  const { freshness: _, since_start: __, services: ___, ...original } = STATS;
  const dir = await hivemind(t, { get_stats: () => original });
  const text = succeeded(await spns(['stats'], dir));
  assert.match(text, /^Accounts +80,000, with 61,000 devices$/m);
});

test('stats --watch keeps asking and shows rates per second until Ctrl-C', async (t) => {
  let asked = 0;
  const dir = await hivemind(t, {
    get_stats: () => {
      asked++;
      return { ...STATS, uptime: 100 + 2 * asked, since_start: { ...STATS.since_start, raw: 1_000 + 50 * asked } };
    },
  });
  const child = startSpns(['stats', '--watch'], dir);
  const end = ended(child);
  let out = '';
  child.stdout!.setEncoding('utf8');
  for await (const text of child.stdout!) {
    out += text;
    if (!child.killed && out.includes('/s)')) child.kill('SIGINT');
  }
  assert.match(out, /Notifications +1,100 \(25\.0\/s\)/);
  // No terminal: nothing that clears a screen.
  assert.ok(!out.includes('\u001b'));
  assert.equal(await end, 0);
});

test('services shows queues, answers and the breaker', async (t) => {
  const dir = await hivemind(t);
  const [heads, row] = succeeded(await spns(['services'], dir)).split('\n');
  assert.match(
    heads!,
    /^service +notifiers +devices +queued +in flight +oldest +latency +accepted +refused +redelivered +gone +dropped +removal$/,
  );
  assert.match(row!, /^apns +2 +61,000 +1,200 +40 +75 s +0\.43 s \/ 75 s +8,900 +3 +1 +17 +7 +stopped$/);
  assert.deepEqual(JSON.parse(succeeded(await spns(['services', '--json'], dir))), [SERVICE]);
  const { latency: _, ...older } = SERVICE;
  const before = await hivemind(t, { get_services: () => [older, { ...SERVICE, latency: null }] });
  const rows = succeeded(await spns(['services'], before))
    .trimEnd()
    .split('\n')
    .slice(1);
  for (const each of rows) assert.match(each, /^apns .* 75 s +- +8,900 /);
  assert.equal(rows.length, 2);
  const none = await hivemind(t, { get_services: () => [] });
  assert.match(succeeded(await spns(['services'], none)), /No service yet/);
});

test('expire shows what is held back, releases it when told to, and refuses while the time is in doubt', async (t) => {
  const dir = await hivemind(t, {
    expire: ([word]) => (word === 'yes' ? { expired: 61_000 } : { expired: 0, held: 'more than 3,050 of 61,000' }),
  });
  assert.equal(succeeded(await spns(['expire'], dir)).trim(), 'more than 3,050 of 61,000');
  assert.equal(succeeded(await spns(['expire', '--yes'], dir)).trim(), '61000 subscriptions were deleted');
  const calm = await hivemind(t, { expire: () => ({ expired: 0 }) });
  assert.equal(succeeded(await spns(['expire'], calm)).trim(), 'nothing is held');
  const doubting = await hivemind(t, { expire: () => ({ expired: 0, doubt: 'two clocks' }) });
  const { code, err } = await spns(['expire', '--yes'], doubting);
  assert.equal(code, 1);
  assert.match(err, /nothing is deleted while the time is in doubt: two clocks/);
});

test('nodes lists those that need attention first, and their text cannot control the terminal', async (t) => {
  const dir = await hivemind(t);
  const lines = succeeded(await spns(['nodes'], dir)).split('\n');
  assert.match(
    lines[1]!,
    /^tcp:\/\/198\.51\.100\.3:22020 +ff +cooldown +- +0\/500 +0 +10 min +4 +1,327 +no \?\[31mHELLO$/,
  );
  assert.match(lines[2]!, /100\.2:22020 +ff +up +2\.0 h +500\/500 +0 +20 min/);
  assert.match(lines[3]!, /100\.1:22020/);
  assert.equal(lines.at(-2), '3 storage servers, 1 need attention');

  const bad = await spns(['nodes', '--bad', '--json'], dir);
  assert.equal(bad.code, 1);
  assert.deepEqual(JSON.parse(bad.out), [NODES[2]]);
});

test('nodes --bad shows what is wrong with oxend, even where there are no nodes to look at', async (t) => {
  const complaints = ['oxend: the user spns may not connect to /var/lib/oxen/oxend.sock\u001b[31m'];
  const dir = await hivemind(t, { get_nodes: () => [], get_stats: () => ({ ...STATS, complaints }) });
  const bad = await spns(['nodes', '--bad'], dir);
  assert.equal(bad.code, 1);
  assert.match(bad.out, /^oxend: the user spns may not connect to \S+oxend\.sock\?\[31m\n0 storage servers/);
  assert.doesNotMatch(succeeded(await spns(['nodes'], dir)), /oxend/);
});

test("test-push passes the token on and reports the provider's answer", async (t) => {
  const token = 'ab'.repeat(32);
  const asked: string[][] = [];
  const dir = await hivemind(t, {
    test_push: (parts) => {
      asked.push(parts);
      return parts[1]!.includes(token) ? { ok: true, answer: 'accepted' } : { ok: false, answer: 'Invalid token' };
    },
  });
  const good = await spns(['test-push', 'apns', token], dir);
  assert.equal(succeeded(good), 'accepted\n');
  assert.deepEqual(asked[0], ['apns', `{"token":"${token}"}`]);

  const bad = await spns(['test-push', 'mine', '--info', '{"id": [1]}'], dir);
  assert.equal(bad.code, 1);
  assert.equal(bad.err, 'spns: not accepted: Invalid token\n');
  assert.deepEqual(asked[1], ['mine', '{"id":[1]}']);
});

test('without a hivemind it says where to look', async (t) => {
  const dir = await folder(t, { 'spns.ini': '[hivemind]\nlisten = ipc://./h.sock\n' });
  const { code, err } = await spns(['stats'], dir);
  assert.equal(code, 1);
  assert.match(
    err,
    /^spns: no hivemind answers: there is no socket \/\S+\/h\.sock\. Is it running \(systemctl status spns-hivemind\)/,
  );
});

test('an old hivemind, or a socket without the right, is named for what it is', async (t) => {
  const dir = await hivemind(t, {}, 'none');
  const { code, err } = await spns(['stats'], dir);
  assert.equal(code, 1);
  assert.match(err, /refuses admin\.get_stats: that socket is not an admin's/);
  const old = await spns(['test-push', 'apns', 'x'], await hivemind(t));
  assert.match(old.err, /does not know admin\.test_push/);
});

test('remote access: --connect and --key, and a key that is not admitted', async (t) => {
  const secret = Buffer.alloc(32, 9);
  const dir = await folder(t, { 'my.key': `${secret.toString('hex')}\n`, 'other.key': `${'08'.repeat(32)}\n` });
  const server = randomKeyPair();
  const admin = keyPairFromSecret(secret).publicKey;
  const listener = new Listener({
    clock: systemClock,
    address: 'tcp://127.0.0.1:*',
    access: 'admin',
    keys: server,
    allow: (key) => admin.equals(key),
    commands: {
      admin: {
        access: 'admin',
        commands: { get_stats: { kind: 'request', handler: (message) => message.reply(stringifySorted(STATS)) } },
      },
    },
  });
  await listener.bind();
  t.after(() => listener.close());
  const address = `${listener.endpoint.replace('tcp:', 'curve:')}/${server.publicKey.toString('hex')}`;
  assert.match(succeeded(await spns(['stats', '--connect', address, '--key', 'my.key'], dir)), /1,998 connected/);
  const refused = await spns(['stats', '--connect', address, '--key', 'other.key'], dir);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /no hivemind answers: .*listen_curve_admin/);
  assert.match((await spns(['stats', '--connect', 'nowhere'], dir)).err, /nowhere is not an address/);
});

describe('with several hiveminds', () => {
  const member = (name: string, more: object = {}) => ({
    name,
    run: '1',
    state: 'ready',
    address: `ipc:///run/spns/${name}.sock`,
    version: '2.0.0',
    covers: 256,
    first: 128,
    started: Math.floor(Date.now() / 1000) - 600,
    seen: Math.floor(Date.now() / 1000),
    ...more,
  });
  const cluster = (full: number) => ({
    own: 'a',
    copies: 2,
    coverage: { full, fewer: 256 - full, none: 0 },
    members: [member('a'), member('b', { covers: full }), member('c', { state: 'dead', covers: 0, first: 0 })],
  });
  const all = (answers: Record<string, unknown>) => ({ ask_members: ([what]: string[]) => answers[what!] });
  const both = (answer: unknown) => ({ a: { answer }, b: { answer }, c: { trouble: 'it is not connected' } });

  test('members shows who is there and what they cover; the exit code is 1 when that is not enough', async (t) => {
    const whole = await hivemind(t, { get_stats: () => ({ ...STATS, cluster: cluster(256) }) });
    const text = succeeded(await spns(['members'], whole));
    assert.match(text, /^a +ready +2\.0\.0 +10 min +256 +128 +ipc:\/\/\/run\/spns\/a\.sock$/m);
    assert.match(text, /^c +dead +2\.0\.0 +- +0 +0 /m);
    assert.match(text, /All 256 slots are covered by 2 hiveminds or more/);
    const holed = await hivemind(t, { get_stats: () => ({ ...STATS, cluster: cluster(250) }) });
    const { code, out } = await spns(['members'], holed);
    assert.equal(code, 1);
    assert.match(out, /Of 256 slots 250 are covered by 2 hiveminds or more, 6 by fewer, 0 BY NONE/);
    const alone = await spns(['members'], await hivemind(t));
    assert.deepEqual([alone.code, /the hivemind is alone/.test(alone.err)], [1, true]);
  });

  test('stats shows each, and the services of all of them together, and says which did not answer', async (t) => {
    const dir = await hivemind(t, all({ get_stats: both({ ...STATS, cluster: cluster(256) }) }));
    const text = succeeded(await spns(['stats'], dir));
    assert.match(text, /^Hivemind a$[\s\S]*^Hivemind b$/m);
    assert.match(text, /the hivemind c does not answer: it is not connected/);
    assert.match(text, /^apns .* 17,800 /m, 'accepted by both');
    const json = JSON.parse(succeeded(await spns(['stats', '--json'], dir))) as Record<string, { uptime: number }>;
    assert.deepEqual([Object.keys(json), json.a!.uptime], [['a', 'b'], STATS.uptime]);
  });

  test('services and nodes show what all of them report', async (t) => {
    const dir = await hivemind(
      t,
      all({
        get_services: both([SERVICE]),
        get_nodes: {
          a: { answer: NODES.map((node, n) => (n === 1 ? { ...node, confirmed: 300, spared: 200 } : node)) },
          b: { answer: [{ ...NODES[0], state: 'unneeded' }] },
        },
      }),
    );
    const services = await spns(['services'], dir);
    assert.deepEqual([services.code, services.err], [1, 'the hivemind c does not answer: it is not connected\n']);
    assert.match(services.out, /^apns .* 17,800 /m);
    const nodes = succeeded(await spns(['nodes'], dir));
    assert.match(nodes, /^by +address.*confirmed +refused +spared +oldest/);
    assert.match(nodes, /^a +tcp:\/\/198\.51\.100\.2.* 300\/300 +0 +200 /m);
    assert.equal([...nodes.matchAll(/^a +tcp/gm)].length, NODES.length);
    assert.doesNotMatch(nodes, /^b +tcp/m);
  });

  test('any of those in the configuration will do for an answer', async (t) => {
    const dir = await hivemind(t);
    const ini = '[hivemind-away]\nlisten = ipc://./nobody.sock\n[hivemind-here]\nlisten = ipc://./h.sock\n';
    await writeFile(join(dir, 'spns.ini'), ini);
    assert.match(succeeded(await spns(['stats'], dir)), /1,998 connected/);
    await writeFile(join(dir, 'spns.ini'), ini.replace('h.sock', 'nobody-either.sock'));
    assert.match((await spns(['stats'], dir)).err, /no hivemind answers: .*Is one of them running/);
  });
});
