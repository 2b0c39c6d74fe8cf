/**
 * Preloaded into a process of ours (`node --import`), it lets time pass there twenty times as slowly: what the process
 * gives others two seconds for does not fail because this machine has stood still for three.
 */

const SLOWNESS = 20;

const { setTimeout, setInterval } = globalThis;
const { now } = performance;

globalThis.setTimeout = slowed(setTimeout);
globalThis.setInterval = slowed(setInterval);
performance.now = () => now.call(performance) / SLOWNESS;

function slowed<T extends typeof setTimeout | typeof setInterval>(set: T): T {
  const slow = (callback: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
    (set as typeof setTimeout)(callback, ms * SLOWNESS, ...args);
  // With what else there is of it: its promisified form.
  return Object.defineProperties(slow, Object.getOwnPropertyDescriptors(set)) as unknown as T;
}
