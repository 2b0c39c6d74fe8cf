import { randomBytes } from 'node:crypto';

/**
 * A TCP address for a listener whose port must be known beforehand: at one of 2^24 loopback addresses, so that tests do
 * not collide.
 */
export function ownAddress(): string {
  const [a, b, c] = randomBytes(3);
  return `tcp://127.${a}.${b}.${1 + (c! % 254)}:22033`;
}
