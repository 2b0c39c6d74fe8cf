import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { Listener } from '../oxenmq/listener.ts';
import { PublicListener } from '../oxenmq/public-listener.ts';
import type { Commands, Remote } from '../oxenmq/remote.ts';
import { MAX_MESSAGE_SIZE } from '../oxenmq/socket.ts';
import { deriveClusterKey } from '../session/notifier-key.ts';
import type { HivemindSettings } from '../settings/hivemind.ts';

/** The largest message from the web front-end, in bytes: the original's limit. A notifier's may be larger. */
const PUSH_MESSAGE = 1024 * 1024;
/** Of a socket. Web front-ends are few, and so are administrators and notifiers on other machines. */
const MAX_CONNECTIONS = 256;
/** Requests worked on at a time for one connection: a front-end's carries all its clients', which admission limits. */
const IN_FLIGHT = Number.POSITIVE_INFINITY;

export interface ListenersModules {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly settings: HivemindSettings;
  /** `[keys] hivemind`, 32 bytes. */
  readonly secret: Buffer;
  readonly commands: Commands;
  readonly log: Pick<Log, 'info'>;
  /** Called with the reason when a message was dropped. */
  readonly stray: (reason: string) => void;
  /** Called when an admin connection, which includes every notifier's, has ended. */
  readonly gone: (remote: Remote) => void;
}

export type OpenListener = Pick<Listener | PublicListener, 'close' | 'counters'>;

/**
 * Opens the hivemind's sockets: `listen` for notifiers and administrators on this machine, `listen_curve` for those on
 * others, and `listen_push` for the web front-end, which needs nothing but `push.*`. Anonymous clients connect to the
 * front-end instead.
 *
 * @throws Error with the address and the reason; no socket is open then
 */
export async function openListeners(modules: ListenersModules): Promise<readonly OpenListener[]> {
  const { clock, random, settings, commands, gone: disconnect, stray } = modules;
  const { listen, listenCurve, listenCurveAdmin, listenPush } = settings;
  const admins = new Set(listenCurveAdmin.map((key) => key.toString('hex')));
  if (settings.instance !== undefined)
    admins.add(keyPairFromSecret(deriveClusterKey(modules.secret)).publicKey.toString('hex'));
  const limits = { clock, random, commands, maxConnections: MAX_CONNECTIONS, inFlight: IN_FLIGHT };

  // The socket's permissions decide who can connect: notifiers run under our group.
  const listeners: (Listener | PublicListener)[] = [
    new Listener({ clock, address: listen, access: 'admin', commands, mode: 0o660, on: { disconnect, stray } }),
  ];
  if (listenCurve !== undefined) {
    listeners.push(
      new PublicListener({
        ...limits,
        address: listenCurve,
        access: 'admin',
        keys: keyPairFromSecret(modules.secret),
        allow: (key) => admins.has(key.toString('hex')),
        maxMessageSize: MAX_MESSAGE_SIZE,
        on: { disconnect, stray },
      }),
    );
  }
  const pushListener =
    listenPush === undefined
      ? undefined
      : new PublicListener({
          ...limits,
          address: listenPush,
          access: 'none',
          maxMessageSize: PUSH_MESSAGE,
          // The front-end is not in our group, and anybody else on this machine could ask it for the same.
          mode: 0o666,
          on: { stray },
        });
  if (pushListener) listeners.push(pushListener);
  try {
    for (const listener of listeners) {
      await listener.bind();
      modules.log.info(`listening at ${listener.endpoint} (${listener === pushListener ? 'push.* only' : 'admin'})`);
    }
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.close()));
    throw error;
  }
  return listeners;
}
