import { type Command, print } from './command.ts';
import { TO_HIVEMIND, withAdmin } from './hivemind.ts';
import { duration, format, table } from './table.ts';

/** One element of admin.get_nodes. */
export interface NodeLine {
  /** With several hiveminds: the one that reports it. */
  by?: string;
  address: string;
  key: string;
  swarm: string;
  state: string;
  connected_since: number | null;
  accounts: number;
  confirmed: number;
  unconfirmed: number;
  refused: number;
  spared?: number;
  oldest_seconds: number;
  failures: number;
  last_error: string;
  limited?: number;
  unheld?: number;
  contradicted?: number;
  alone?: number;
}

/** The part of admin.get_stats that concerns the network. */
interface Complaints {
  complaints?: string[];
}

export const command: Command = {
  summary: 'Shows the storage servers: connection, and how fresh what they confirmed is',
  words: [],
  help: [
    'Those that need attention come first: not connected, silent, or with accounts that they have not confirmed.',
    'by         with several hiveminds, the one that reports it; storage servers that it does not need are left out',
    'state      cut-off: sent what no honest server sends, and is disconnected for an hour; unusable: has no usable address',
    'confirmed  accounts, of those that the server should monitor for us; oldest: its stalest confirmation',
    'refused    accounts whose signature the server does not accept',
    'spared     with several hiveminds: accounts that the server need not monitor, as another one sends their pushes first',
    'odd        notifications that other servers of its swarm contradicted, that no other confirmed, or that were too many',
  ].join('\n'),
  options: {
    bad: {
      type: 'boolean',
      help: 'only those that need attention, and what is wrong with oxend; exit code 1 if there is anything',
    },
    json: { type: 'boolean', help: 'as JSON, with all details' },
    ...TO_HIVEMIND,
  },
  async run(given) {
    const { all, complaints } = await withAdmin(given, async (admin) => {
      const { answers, troubles } = await admin.askAll('get_nodes');
      const all = [...answers].flatMap(([by, nodes]) =>
        (nodes as NodeLine[]).filter(({ state }) => state !== 'unneeded').map((node) => (by ? { by, ...node } : node)),
      );
      // Such as why there are no nodes. A hivemind of an older version has no complaints.
      const complaints = given.is('bad') ? (((await admin.ask('admin.get_stats')) as Complaints).complaints ?? []) : [];
      return { all, complaints: [...troubles, ...complaints] };
    });
    const nodes = sortNodes(given.is('bad') ? all.filter(needsLook) : all);
    if (given.is('json')) print(JSON.stringify(nodes, null, 2));
    else print([...complaints.map(format), nodesTable(nodes, all.length, Date.now() / 1000)].join('\n'));
    return given.is('bad') && nodes.length + complaints.length > 0 ? 1 : 0;
  },
};

/** Whether phones may miss messages because of this server. */
function needsLook({ state, unconfirmed }: NodeLine): boolean {
  return state !== 'up' || unconfirmed > 0;
}

/** Those that need attention first, then the stalest. */
function sortNodes(nodes: readonly NodeLine[]): NodeLine[] {
  return nodes.toSorted(
    (a, b) =>
      Number(needsLook(b)) - Number(needsLook(a)) ||
      b.oldest_seconds - a.oldest_seconds ||
      a.address.localeCompare(b.address),
  );
}

/** @param now unix seconds */
function nodesTable(nodes: readonly NodeLine[], known: number, now: number): string {
  const looks = nodes.filter(needsLook).length;
  const total = `${known.toLocaleString('en')} storage servers, ${looks.toLocaleString('en')} need attention`;
  if (nodes.length === 0) return total;
  const isShared = nodes.some(({ by }) => by !== undefined);
  // A hivemind of an older version does not have all of the fields.
  const rows = nodes.map(({ spared = 0, ...node }) => [
    ...(isShared ? [node.by ?? ''] : []),
    node.address,
    node.swarm,
    node.state,
    node.connected_since === null ? '-' : duration(now - node.connected_since),
    `${node.confirmed.toLocaleString('en')}/${(node.accounts - spared).toLocaleString('en')}`,
    node.refused,
    ...(isShared ? [spared] : []),
    node.accounts > spared ? duration(node.oldest_seconds) : '-',
    node.failures,
    (node.contradicted ?? 0) + (node.alone ?? 0) + (node.limited ?? 0) + (node.unheld ?? 0),
    node.last_error,
  ]);
  const heads = [
    ...(isShared ? ['by'] : []),
    'address',
    'swarm',
    'state',
    'since',
    'confirmed',
    'refused',
    ...(isShared ? ['spared'] : []),
    'oldest',
    'failures',
    'odd',
    'last error',
  ];
  return `${table(heads, rows)}\n\n${total}`;
}
