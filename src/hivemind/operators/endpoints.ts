import { parseJson, stringifySorted } from '../../codec/json.ts';
import type { Log } from '../../log.ts';
import type { Commands, Incoming, Part } from '../../oxenmq/remote.ts';
import { encodeMembers, MAX_MEMBERS } from '../../session/members.ts';
import {
  decodeDeviceGone,
  decodeDropRegistrations,
  decodePushReport,
  decodeRegistration,
} from '../../session/notifier-protocol.ts';
import { MAX_SERVICE } from '../devices/device.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
import type { DeadDevices } from '../subscriptions/dead-devices.ts';
import type { Subscriptions } from '../subscriptions/subscriptions.ts';
import type { Stats } from './stats.ts';

/** The cluster that this hivemind is a member of. */
export interface EndpointCluster {
  /** Our own name. */
  readonly own: string;
  /**
   * The living members, ourselves included, and the OxenMQ addresses at which notifiers and web front-ends reach them;
   * empty while unknown.
   */
  readonly members: () => readonly { readonly name: string; readonly address: string; readonly pushAddress: string }[];
  /** Sends another member a request; timeout in ms. Rejects with an OxenmqError. */
  readonly ask: (member: string, command: string, parts: readonly Part[], timeout: number) => Promise<Buffer[]>;
}

/** Where the endpoints pass requests on to. */
export interface EndpointModules {
  subscriptions: Pick<Subscriptions, 'handle'>;
  outbox: Outbox;
  stats: Stats;
  deadDevices: DeadDevices;
  /** The answer to `admin.get_stats`. */
  getStats: () => Record<string, unknown>;
  /** The answer to `admin.get_nodes`. */
  getNodes: () => unknown;
  /** The answer to `admin.get_services`. */
  getServices: () => unknown;
  /** The answer to `admin.expire`. See {@link Expiry.report}. */
  expire: (approved: boolean) => Promise<unknown>;
  /** See {@link testPush}. */
  testPush: (service: string, serviceInfo: unknown) => Promise<unknown>;
  /** Undefined for a single hivemind. */
  cluster?: EndpointCluster | undefined;
  /** Called when a `notify.block` comes from somebody with the right to send it. */
  onBlock: () => void;
  /** Told of each message that made no sense. */
  log: Pick<Log, 'warn'>;
}

/** How many bytes of a client's name count. */
const CLIENT_NAME_MAX = 64;
/** How long another member may take to answer `admin.ask_members`, in ms. */
const MEMBER_TIMEOUT = 5_000;
/** The largest window that a notifier gets, whatever it asks for. */
const WINDOW_MAX = 20_000;

/**
 * The hivemind's OxenMQ endpoints: the original's (docs/spec/hivemind.md, section 1), and our own for our notifiers
 * (session/notifier-protocol.ts). Each category's access level says who may call it.
 */
export function endpoints(modules: EndpointModules): Commands {
  return {
    push: { access: 'none', commands: clientCommands(modules) },
    admin: { access: 'admin', commands: { ...notifierCommands(modules), ...operatorCommands(modules) } },
    notify: {
      access: 'basic',
      commands: {
        block: { kind: 'command', handler: modules.onBlock },
        // Ignored: storage servers send notifications over our connections to them, not as clients of ours.
        message: { kind: 'command', handler: () => {} },
      },
    },
  };
}

type CommandSet = Commands['']['commands'];

/**
 * What clients ask for. Callers such as our web front-end may act for clients of their own, whom they name in a second
 * part (empty if unknown). A second part of the reply then says whether the same request may succeed later, which the
 * error codes do not say for a service without a notifier. Only trusted callers get here: a stranger could name a new
 * client each time.
 */
function clientCommands({ subscriptions, cluster }: EndpointModules): CommandSet {
  const requestOf = (kind: 'subscribe' | 'unsubscribe') => async (message: Incoming) => {
    const { parts, remote } = message;
    const [body, name] = parts;
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    const client = name?.length ? name.toString('latin1', 0, CLIENT_NAME_MAX) : remote.id;
    const { text, passing } = await subscriptions.handle(kind, body, { client, bytes });
    // Only our web front-end sends a second part, and it gets one.
    if (name) message.reply(text, passing ? 'passing' : 'final');
    else message.reply(text);
  };
  return {
    subscribe: { kind: 'request', handler: requestOf('subscribe') },
    unsubscribe: { kind: 'request', handler: requestOf('unsubscribe') },
    hiveminds: { kind: 'request', handler: (message) => message.reply(...membersPart(cluster, 'pushAddress')) },
  };
}

