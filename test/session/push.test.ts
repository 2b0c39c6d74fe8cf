import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { BencodeError } from '../../src/codec/bencode.ts';
import { encodeNotification, parseNotification } from '../../src/session/notification.ts';
import { decodePush, encodePush, type Push } from '../../src/session/push.ts';
import { blake2b } from '../../src/session/sodium.ts';
import { fuzz } from '../support/fuzz.ts';
import { type PushVectors, vectors } from '../support/vectors.ts';

const file = vectors<PushVectors>('notifier-push.json');

/**
 * How the original tells a message to a device from all others: BLAKE2b-256 of service, service id and hash, one after
 * the other (`filter` of the vectors).
 */
function filterKey(service: string, serviceId: string, hash: Uint8Array): Buffer {
  return blake2b(32, Buffer.concat([Buffer.from(service), Buffer.from(serviceId), hash]));
}

const hex = (text: string) => Buffer.from(text, 'hex');
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');

/** The one message that the vectors only describe: 76,800 bytes of data. */
const LARGE = encodeNotification({
  account: hex(file.subscriptions[0]!.account),
  hash: Buffer.alloc(43, 'J'),
  namespace: 0,
  timestamp: 1_700_000_000_123,
  expiry: 1_701_000_000_123,
  data: Buffer.alloc(76_800, 0xaa),
});

describe('encodePush', () => {
  it('is checked against every case of the vectors', () => {
    assert.deepEqual([file.cases.length, file.filter.length], [18, 6]);
  });

  const seen = new Set<string>();
  for (const { name, notify_message_hex, pushes } of file.cases) {
    it(`writes what the original sent: ${name}`, () => {
      const notification = parseNotification(notify_message_hex === null ? LARGE : hex(notify_message_hex));
      const ours: string[] = [];
      for (const row of typeof notification === 'string' ? [] : file.subscriptions) {
        assert.ok(typeof notification !== 'string');
        if (!notification.account.equals(hex(row.account)) || !row.namespaces.includes(notification.namespace))
          continue;
        const key = filterKey(row.service, row.svcid, notification.hash).toString('hex');
        if (seen.has(key)) continue;
        seen.add(key);
        const push: Push = {
          ...notification,
          service: row.service,
          serviceId: row.svcid,
          serviceData: row.svcdata_hex === null ? null : hex(row.svcdata_hex),
          encKey: hex(row.enc_key),
          data: row.want_data ? notification.data : null,
        };
        const part = encodePush(push);
        assert.deepEqual(decodePush(part), push);
        ours.push(`${row.service} ${sha256(part)}`);
      }
      const theirs = pushes.map((push) => `${push.to} ${push.part_sha256 ?? sha256(hex(push.part_hex!))}`);
      assert.deepEqual(ours.sort(), theirs.sort());
    });
  }
});

describe('decodePush', () => {
  const intact = hex(file.cases[0]!.pushes[0]!.part_hex!);

  it('refuses what is cut, and never throws anything but BencodeError', () => {
    for (let length = 0; length < intact.length; length++) {
      assert.throws(() => decodePush(intact.subarray(0, length)), BencodeError);
    }
    fuzz(3_000, (random) => {
      try {
        decodePush(random.damage(intact));
      } catch (error) {
        assert.ok(error instanceof BencodeError);
      }
    });
  });
});

describe('filterKey', () => {
  for (const vector of file.filter) {
    it(`hashes ${vector.service} ${vector.svcid.slice(0, 8)} ${vector.hash.slice(0, 8)}`, () => {
      assert.equal(filterKey(vector.service, vector.svcid, Buffer.from(vector.hash)).toString('hex'), vector.hex);
    });
  }
});
