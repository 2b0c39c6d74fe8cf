import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { DuplicateFilter } from '../../../src/hivemind/notifications/duplicate-filter.ts';
import { Intake } from '../../../src/hivemind/notifications/intake.ts';
import { Outbox } from '../../../src/hivemind/notifications/outbox/outbox.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';
import { messageHash } from '../../../src/session/message-hash.ts';
import { encodeNotification } from '../../../src/session/notification.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo, silentLog } from '../../support/log.ts';

export const LIFETIME = 600_000;

/** A storage server. */
export interface Server {
  name: string;
}
export const [NODE_1, NODE_2, NODE_3] = [{ name: 'node 1' }, { name: 'node 2' }, { name: 'node 3' }] as const;
/** Was not asked to monitor anything. */
export const STRANGER = { name: 'stranger' };

/** An intake on real parts, with notifiers of the original's kind for `services`, whose pushes are collected. */
export function setUp(services: string[], hasOthers = true) {
  const clock = new FakeClock();
  const devices = new Devices({ random: randomBytes });
  const seen = new DuplicateFilter({ clock, random: randomBytes, lifetime: LIFETIME });
  const outbox = new Outbox({
    clock,
    random: randomBytes,
    limits: { maxBytes: 1e9, maxAge: LIFETIME },
    breaker: { share: 0.5, minimum: 100 },
    log: silentLog,
  });
  const warnings: string[] = [];
  let otherTimes: readonly number[] = [];
  const intake = new Intake<Server>({
    clock,
    possibleTimes: () => [clock.now(), ...otherTimes],
    devices,
    seen,
    outbox,
    accepts: (server) => server !== STRANGER,
    hasOthers: () => hasOthers,
    nameOf: ({ name }) => name,
    log: logTo((text) => warnings.push(text)),
  });
  const pushes: { to: string; part: Buffer }[] = [];
  for (const name of services) {
    const remote: Remote = {
      id: name,
      send(command, ...parts) {
        assert.equal(command, 'notifier.push');
        assert.equal(parts.length, 1);
        pushes.push({ to: name, part: Buffer.from(parts[0] as Uint8Array) });
        return true;
      },
      request: () => Promise.reject(new Error('not asked for here')),
    };
    outbox.register(name, remote, undefined);
  }
  return {
    clock,
    devices,
    seen,
    outbox,
    intake,
    pushes,
    warnings,
    /** Another clock says that it is this time (unix ms). */
    doubtTime(other: number) {
      otherTimes = [other];
    },
  };
}

export function row(account: Buffer, options: Partial<DeviceRow> = {}): DeviceRow {
  return {
    account,
    sessionEd25519: account[0] === 0x05 ? Buffer.alloc(32, 1) : null,
    subaccount: null,
    signature: randomBytes(64),
    signedAt: 1_700_000_000,
    wantData: true,
    encKey: Buffer.alloc(32, 2),
    service: 'cap',
    serviceId: 'device'.padEnd(32, '.'),
    serviceData: null,
    namespaces: [0],
    ...options,
  };
}

export function message(account: Buffer, data: string | Buffer): Buffer {
  return encodeNotification({
    account,
    hash: messageHash(account, 0, Buffer.from(data)),
    namespace: 0,
    timestamp: 1_700_000_000_000,
    expiry: 1_700_000_000_000 + 14 * 86_400_000,
    data: Buffer.from(data),
  });
}
