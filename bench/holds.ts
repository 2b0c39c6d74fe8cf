/**
 * Loaded into the hivemind's process (`--import`): how long its event loop was held, by the CPU time of its main thread
 * between two turns, so that what others do on a shared machine does not count. Writes a line each second to the file
 * of BENCH_HOLDS: unix milliseconds, and the longest in ms. Ends with SIGUSR2.
 */
import fs from 'node:fs';

const EVERY = 4;
const file = process.env.BENCH_HOLDS;

if (file !== undefined) {
  const cpu = () => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  };
  let [last, longest, written] = [cpu(), 0, Date.now()];
  const timer = setInterval(() => {
    const now = cpu();
    longest = Math.max(longest, now - last);
    if (Date.now() - written >= 1000) {
      written = Date.now();
      fs.appendFileSync(file, `${written} ${longest.toFixed(1)}\n`);
      longest = 0;
    }
    // What the writing took is not the hivemind's.
    last = cpu();
  }, EVERY);
  timer.unref();
  process.once('SIGUSR2', () => clearInterval(timer));
}
