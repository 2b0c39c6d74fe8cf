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

/** A fake provider with the notifier that pushes to it. */
export interface Provider {
  /** The notifier's name, by which clients ask for it. */
  readonly service: string;
  /** The notifier's section of spns.ini. */
  readonly settings: Readonly<Record<string, string>>;
  /** Registers a new device, as its operating system or push service would. */
  register(random: Random): NewDevice;
  stop(): Promise<void>;
}

/** Called with each push that a provider accepted, for the phone with that token. */
export type OnPush = (service: string, token: string, payload: Buffer) => void;

/** How many pushes a fake provider keeps; nobody looks at them here. */
const KEEP = 10;

interface Started {
  readonly fake: FakeProvider;
  readonly register: (random: Random) => NewDevice;
}

const STARTS: { readonly [service: string]: () => Promise<Started> } = {
  apns: async () => byToken(await startFakeApns({ keep: KEEP }), (random) => random(32).toString('hex')),
  firebase: async () =>
    byToken(
      await startFakeFcm({ keep: KEEP }),
      (random) => `${random(16).toString('base64url')}:APA91b${random(100).toString('base64url')}`,
    ),
  huawei: async () =>
    byToken(await startFakeHuawei({ keep: KEEP }), (random) => `IQAAAA${random(90).toString('base64url')}`),
  webpush: async () => {
    const fake = await startFakeWebPush({ keep: KEEP });
    return {
      fake,
      register(random) {
        const { token, info } = fake.subscribe(random);
        return { token, serviceInfo: { ...info } };
      },
    };
  },
};

/** For a provider whose devices have a token and nothing else. @param make makes a token */
function byToken(fake: FakeProvider, make: (random: Random) => string): Started {
  return {
    fake,
    register(random) {
      const token = make(random);
      return { token, serviceInfo: { token } };
    },
  };
}

/**
 * Starts a fake provider for each notifier.
 *
 * @param modules.folder where the notifiers' credentials are written; emptied first
 */
export async function startProviders(modules: { folder: string; onPush: OnPush }): Promise<Provider[]> {
  const { folder, onPush } = modules;
  // Credentials of earlier runs are for other ports.
  await fs.rm(folder, { recursive: true, force: true });
  await fs.mkdir(folder, { recursive: true, mode: 0o700 });
  return await Promise.all(
    Object.entries(STARTS).map(async ([service, start]) => {
      const { fake, register } = await start();
      fake.taken.onPush = (push) => onPush(service, push.token, push.payload);
      return { service, settings: await fake.settings(folder), register, stop: () => fake.close() };
    }),
  );
}
