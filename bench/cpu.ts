import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Linux counts CPU time in hundredths of a second, whatever the hardware. */
const TICK = 0.01;

/** CPU seconds that a process and all its threads have used, or its main thread alone. */
export function cpuSeconds(pid: number, mainThreadOnly = false): number {
  return times(mainThreadOnly ? `/proc/${pid}/task/${pid}/stat` : `/proc/${pid}/stat`).own;
}

/** Watches a process for so many seconds: what it uses, in percent of a core, all its threads and the main one. */
export async function percentOfACore(pid: number, seconds: number): Promise<{ all: number; mainThread: number }> {
  const before = { all: cpuSeconds(pid), mainThread: cpuSeconds(pid, true), at: performance.now() };
  await sleep(seconds * 1000);
  const percent = (cpu: number) => (cpu * 100_000) / (performance.now() - before.at);
  return {
    all: percent(cpuSeconds(pid) - before.all),
    mainThread: percent(cpuSeconds(pid, true) - before.mainThread),
  };
}

/** Seconds that a process's main thread has run, and that it has waited for a core while others had them all. */
export function mainThreadSeconds(pid: number): { running: number; waiting: number } {
  const [running = 0, waiting = 0] = fs
    .readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8')
    .split(' ')
    .map(Number);
  return { running: running / 1e9, waiting: waiting / 1e9 };
}

/** CPU seconds of a PostgreSQL server: its main process, those it has now, and those that have ended. */
export function postgresSeconds(pid: number): number {
  const main = times(`/proc/${pid}/stat`);
  let total = main.own + main.ended;
  for (const entry of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const one = times(`/proc/${entry}/stat`);
      if (one.parent === pid) total += one.own;
    } catch {
      // It has ended meanwhile, and is counted with those next time.
    }
  }
  return total;
}

/** Resident memory of a process, in MB: now, or the most that it ever had. */
export function residentMegabytes(pid: number, when: 'now' | 'most' = 'now'): number {
  const name = when === 'now' ? 'VmRSS' : 'VmHWM';
  const line = new RegExp(`${name}:\\s+(\\d+)`).exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1] ?? 0) / 1024);
}

function times(file: string): { parent: number; own: number; ended: number } {
  const text = fs.readFileSync(file, 'utf8');
  // The name, in parentheses, may hold anything; what follows it is fields.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [, parent = 0] = fields;
  const [user = 0, system = 0, endedUser = 0, endedSystem = 0] = fields.slice(11, 15);
  return { parent, own: (user + system) * TICK, ended: (endedUser + endedSystem) * TICK };
}
