import { Histogram, type HistogramConfiguration } from 'prom-client';

/** A histogram's figures for one set of labels. */
export interface Counted<Label extends string> {
  readonly labels: Record<Label, string>;
  /** How many values fell into each bucket by itself, and beyond the last bound. */
  readonly counts: ArrayLike<number>;
  readonly count: number;
  readonly sum: number;
}

/** A histogram whose figures are read when metrics are collected, like those of all counters and gauges here. */
export class CountedHistogram<Label extends string> extends Histogram<Label> {
  readonly #configuration: HistogramConfiguration<Label> & { buckets: number[] };
  readonly #read: () => Iterable<Counted<Label>>;

  constructor(
    configuration: HistogramConfiguration<Label> & { buckets: number[] },
    read: () => Iterable<Counted<Label>>,
  ) {
    super(configuration);
    this.#configuration = configuration;
    this.#read = read;
  }

  /** The one method by which prom-client reads a histogram, for its text and for `get`. */
  getForPromString() {
    const { name, help } = this.#configuration;
    const values = [...this.#read()].flatMap((counted) => this.#values(counted));
    return { name, help, type: 'histogram', aggregator: 'sum', values };
  }

  #values({ labels, counts, count, sum }: Counted<Label>) {
    const { name, buckets } = this.#configuration;
    let passed = 0;
    const below = buckets.map((le, bucket) => {
      passed += counts[bucket] ?? 0;
      return { labels: { le, ...labels }, value: passed, metricName: `${name}_bucket` };
    });
    return [
      ...below,
      { labels: { le: '+Inf', ...labels }, value: count, metricName: `${name}_bucket` },
      { labels, value: sum, metricName: `${name}_sum` },
      { labels, value: count, metricName: `${name}_count` },
    ];
  }
}
