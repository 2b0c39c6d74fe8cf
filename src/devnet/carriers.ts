import fs from 'node:fs/promises';
import type { Random } from './account.ts';
import { startFakeApns } from './providers/apns.ts';
import { startFakeFcm } from './providers/fcm.ts';
import { startFakeHuawei } from './providers/huawei.ts';
import type { FakeProvider } from './providers/script.ts';

/** The far end of a notifier: the fake provider that it pushes to. */
export interface Carrier {
  /** As clients name it, and the notifier. */
  readonly service: string;
  /** What the notifier finds in its section of spns.ini. */
  readonly settings: Readonly<Record<string, string>>;
  /** The token of a new device, as its maker would give it out. */
  token(random: Random): string;
  stop(): Promise<void>;
}

/** Called with each push that a provider took: what the phone with that token gets. */
export type OnPush = (service: string, token: string, payload: Buffer) => void;

/** How many pushes a provider keeps for whoever wants to look; nobody does here. */
const KEEP = 10;

const PROVIDERS: readonly {
  readonly service: string;
  readonly start: () => Promise<FakeProvider>;
  readonly token: (random: Random) => string;
}[] = [
  { service: 'apns', start: () => startFakeApns({ keep: KEEP }), token: (random) => random(32).toString('hex') },
  {
    service: 'firebase',
    start: () => startFakeFcm({ keep: KEEP }),
    token: (random) => `${random(16).toString('base64url')}:APA91b${random(100).toString('base64url')}`,
  },
  {
    service: 'huawei',
    start: () => startFakeHuawei({ keep: KEEP }),
    token: (random) => `IQAAAA${random(90).toString('base64url')}`,
  },
];

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
    PROVIDERS.map(async ({ service, start, token }) => {
      const provider = await start();
      provider.taken.onPush = (push) => onPush(service, push.token, push.payload);
      return { service, settings: await provider.settings(folder), token, stop: () => provider.close() };
    }),
  );
}
