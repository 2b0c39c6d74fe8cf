import fs from 'node:fs/promises';
import type { Random } from './account.ts';
import { startFakeApns } from './providers/apns.ts';
import { startFakeFcm } from './providers/fcm.ts';
import { startFakeHuawei } from './providers/huawei.ts';
import type { FakeProvider } from './providers/script.ts';
import { startFakeWebPush } from './providers/webpush.ts';

/** A device that can be pushed to. */
export interface NewDevice {
  /** What the provider knows it by. */
  readonly token: string;
  /** What its app tells the server. */
  readonly serviceInfo: Readonly<Record<string, unknown>>;
}

/** The far end of a notifier: the fake provider that it pushes to. */
export interface Carrier {
  /** As clients name it, and the notifier. */
  readonly service: string;
  /** What the notifier finds in its section of spns.ini. */
  readonly settings: Readonly<Record<string, string>>;
  /** A new device, as its maker or its push service would register it. */
  register(random: Random): NewDevice;
  stop(): Promise<void>;
}

/** Called with each push that a provider took: what the phone with that token gets. */
export type OnPush = (service: string, token: string, payload: Buffer) => void;

/** How many pushes a provider keeps for whoever wants to look; nobody does here. */
const KEEP = 10;

interface Provider {
  readonly provider: FakeProvider;
  readonly register: (random: Random) => NewDevice;
}

const PROVIDERS: { readonly [service: string]: () => Promise<Provider> } = {
  apns: async () => byToken(await startFakeApns({ keep: KEEP }), (random) => random(32).toString('hex')),
  firebase: async () =>
    byToken(
      await startFakeFcm({ keep: KEEP }),
      (random) => `${random(16).toString('base64url')}:APA91b${random(100).toString('base64url')}`,
    ),
  huawei: async () =>
    byToken(await startFakeHuawei({ keep: KEEP }), (random) => `IQAAAA${random(90).toString('base64url')}`),
  webpush: async () => {
    const provider = await startFakeWebPush({ keep: KEEP });
    return {
      provider,
      register(random) {
        const { token, info } = provider.subscribe(random);
        return { token, serviceInfo: { ...info } };
      },
    };
  },
};

/** A provider that knows devices by a token, and nothing else. */
function byToken(provider: FakeProvider, make: (random: Random) => string): Provider {
  return {
    provider,
    register(random) {
      const token = make(random);
      return { token, serviceInfo: { token } };
    },
  };
}

/**
 * Starts a fake provider for each notifier.
 *
 * @param modules.folder where the credentials for the notifiers are written
 */
export async function startCarriers(modules: { folder: string; onPush: OnPush }): Promise<Carrier[]> {
  const { folder, onPush } = modules;
  // The credentials of earlier runs were for other ports.
  await fs.rm(folder, { recursive: true, force: true });
  await fs.mkdir(folder, { recursive: true, mode: 0o700 });
  return await Promise.all(
    Object.entries(PROVIDERS).map(async ([service, start]) => {
      const { provider, register } = await start();
      provider.taken.onPush = (push) => onPush(service, push.token, push.payload);
      return { service, settings: await provider.settings(folder), register, stop: () => provider.close() };
    }),
  );
}
