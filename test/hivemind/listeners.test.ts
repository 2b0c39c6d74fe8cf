import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findUser } from '../../src/cli/child.ts';
import { systemClock } from '../../src/clock.ts';
import { openListeners } from '../../src/hivemind/listeners.ts';
import type { HivemindSettings } from '../../src/settings/hivemind.ts';
import { logTo } from '../support/log.ts';

const nobody = findUser('nobody');
const skip = (process.getuid?.() !== 0 || !nobody) && 'only root can connect as another user';

test("another user, as the front-end is, may connect to listen_push and not to the administrators' socket", {
  skip,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-listeners-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // As RuntimeDirectoryMode in the unit.
  chmodSync(folder, 0o751);
  const log: string[] = [];
  const listeners = await openListeners({
    clock: systemClock,
    random: randomBytes,
    settings: {
      listen: `ipc://${folder}/hivemind.sock`,
      listenPush: `ipc://${folder}/push.sock`,
      listenCurveAdmin: [],
    } as unknown as HivemindSettings,
    secret: randomBytes(32),
    commands: {},
    log: logTo((text) => log.push(text)),
    stray: () => {},
    gone: () => {},
  });
  t.after(() => Promise.all(listeners.map((listener) => listener.close())));
  assert.deepEqual(log, [
    `listening at ipc://${folder}/hivemind.sock (admin)`,
    `listening at ipc://${folder}/push.sock (push.* only)`,
  ]);
  const { uid, gid } = nobody!;
  const may = (file: string, as: { uid?: number; gid?: number }) =>
    spawnSync('/bin/sh', ['-c', 'test -w "$0"', join(folder, file)], as).status === 0;
  assert.equal(may('push.sock', { uid, gid }), true);
  assert.equal(may('hivemind.sock', { uid, gid }), false);
  // A notifier is of the hivemind's group.
  assert.equal(may('hivemind.sock', { uid, gid: process.getgid!() }), true);
  // Nor may it put sockets of its own in their place.
  assert.equal(may('.', { uid, gid }), false);
});
