import { CliError, type Command, print } from './command.ts';
import { type Admin, TO_HIVEMIND, withAdmin } from './hivemind.ts';
import { duration, table } from './table.ts';

/** What one of several hiveminds says about all of them in admin.get_stats. */
export interface ClusterLine {
  own: string;
  copies: number;
  coverage: { full: number; fewer: number; none: number };
  members: {
    name: string;
    /** Tells one run of its process from the next. */
    run: string;
    state: string;
    address: string;
    version: string;
    covers: number;
    first: number;
    /** Unix seconds. */
    started: number;
    seen: number;
  }[];
}

export const command: Command = {
  summary: 'Shows the hiveminds that share the database, and what they cover',
  words: [],
  help: [
    'The accounts are divided into 256 slots. Each should be covered by as many hiveminds as [hivemind] copies says.',
    'covers  slots of which it hears every message',
    'sends   those among them whose pushes it sends itself; the pushes of the others it sends only if nobody else does',
    'Exit code 1 if a slot is covered by fewer hiveminds than it should be.',
  ].join('\n'),
  options: { json: { type: 'boolean', help: 'as JSON' }, ...TO_HIVEMIND },
  async run(given) {
    const cluster = await withAdmin(given, askCluster);
    print(given.is('json') ? JSON.stringify(cluster, null, 2) : membersTable(cluster));
    const { fewer, none } = cluster.coverage;
    return fewer + none > 0 ? 1 : 0;
  },
};

/** @throws CliError if the hivemind is alone */
export async function askCluster(admin: Pick<Admin, 'ask'>): Promise<ClusterLine> {
  const { cluster } = (await admin.ask('admin.get_stats')) as { cluster?: ClusterLine };
  if (!cluster) throw new CliError('the hivemind is alone: it has no [hivemind] instance (docs/several.md)');
  return cluster;
}

/** The table of `spns members`. */
export function membersTable({ copies, coverage, members }: ClusterLine): string {
  const { full, fewer, none } = coverage;
  const now = Date.now() / 1000;
  const heads = ['hivemind', 'state', 'version', 'up', 'covers', 'sends', 'reached at'];
  const rows = members.map(({ name, state, version, started, covers, first, address }) => [
    name,
    state,
    version,
    state === 'dead' || state === 'stopped' ? '-' : duration(Math.max(0, now - started)),
    covers,
    first,
    address,
  ]);
  const total =
    fewer + none === 0
      ? `All ${full} slots are covered by ${copies} ${copies === 1 ? 'hivemind' : 'hiveminds'} or more`
      : `Of 256 slots ${full} are covered by ${copies} ${copies === 1 ? 'hivemind' : 'hiveminds'} or more, ${fewer} by fewer, ${none} BY NONE`;
  return `${table(heads, rows)}\n\n${total}`;
}
