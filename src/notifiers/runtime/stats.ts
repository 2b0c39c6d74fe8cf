/** What is counted for the reports. */
export interface Tally {
  /** Pushes that the provider accepted. */
  notifies: number;
  /** Accepted pushes that took more than one attempt. */
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
   * The dict for `admin.service_stats`: what was counted since the last report, and rates per day from earlier reports.
   * The original divides the rates by the number of reports once too often; these are right.
   *
   * @param now the monotonic clock, in milliseconds
   */
  report(now: number): Record<string, number> {
    const { total } = this;
    const notifies = total.notifies - this.#reported.notifies;
    const dict: Record<string, number> = {
      '+failures': total.failures - this.#reported.failures,
      '+notifies': notifies,
      '+notify_retries': total.retries - this.#reported.retries,
    };
    for (const [name, length] of WINDOWS) {
      const rate = this.#perDay(now, length);
      if (rate !== undefined) dict[`notifies_per_day.${name}`] = rate;
    }
    this.#reports.push({ at: now, notifies });
    this.#reported = { ...total };
    // One report older than the longest window is kept, from which the window's span is counted. A negative count
    // removes none.
    const first = this.#reports.findIndex((report) => report.at > now - 3_600_000);
    this.#reports.splice(0, first - 1);
    return dict;
  }

  /** The figures in one line, for `systemctl status`. */
  status(): string {
    const { notifies, retries, failures } = this.total;
    return `${notifies} notifications, ${retries} retries, ${failures} failures`;
  }

  #perDay(now: number, length: number): number | undefined {
    const within = this.#reports.filter((report) => report.at > now - length);
    // The window's span is counted from the report before it, if there is one.
    const since = (this.#reports.at(-within.length - 1) ?? within[0])?.at;
    if (within.length === 0 || since === undefined || now <= since) return undefined;
    const sum = within.reduce((all, { notifies }) => all + notifies, 0);
    return Math.round((sum / (now - since)) * DAY);
  }
}
