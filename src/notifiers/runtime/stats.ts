/** What is counted between two reports. */
export interface Tally {
  /** Pushes that the provider accepted. */
  notifies: number;
  /** Those of them that took more than one attempt. */
  retries: number;
  /** Pushes that were given up or finally refused. */
  failures: number;
}

interface Report {
  /** By the monotonic clock, in milliseconds. */
  readonly at: number;
  readonly notifies: number;
}

const WINDOWS = [
  ['1m', 60_000],
  ['10m', 600_000],
  ['60m', 3_600_000],
] as const;
const DAY = 86_400_000;

/** The statistics that a notifier reports to the hivemind every few seconds (docs/spec/notifiers.md, section 1). */
export class Statistics {
  readonly total: Tally = { notifies: 0, retries: 0, failures: 0 };
  #reported: Tally = { notifies: 0, retries: 0, failures: 0 };
  /** At least the last hour. */
  #reports: Report[] = [];

  /**
   * The dict for `admin.service_stats`: what was counted since the last report, and what the earlier ones come to a
   * day. The original divides the rates by the number of reports once more than it should; these are right.
   * @param now the monotonic clock, in milliseconds
   */
  report(now: number): Record<string, number> {
    const { total } = this;
    const dict: Record<string, number> = {
      '+failures': total.failures - this.#reported.failures,
      '+notifies': total.notifies - this.#reported.notifies,
      '+notify_retries': total.retries - this.#reported.retries,
    };
    for (const [name, length] of WINDOWS) {
      const rate = this.#perDay(now, length);
      if (rate !== undefined) dict[`notifies_per_day.${name}`] = rate;
    }
    this.#reports.push({ at: now, notifies: dict['+notifies']! });
    this.#reported = { ...total };
    // One report older than the longest window is kept: the window's span is counted from it.
    const first = this.#reports.findIndex((report) => report.at > now - 3_600_000);
    if (first > 1) this.#reports.splice(0, first - 1);
    return dict;
  }

  /** The line shown by `systemctl status`. */
  status(): string {
    const { notifies, retries, failures } = this.total;
    return `Running; ${notifies} notifications, ${retries} retries, ${failures} failures`;
  }

  #perDay(now: number, length: number): number | undefined {
    const first = this.#reports.findIndex((report) => report.at > now - length);
    if (first < 0) return undefined;
    const since = this.#reports[Math.max(first - 1, 0)]!.at;
    if (now <= since) return undefined;
    let sum = 0;
    for (let index = first; index < this.#reports.length; index++) sum += this.#reports[index]!.notifies;
    return Math.round((sum / (now - since)) * DAY);
  }
}
