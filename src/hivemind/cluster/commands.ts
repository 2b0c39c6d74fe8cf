import type { Log } from '../../log.ts';
import type { Commands, Incoming } from '../../oxenmq/remote.ts';
import {
  type Changed,
  decodeChanged,
  decodeHeard,
  decodeHello,
  decodeLeaving,
  decodeProgress,
  encodeHello,
  type Heard,
  type Hello,
  type Progress,
  type Sender,
} from '../../session/cluster-protocol.ts';

/** Handlers for what other members say. */
export interface CommandModules {
  readonly own: Hello;
  readonly onProgress: (progress: Progress) => void;
  readonly onChanged: (changed: Changed) => void;
  readonly onLeaving: (sender: Sender) => void;
  readonly onHeard: (heard: Heard) => void;
  readonly log: Pick<Log, 'warn'>;
}

/**
 * The commands that members call on each other (session/cluster-protocol.ts). They need the same rights as registering
 * a notifier.
 */
export function clusterCommands(modules: CommandModules): Commands {
  const { own, log } = modules;
  const receiver =
    <T>(decode: (part: Buffer) => T, take: (message: T) => void) =>
    ({ parts }: Incoming) => {
      try {
        take(decode(parts[0] ?? Buffer.alloc(0)));
      } catch (error) {
        log.warn(`ignoring a message from another hivemind: ${(error as Error).message}`);
      }
    };
  const command = <T>(decode: (part: Buffer) => T, take: (message: T) => void) => ({
    kind: 'command' as const,
    handler: receiver(decode, take),
  });
  return {
    cluster: {
      access: 'admin',
      commands: {
        hello: {
          kind: 'request',
          handler: (message) => {
            receiver(decodeHello, () => message.reply(encodeHello(own)))(message);
          },
        },
        progress: {
          kind: 'request',
          handler: (message) => {
            receiver(decodeProgress, modules.onProgress)(message);
            message.reply();
          },
        },
        changed: command(decodeChanged, modules.onChanged),
        leaving: command(decodeLeaving, modules.onLeaving),
        heard: command(decodeHeard, modules.onHeard),
      },
    },
  };
}
