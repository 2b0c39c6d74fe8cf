import { randomBytes } from 'node:crypto';
import { native } from '../src/session/sodium-native.ts';
import { type Libsodium, wasm } from '../src/session/sodium-wasm.ts';
import { round } from './world.ts';

const ROUNDS = 10;

/**
 * Microseconds a call of each function, with both builds of libsodium: the least of some rounds that take turns, for
 * this machine is shared.
 */
export function crypto(): object {
  const { publicKey, secretKey } = wasm.keyPair(randomBytes(32));
  const message = randomBytes(110);
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
  return { row: 'crypto', ...row };
}

function spent(times: number, call: () => unknown): number {
  const before = process.cpuUsage();
  for (let n = 0; n < times; n++) call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}
