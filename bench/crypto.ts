import { createPublicKey, verify as nodeVerify, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { native } from '../src/session/sodium-native.ts';
import { type Libsodium, wasm } from '../src/session/sodium-wasm.ts';
import { cpuSeconds } from './cpu.ts';
import { CHECK_BYTES, MESSAGE_BYTES } from './crypto-messages.ts';
import { round } from './world.ts';

const ROUNDS = 10;

/**
 * Microseconds a call of each function, with both builds of libsodium: the least of some rounds that take turns, for
 * this machine is shared.
 */
export function crypto(): object {
  const { publicKey, secretKey } = wasm.keyPair(randomBytes(32));
  const message = randomBytes(MESSAGE_BYTES);
  const signature = wasm.sign(message, secretKey);
  const [secret, body, nonce, key] = [randomBytes(32), randomBytes(1_000), randomBytes(24), randomBytes(32)];
  const point = wasm.x25519Public(randomBytes(32));
  const calls: Record<string, [times: number, call: (build: Libsodium) => unknown]> = {
    ed25519_verify: [200, (build) => build.verify(signature, message, publicKey)],
    ed25519_to_x25519: [200, (build) => build.toX25519(publicKey)],
    x25519_public: [500, (build) => build.x25519Public(secret)],
    x25519_shared: [500, (build) => build.x25519(secret, point)],
    xchacha20_of_1000_bytes: [5_000, (build) => build.encrypt(body, nonce, key)],
    blake2b_of_1000_bytes: [5_000, (build) => build.blake2b(32, body, undefined)],
  };
  const builds = Object.entries({ native, wasm });
  const row: Record<string, Record<string, number>> = {};
  for (const [name, [times, call]] of Object.entries(calls)) {
    const least: Record<string, number> = {};
    for (let n = 0; n < ROUNDS; n++) {
      for (const [build, functions] of builds) {
        if (functions)
          least[build] = Math.min(
            least[build] ?? Number.POSITIVE_INFINITY,
            spent(times, () => call(functions)),
          );
      }
    }
    row[`${name}_us`] = Object.fromEntries(Object.entries(least).map(([build, us]) => [build, round(us)]));
  }
  const node = Array.from({ length: ROUNDS }, () => spent(200, () => verifyByNode(signature, message, publicKey)));
  return { row: 'crypto', ...row, ed25519_verify_by_node_us: round(Math.min(...node)) };
}

/** What stands in front of a raw Ed25519 key in DER. */
const SPKI_ED25519 = Buffer.from('302a300506032b6570032100', 'hex');

function verifyByNode(signature: Buffer, message: Buffer, publicKey: Buffer): boolean {
  const key = Buffer.concat([SPKI_ED25519, publicKey]);
  return nodeVerify(null, message, createPublicKey({ key, format: 'der', type: 'spki' }), signature);
}

const CHECKS = 6_400;

/**
 * Microseconds of the main thread's CPU for a signature that a worker verifies, by how many go in a message; and what
 * it takes to verify it here. The buffers are handed over, not copied.
 */
export async function checksByWorker(): Promise<object> {
  const build = native ?? wasm;
  const { publicKey, secretKey } = build.keyPair(randomBytes(32));
  const message = randomBytes(MESSAGE_BYTES);
  const signature = build.sign(message, secretKey);
  const worker = new Worker(path.join(import.meta.dirname, 'crypto-worker.ts'));
  const ask = async (size: number) => {
    const checks = new Uint8Array(size * CHECK_BYTES);
    for (let n = 0; n < size; n++) {
      checks.set(signature, n * CHECK_BYTES);
      checks.set(publicKey, n * CHECK_BYTES + 64);
      checks.set(message, n * CHECK_BYTES + 96);
    }
    worker.postMessage(checks, [checks.buffer]);
    const [verdicts] = (await once(worker, 'message')) as [Uint8Array];
    if (verdicts.length !== size || verdicts.includes(0)) throw new Error('a good signature was refused');
  };
  await ask(64);
  const least = new Map<number | 'here', number>();
  for (let round = 0; round < 3; round++) {
    for (const size of ['here', 1, 4, 16, 64] as const) {
      const before = cpuSeconds(process.pid, true);
      if (size === 'here') for (let n = 0; n < CHECKS; n++) build.verify(signature, message, publicKey);
      else for (let n = 0; n < CHECKS; n += size) await ask(size);
      const us = ((cpuSeconds(process.pid, true) - before) * 1e6) / CHECKS;
      least.set(size, Math.min(least.get(size) ?? Number.POSITIVE_INFINITY, us));
    }
  }
  await worker.terminate();
  const figures = Object.fromEntries([...least].map(([size, us]) => [size, round(us)]));
  return { row: 'checks by a worker, main thread', us_each_by_checks_a_message: figures };
}

function spent(times: number, call: () => unknown): number {
  const before = process.cpuUsage();
  for (let n = 0; n < times; n++) call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}
