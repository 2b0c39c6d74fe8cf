import { readKeyFile } from './key-file.ts';
import type { Section } from './section.ts';
import { isRequired, path, type Role, type Table } from './table.ts';

/** `[keys]`. A notifier has none of its own, but derives it from the hivemind's (docs/spec/notifiers.md, section 1). */
export const KEYS = {
  settings: {
    hivemind: path('hivemind', {
      required: ['hivemind', 'notifier', 'canary'],
      restart: ['hivemind', 'notifier', 'canary'],
      example: 'hivemind.key',
      text: `X25519 private keys: files of 64 hex digits or 32 raw bytes, made by "spns keygen FILE". A relative path is
        looked for in systemd's credentials directory (LoadCredential) first, then in the folder in which the daemon was
        started. The hivemind, the notifiers and the canary need the first, the web front-end the second.`,
    }),
    onionreq: path('onionreq', { required: ['web'], restart: ['web'], example: 'onionreq.key' }),
  },
} satisfies Table;

/** X25519 secret keys of 32 bytes. */
export interface Keys {
  /** @throws Error in a daemon that does not load it, such as the web front-end, which must not have it */
  readonly hivemind: Buffer;
  /** Loaded by the web front-end only. */
  readonly onionreq?: Buffer;
}

/** Reads the key files that the role needs. */
export function readKeys(section: Section, role: Role, warnings: string[]): Keys {
  const load = (name: keyof typeof KEYS.settings): Buffer | undefined => {
    const file = KEYS.settings[name].read(section, role);
    if (!file || !isRequired(KEYS.settings[name], section, role)) return undefined;
    try {
      const { key, exposed } = readKeyFile(file);
      if (exposed) warnings.push(`[keys].${name}: every user of this machine may read or change ${file}: chmod 600 it`);
      return key;
    } catch (error) {
      section.problem(name, (error as Error).message);
      return undefined;
    }
  };
  const hivemind = load('hivemind');
  const onionreq = load('onionreq');
  section.obsolete('quic', 'it does not speak QUIC');
  return Object.freeze({
    get hivemind(): Buffer {
      if (!hivemind) throw new Error(`the hivemind's key is not loaded for the role "${role}"`);
      return hivemind;
    },
    ...(onionreq && { onionreq }),
  });
}
