/** Blocks the event loop for so many ms of this thread's CPU time, whatever else the machine does. */
export function busy(ms: number): void {
  const { user, system } = process.threadCpuUsage();
  const end = user + system + ms * 1000;
  for (;;) {
    const now = process.threadCpuUsage();
    if (now.user + now.system >= end) return;
  }
}