/** What notifiers say: first the commands of the original's, then those of our own. */
function notifierCommands({ outbox, stats, deadDevices, cluster, log }: EndpointModules): CommandSet {
  /** Wraps a handler: messages that it throws on are logged and dropped. */
  const dropUnreadable = (what: string, handler: (message: Incoming) => void) => (message: Incoming) => {
    try {
      handler(message);
    } catch (error) {
      log.warn(`${what} ignored: ${(error as Error).message}`);
    }
  };
  return {
    register_service: {
      kind: 'command',
      handler: dropUnreadable('admin.register_service', ({ remote, parts }) => {
        if (parts.length !== 1) throw new Error('expected one part, the name of the service');
        outbox.register(serviceName(parts[0]), remote, undefined);
      }),
    },
    service_stats: {
      kind: 'command',
      handler: dropUnreadable('admin.service_stats', ({ parts }) => {
        const [name, dict] = parts;
        if (parts.length !== 2 || !dict) throw new Error('expected two parts, the name of the service and a dict');
        stats.report(serviceName(name), dict);
      }),
    },
    drop_registrations: {
      kind: 'command',
      handler: dropUnreadable('admin.drop_registrations', ({ parts }) => {
        const [name, list] = parts;
        if (parts.length !== 2 || !list) throw new Error('expected two parts, the name of the service and a list');
        void deadDevices.removeAll(serviceName(name), decodeDropRegistrations(list));
      }),
    },
    register_notifier: {
      kind: 'request',
      handler: dropUnreadable('admin.register_notifier', (message) => {
        const registration = decodeRegistration(message.parts[0] ?? Buffer.alloc(0));
        const name = serviceName(Buffer.from(registration.service));
        const window = Math.min(Math.max(registration.window, 1), WINDOW_MAX);
        outbox.register(name, message.remote, window, registration.instance, registration.validatesMany);
        message.reply('OK', ...membersPart(cluster, 'address'));
      }),
    },
    unregister_notifier: {
      kind: 'request',
      handler: dropUnreadable('admin.unregister_notifier', (message) => {
        const { service } = decodeRegistration(message.parts[0] ?? Buffer.alloc(0));
        outbox.services.get(service)?.drain(message.remote.id);
        message.reply('OK');
      }),
    },
    push_report: {
      kind: 'command',
      handler: dropUnreadable('admin.push_report', ({ remote, parts }) => {
        outbox.report(remote, decodePushReport(parts[0] ?? Buffer.alloc(0)));
      }),
    },
    device_gone: {
      kind: 'command',
      handler: dropUnreadable('admin.device_gone', ({ parts }) => {
        void deadDevices.remove(decodeDeviceGone(parts[0] ?? Buffer.alloc(0)));
      }),
    },
  };
}

/** What operators ask for, by the `spns` command. */
function operatorCommands({ getStats, getNodes, getServices, expire, testPush, cluster }: EndpointModules): CommandSet {
  const figures: Figures = { get_stats: getStats, get_nodes: getNodes, get_services: getServices };
  const request = (answer: (parts: readonly Buffer[]) => unknown) => ({
    kind: 'request' as const,
    handler: async (message: Incoming) => message.reply(stringifySorted(await answer(message.parts))),
  });
  return {
    ...Object.fromEntries(Object.entries(figures).map(([name, figure]) => [name, request(figure)])),
    ask_members: request(([command]) => (cluster ? askMembers(cluster, figures, String(command)) : null)),
    expire: request(([approval]) => expire(String(approval) === 'yes')),
    test_push: request(async ([service, info]) => {
      try {
        return await testPush(serviceName(service), parseJson(info ?? Buffer.from('null')));
      } catch (error) {
        return { ok: false, answer: (error as Error).message };
      }
    }),
  };
}

/** What a hivemind answers about itself, by command. */
type Figures = { readonly [command: string]: () => unknown };

/** Each member's answer to a command, by name, or why there is none, in words. @throws Error if `figures` lacks it */
async function askMembers(
  cluster: EndpointCluster,
  figures: Figures,
  command: string,
): Promise<Record<string, { answer: unknown } | { trouble: string }>> {
  const own = figures[command];
  if (!own) throw new Error(`not one of ${Object.keys(figures).join(', ')}`);
  const answers = cluster.members().map(async ({ name }) => {
    if (name === cluster.own) return [name, { answer: own() }] as const;
    try {
      const [body] = await cluster.ask(name, `admin.${command}`, [], MEMBER_TIMEOUT);
      return [name, { answer: parseJson(body ?? 'null') }] as const;
    } catch (error) {
      return [name, { trouble: (error as Error).message }] as const;
    }
  });
  return Object.fromEntries(await Promise.all(answers));
}

/** The part of a reply that names the members of the cluster, for callers that may not know all of them. */
function membersPart(cluster: EndpointCluster | undefined, place: 'address' | 'pushAddress'): Buffer[] {
  if (!cluster) return [];
  const reachable = cluster.members().filter((member) => member[place] !== '');
  const members = reachable.slice(0, MAX_MEMBERS).map((member) => ({ name: member.name, address: member[place] }));
  return [encodeMembers({ own: cluster.own, members })];
}

/** Reads the name of a service. @throws Error if it is not 1 to 32 bytes of printable text */
function serviceName(part: Buffer | undefined): string {
  if (!part || part.length === 0 || part.length > MAX_SERVICE) {
    throw new Error(`a service's name has 1 to ${MAX_SERVICE} bytes`);
  }
  const name = part.toString('utf8');
  if (/[\p{Cc}\ufffd]/u.test(name)) throw new Error("a service's name is printable text");
  return name;
}
