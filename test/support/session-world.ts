import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { systemClock } from '../../src/clock.ts';
import type { Account } from '../../src/devnet/account.ts';
import { type Network, startNetwork } from '../../src/devnet/network.ts';
import type { Connection } from '../../src/oxenmq/peers.ts';
import type { Commands } from '../../src/oxenmq/remote.ts';
import { messageHash } from '../../src/session/message-hash.ts';
import type { Notification } from '../../src/session/notification.ts';
import {
  decodeSealedPushes,
  encodePushReport,
  encodeRegistration,
  type SealedPush,
} from '../../src/session/notifier-protocol.ts';
import { decodePush, type Push } from '../../src/session/push.ts';
import { type Cleaner, startTestHivemind, type TestHivemind, type TestHivemindOptions } from './hivemind.ts';
import { once } from './once.ts';
import { until } from './until.ts';

const written = new Map<string, number>();
/** No two messages are the same, as with real ones: a text that is sent to an account again gets a number. */
export function message(account: Account, text: string, namespace = 0): Notification {
  const key = `${account.id.toString('latin1')} ${namespace} ${text}`;
  const times = (written.get(key) ?? 0) + 1;
  written.set(key, times);
  const data = Buffer.from(times > 1 ? `${text} (${times})` : text);
  return {
    account: account.id,
    hash: messageHash(account.id, namespace, data),
    namespace,
    timestamp: Date.now(),
    expiry: Date.now() + 86_400_000,
    data,
  };
}

/** A notifier that accepts every token and keeps the pushes that it gets; it tells of both. */
export class TestNotifier extends EventEmitter<{ push: []; validated: [] }> {
  readonly sealed: SealedPush[] = [];
  readonly dicts: Push[] = [];
  readonly connection: Connection;
  acknowledge = true;
  #again: NodeJS.Timeout | undefined;

  constructor(hivemind: Pick<TestHivemind, 'connect'>) {
    super();
    const commands: Commands = {
      notifier: {
        access: 'none',
        commands: {
          validate: {
            kind: 'request',
            handler: (request) => {
              const { token } = JSON.parse(request.parts[1]?.toString() ?? '') as { token: string };
              request.reply('0', token.padEnd(32, '.'));
              this.emit('validated');
            },
          },
          push: {
            kind: 'command',
            handler: ({ parts }) => {
              this.dicts.push(decodePush(parts[0] as Buffer));
              this.emit('push');
            },
          },
          sealed: {
            kind: 'command',
            handler: ({ parts }) => {
              const pushes = decodeSealedPushes(parts[0] as Buffer);
              this.sealed.push(...pushes);
              if (this.acknowledge) this.report({ accepted: pushes.map(({ id }) => id) });
              this.emit('push');
            },
          },
        },
      },
    };
    this.connection = hivemind.connect(commands);
  }

  /** @param instance its id, if it registers with more than one hivemind */
  async register(instance = randomBytes(16)): Promise<this> {
    const registration = encodeRegistration({ service: 'test', instance, window: 1_000 });
    const request = () => this.connection.request('admin.register_notifier', [registration]);
    await request();
    clearInterval(this.#again);
    // As a real one does, until its connection is closed: otherwise it would count as dead.
    this.#again = setInterval(() => request().catch(() => clearInterval(this.#again)), 5_000).unref();
    return this;
  }

  report(what: { accepted?: number[]; refused?: number[]; answers?: [number, string][] }): void {
    const report = { service: 'test', accepted: [], refused: [], handedBack: [], answers: [], ...what };
    this.connection.send('admin.push_report', encodePushReport(report));
  }

  async pushes(count: number): Promise<void> {
    while (this.sealed.length + this.dicts.length < count) await once(this, 'push');
  }
}

export interface World {
  hivemind: TestHivemind;
  network: Network;
  notifier: TestNotifier;
  client: Connection;
  send(command: 'subscribe' | 'unsubscribe', body: unknown): Promise<unknown>;
}

/**
 * Starts a simulated network, a hivemind, a notifier and a client.
 *
 * @param options.prepare changes the network before the hivemind sees it
 */
export async function startWorld(
  t: Cleaner,
  options: TestHivemindOptions & { prepare?: (network: Network) => Promise<void> | void } = {},
): Promise<World> {
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 6, swarms: 2 });
  t.after(() => network.stop());
  await options.prepare?.(network);
  const hivemind = await startTestHivemind(t, {
    ...options,
    settings: { oxend_rpc: network.oxend.address, allow_private_nodes: 'yes', ...options.settings },
  });
  const notifier = await new TestNotifier(hivemind).register();
  const client = hivemind.connect();
  return {
    hivemind,
    network,
    notifier,
    client,
    async send(command, body) {
      const [reply] = await client.request(`push.${command}`, [JSON.stringify(body)]);
      return JSON.parse(reply?.toString() ?? '');
    },
  };
}

/** Resolves when every member of the account's swarm monitors it. It is polled, since no event tells. */
export async function monitored({ network }: Pick<World, 'network'>, account: Account, namespace = 0): Promise<void> {
  await until(() => network.membersFor(account.id).every((server) => server.monitorsOf(account.id, namespace) > 0));
}

export async function stats({ client }: World): Promise<{ subscriptions: { total: number }; connections: number }> {
  const [body] = await client.request('admin.get_stats', []);
  return JSON.parse(body?.toString() ?? '') as { subscriptions: { total: number }; connections: number };
}
