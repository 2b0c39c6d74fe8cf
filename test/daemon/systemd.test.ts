import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openSystemd } from '../../src/daemon/systemd.ts';
import { NotifySocket } from './notify-socket.ts';

test('every message reaches a socket with a path', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-systemd-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'notify');
  const receiver = new NotifySocket(path);
  t.after(() => receiver.close());
  const systemd = openSystemd({ NOTIFY_SOCKET: path });
  assert.equal(systemd.enabled, true);
  systemd.status('two\nlines  of\tüéß');
  systemd.ready();
  systemd.watchdog();
  systemd.reloading();
  systemd.stopping();
  systemd.close();
  systemd.ready();
  const messages = receiver.read();
  assert.deepEqual(messages.slice(0, 3), ['STATUS=two lines of üéß', 'READY=1', 'WATCHDOG=1']);
  assert.match(messages[3]!, /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
  assert.deepEqual(messages.slice(4), ['STOPPING=1']);
});

test('every message reaches an abstract socket', (t) => {
  const path = `@spns-test-${randomUUID()}`;
  const receiver = new NotifySocket(path);
  t.after(() => receiver.close());
  const systemd = openSystemd({ NOTIFY_SOCKET: path });
  systemd.ready();
  systemd.close();
  assert.deepEqual(receiver.read(), ['READY=1']);
});

test('without systemd, or with nobody at the socket, notifying does nothing', () => {
  const none = openSystemd({});
  assert.equal(none.enabled, false);
  none.ready();
  none.close();
  const gone = openSystemd({ NOTIFY_SOCKET: '/nowhere/at/all' });
  gone.ready();
  gone.watchdog();
  gone.close();
  assert.equal(openSystemd({ NOTIFY_SOCKET: 'vsock:2:1' }).enabled, false);
  assert.equal(openSystemd({ NOTIFY_SOCKET: `/${'x'.repeat(200)}` }).enabled, false);
});

test('a socket that nobody reads does not hold up the watchdog', (t) => {
  const path = `@spns-test-${randomUUID()}`;
  const receiver = new NotifySocket(path);
  t.after(() => receiver.close());
  const systemd = openSystemd({ NOTIFY_SOCKET: path });
  for (let i = 0; i < 5000; i++) systemd.watchdog();
  systemd.close();
  assert(receiver.read().length < 5000);
});

test('the watchdog is fed at half its time, and only if it is meant for us', () => {
  const path = '/nowhere';
  const interval = (env: NodeJS.ProcessEnv) => openSystemd({ NOTIFY_SOCKET: path, ...env }).watchdogInterval;
  assert.equal(interval({ WATCHDOG_USEC: '60000000' }), 30_000);
  assert.equal(interval({ WATCHDOG_USEC: '60000000', WATCHDOG_PID: String(process.pid) }), 30_000);
  assert.equal(interval({ WATCHDOG_USEC: '60000000', WATCHDOG_PID: String(process.pid + 1) }), undefined);
  assert.equal(interval({}), undefined);
  assert.equal(interval({ WATCHDOG_USEC: 'soon' }), undefined);
  assert.equal(interval({ WATCHDOG_USEC: '0' }), undefined);
  assert.equal(openSystemd({ WATCHDOG_USEC: '60000000' }).watchdogInterval, undefined);
});
