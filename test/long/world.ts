import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { systemClock } from '../../src/clock.ts';
import { sessionAccount } from '../../src/devnet/account.ts';
import { type Network, startNetwork } from '../../src/devnet/network.ts';
import { createPhone, type FrontEnd, type Phone } from '../../src/devnet/phone.ts';
import { type Postgres, startPostgres } from '../../src/devnet/postgres.ts';
import { type FakeApns, startFakeApns } from '../../src/devnet/providers/apns.ts';
import { type FakeFcm, startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { type FakeHuawei, startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import { type FakeWebPush, startFakeWebPush } from '../../src/devnet/providers/webpush.ts';
import { formatIni, keyFile } from '../../src/devnet/settings.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import { startProxies } from '../faults/support.ts';
import { createDaemons, type Daemons } from '../support/daemons.ts';
import type { Cleaner } from '../support/hivemind.ts';
import type { FaultyProxy } from '../support/proxy.ts';
import type { Deliveries } from './deliveries.ts';

/** How long a provider takes to answer, ms. */
const PROVIDER_DELAY = 20;
/** How many taken pushes the fakes keep: {@link Deliveries} counts all. */
const KEEP = 10;

/** The whole suite as real processes, the network and the providers in this one. */
export interface SoakWorld {
  readonly folder: string;
  readonly network: Network;
  /** One before each storage server, in the order of `network.servers`. */
  readonly proxies: readonly FaultyProxy[];
  readonly apns: FakeApns;
  readonly firebase: FakeFcm;
  readonly huawei: FakeHuawei;
  readonly webpush: FakeWebPush;
  readonly frontEnd: FrontEnd;
  /** As an administrator. */
  readonly client: Connection;
  readonly daemons: Daemons;
  newPhone(service: string): Phone;
  /** SIGKILL, and a new one in its place; resolves when that is ready. */
  killNotifier(service: string): Promise<void>;
  /** Ends PostgreSQL as a crash would. */
  stopDatabase(): Promise<void>;
  startDatabase(): Promise<void>;
  countSubscriptions(): Promise<number>;
}

export const SERVICES = ['apns', 'firebase', 'huawei', 'webpush', 'dummy'] as const;

export async function startSoak(t: Cleaner, deliveries: Deliveries): Promise<SoakWorld> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-soak-'));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const dataDir = path.join(folder, 'postgres');
  let postgres: Postgres = await startPostgres({ dataDir });
  t.after(() => postgres.stop());
  await postgres.createDatabase('spns');
  const database = postgres.url('spns');
  const network = await startNetwork({ clock: systemClock, random: randomBytes, servers: 10, swarms: 2 });
  t.after(() => network.stop());
  const proxies = await startProxies(t, network);

  const phones = new Map<string, Phone>();
  const options = { keep: KEEP, delay: PROVIDER_DELAY };
  const apns = await startFakeApns(options);
  const firebase = await startFakeFcm(options);
  const huawei = await startFakeHuawei(options);
  const webpush = await startFakeWebPush(options);
  const providers = { apns, firebase, huawei, webpush };
  for (const [service, { taken }] of Object.entries(providers)) {
    taken.onPush = ({ token, payload }) => deliveries.taken(phones.get(`${service} ${token}`), service, payload);
  }
  t.after(async () => void (await Promise.all(Object.values(providers).map((provider) => provider.close()))));

  const socket = (name: string) => path.join(folder, `${name}.sock`);
  const key = (name: string) => path.join(folder, `key-${name}`);
  await keyFile(key('hivemind'));
  const onionKey = await keyFile(key('onionreq'));
  const ini = path.join(folder, 'spns.ini');
  const notifier = (service: string, settings: Record<string, string> = {}) => ({
    [`notify-${service}`]: { ...settings, metrics_listen: `unix:${socket(service)}` },
  });
  const sections = {
    db: { url: database },
    keys: { hivemind: key('hivemind'), onionreq: key('onionreq') },
    hivemind: {
      listen: `ipc://${socket('omq')}`,
      oxend_rpc: network.oxend.address,
      allow_private_nodes: 'yes',
      notifiers_expected: SERVICES.join(', '),
      metrics_listen: `unix:${socket('hivemind')}`,
    },
    web: { listen: `unix:${socket('front-end')}`, metrics_listen: `unix:${socket('web')}` },
    ...notifier('apns', await apns.settings(folder)),
    ...notifier('firebase', await firebase.settings(folder)),
    // Few connections, so that they are all there before the second half, in which nothing may grow.
    ...notifier('huawei', { ...(await huawei.settings(folder)), connections: '8' }),
    ...notifier('webpush', { ...(await webpush.settings(folder)), connections: '16' }),
    ...notifier('dummy'),
  };
  await fs.writeFile(ini, formatIni(sections), { mode: 0o600 });

  const daemons = await createDaemons(t, {
    folder: path.join(folder, 'log'),
    ini,
    socket: (name) => socket(name.replace(/^notify-/, '')),
  });
  await Promise.all(
    ['hivemind', 'web', ...SERVICES.map((service) => `notify-${service}`)].map((name) => daemons.start(name)),
  );
  const peers = new Peers({ clock: systemClock, commands: {} });
  t.after(() => peers.close());

  return {
    folder,
    network,
    proxies,
    apns,
    firebase,
    huawei,
    webpush,
    frontEnd: { url: `unix:${socket('front-end')}`, publicKey: x25519Public(onionKey) },
    client: peers.connect(parseAddress(`ipc://${socket('omq')}`)),
    daemons,
    newPhone(service) {
      const { token, serviceInfo } = newDevice(service, webpush);
      const phone = createPhone({
        name: `${service} ${token.slice(0, 8)}`,
        platform: service === 'apns' ? 'ios' : 'android',
        service,
        serviceInfo,
        accounts: [sessionAccount(randomBytes)],
        random: randomBytes,
        now: Date.now,
      });
      phones.set(`${service} ${token}`, phone);
      return phone;
    },
    async killNotifier(service) {
      await daemons.signal(`notify-${service}`, 'SIGKILL');
      await daemons.start(`notify-${service}`);
    },
    stopDatabase: () => postgres.stop('immediate'),
    async startDatabase() {
      postgres = await startPostgres({ dataDir });
    },
    async countSubscriptions() {
      const client = new pg.Client({ connectionString: database });
      await client.connect();
      try {
        const { rows } = await client.query<{ count: string }>('SELECT count(*) FROM subscriptions');
        return Number(rows[0]!.count);
      } finally {
        await client.end();
      }
    },
  };
}

function newDevice(service: string, webpush: FakeWebPush): { token: string; serviceInfo: Record<string, unknown> } {
  const byToken = (token: string) => ({ token, serviceInfo: { token } });
  switch (service) {
    case 'apns':
      return byToken(randomBytes(32).toString('hex'));
    case 'firebase':
      return byToken(`${randomBytes(16).toString('base64url')}:APA91b${randomBytes(100).toString('base64url')}`);
    case 'huawei':
      return byToken(`IQAAAA${randomBytes(90).toString('base64url')}`);
    case 'webpush': {
      const { token, info } = webpush.subscribe(randomBytes);
      return { token, serviceInfo: { ...info } };
    }
    default: {
      const token = randomBytes(8).toString('hex');
      return { token, serviceInfo: { foo: `TEST-${token}`, bar: 1 } };
    }
  }
}
