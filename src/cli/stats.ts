import { type Command, print } from './command.ts';
import { type Admin, TO_HIVEMIND, withAdmin } from './hivemind.ts';
import { type ClusterLine, membersTable } from './members.ts';
import { addUp, type ServiceLine, servicesTable } from './services.ts';
import { duration, format, list } from './table.ts';

/** The part of admin.get_stats that is shown (docs/spec/hivemind.md, section 1.5, and what ours adds). */
export interface Stats {
  uptime: number;
  snodes: number;
  swarms: number;
  connections: number;
  pending_connections: number;
  block_height: number;
  accounts_monitored: number;
  subscriptions: Record<string, number>;
  /** Only from a hivemind of ours. */
  freshness?: { fresh_nodes: number; oldest_seconds: number; unconfirmed: number; uncovered: number; oxend: boolean };
  since_start?: {
    raw: number;
    duplicates: number;
    unique: number;
    pushes: number;
    unwanted: number;
    unasked: number;
    /** These are missing from an older one. */
    expired?: number;
    limited?: number;
    unshown?: number;
    contradicted?: number;
    unheld?: number;
    malformed: Record<string, number>;
  };
  services?: ServiceLine[];
  /** Only from one of several hiveminds. */
  cluster?: ClusterLine;
}

const WATCH_MS = 2_000;
/** Cursor home, then clear to the end: as `clear` does, but without flickering. */
const CLEAR = '\u001b[H\u001b[J';

export const command: Command = {
  summary: "Shows the hivemind's figures",
  words: [],
  help: '',
  options: {
    watch: { type: 'boolean', help: 'again every two seconds, with rates per second; Ctrl-C ends it' },
    json: { type: 'boolean', help: 'as JSON, with all details' },
    ...TO_HIVEMIND,
  },
  async run(given) {
    const show = (stats: AllStats, before?: AllStats) =>
      given.is('json') ? JSON.stringify(plain(stats), null, given.is('watch') ? 0 : 2) : allText(stats, before);
    await withAdmin(given, async (admin) => {
      if (given.is('watch')) return await watch(admin, show, given.is('json'));
      print(show(await ask(admin)));
    });
    return 0;
  },
};

/** What each hivemind says, by name; under '' what one says that is alone. */
interface AllStats {
  readonly answers: ReadonlyMap<string, Stats>;
  readonly troubles: readonly string[];
}

async function ask(admin: Admin): Promise<AllStats> {
  return (await admin.askAll('get_stats')) as AllStats;
}

/** As printed in JSON: by name, if there are several hiveminds. */
function plain({ answers }: AllStats): unknown {
  return answers.get('') ?? Object.fromEntries(answers);
}

async function watch(
  admin: Admin,
  show: (stats: AllStats, before?: AllStats) => string,
  plain: boolean,
): Promise<void> {
  let stopped = false;
  let wake = () => {};
  process.once('SIGINT', () => {
    stopped = true;
    wake();
  });
  let before: AllStats | undefined;
  while (!stopped) {
    const stats = await ask(admin);
    const text = show(stats, before);
    if (plain) print(text);
    else print(process.stdout.isTTY ? `${CLEAR}${text}` : `${text}\n`);
    before = stats;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, WATCH_MS);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function allText({ answers, troubles }: AllStats, before?: AllStats): string {
  const alone = answers.get('');
  if (alone) return statsText(alone, before?.answers.get(''));
  const each = [...answers].map(([name, stats]) => {
    const { services: _, cluster: __, ...own } = stats;
    return `Hivemind ${format(name)}\n${statsText(own, before?.answers.get(name))}`;
  });
  const [first] = answers.values();
  return [
    ...(first?.cluster ? [membersTable(first.cluster)] : []),
    ...troubles.map(format),
    ...each,
    servicesTable(addUp([...answers.values()].map(({ services }) => services ?? []))),
  ].join('\n\n');
}

/**
 * The figures of one hivemind for a person to read.
 *
 * @param before an earlier answer of the same hivemind, for rates per second since then
 */
function statsText(stats: Stats, before?: Stats): string {
  const { freshness, since_start: counts, services } = stats;
  const seconds = before === undefined ? 0 : stats.uptime - before.uptime;
  const rate = (now: number, then: number | undefined) =>
    seconds > 0 && then !== undefined ? ` (${((now - then) / seconds).toFixed(1)}/s)` : '';
  const lines: [string, string][] = [
    ['Up', `${duration(stats.uptime)}, block ${format(stats.block_height)}`],
    [
      'Network',
      `${format(stats.snodes)} storage servers in ${format(stats.swarms)} swarms: ${format(stats.connections)} connected, ${format(stats.pending_connections)} being connected`,
    ],
  ];
  if (freshness) {
    lines.push([
      'Freshness',
      `${format(freshness.fresh_nodes)} servers fresh; stalest account ${duration(freshness.oldest_seconds)}; ${format(freshness.uncovered)} accounts uncovered`,
    ]);
    lines.push(['oxend', freshness.oxend ? 'answers' : 'DOES NOT ANSWER']);
  }
  lines.push([
    'Accounts',
    `${format(stats.accounts_monitored)}, with ${format(stats.subscriptions.total ?? 0)} devices`,
  ]);
  if (counts) {
    const then = before?.since_start;
    const malformed = Object.values(counts.malformed).reduce((sum, count) => sum + count, 0);
    lines.push(
      [
        'Notifications',
        `${format(counts.raw)}${rate(counts.raw, then?.raw)}, of them copies ${format(counts.duplicates)}`,
      ],
      ['Messages', `${format(counts.unique)}${rate(counts.unique, then?.unique)}`],
      ['Pushes', `${format(counts.pushes)}${rate(counts.pushes, then?.pushes)}`],
      [
        'Dropped',
        `${format(counts.unwanted)} unwanted, ${format(counts.unasked)} not asked for, ${format(malformed)} malformed, ` +
          `${format(counts.expired ?? 0)} expired, ${format((counts.limited ?? 0) + (counts.unheld ?? 0))} too many, ` +
          `${format(counts.contradicted ?? 0)} contradicted, ${format(counts.unshown ?? 0)} not to be shown`,
      ],
    );
  }
  return services === undefined ? list(lines) : `${list(lines)}\n\n${servicesTable(services)}`;
}
