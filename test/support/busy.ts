/** Keeps the event loop for so many ms of this thread's CPU time, which a busy machine does not shorten. */
export function busy(ms: number): void {
  const { user, system } = process.threadCpuUsage();
  const end = user + system + ms * 1000;
  for (;;) {
    const now = process.threadCpuUsage();
    if (now.user + now.system >= end) return;
  }
}
