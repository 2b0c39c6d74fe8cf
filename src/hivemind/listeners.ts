import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { Listener } from '../oxenmq/listener.ts';
import { PublicListener } from '../oxenmq/public-listener.ts';
import type { Commands, Remote } from '../oxenmq/remote.ts';
import { MAX_MESSAGE_SIZE } from '../oxenmq/socket.ts';
import { deriveClusterKey } from '../session/notifier-key.ts';
import type { HivemindSettings } from '../settings/hivemind.ts';

/** The largest message that the web front-end passes on, in bytes: the original's limit. A notifier's may be larger. */
const PUSH_MESSAGE = 1024 * 1024;
/** Web front-ends are few, and so are administrators and notifiers from afar. */
const MAX_CONNECTIONS = 256;
/**
 * Requests of one connection that are worked on at a time: a front-end's are those of all its clients, whose admission
 * has its own limits.
 */
const IN_FLIGHT = Number.POSITIVE_INFINITY;

export interface ListenersModules {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly settings: HivemindSettings;
  /** `[keys] hivemind`, 32 bytes. */
  readonly secret: Buffer;
  readonly commands: Commands;
  readonly log: Pick<Log, 'info'>;
  /** Called with what was dropped, and why. */
  readonly stray: (reason: string) => void;
  /** An administrator's connection, which may be a notifier's, has ended. */
  readonly gone: (remote: Remote) => void;
}

export type OpenListener = Pick<Listener | PublicListener, 'close' | 'counters'>;

/**
 * Opens the hivemind's sockets, one for each level of rights: `listen` for notifiers and administrators of this
 * machine, `listen_curve` for those from afar, and `listen_push` for the web front-end, which needs no more than
 * `push.*`. Anonymous clients do not come here: the front-end has their socket.
 *
 * @throws Error with the address and the reason; none is open then
 */
export async function openListeners(modules: ListenersModules): Promise<readonly OpenListener[]> {
  const { clock, random, settings, commands, gone: disconnect, stray } = modules;
  const { listen, listenCurve, listenCurveAdmin, listenPush } = settings;
  const admins = new Set(listenCurveAdmin.map((key) => key.toString('hex')));
  if (settings.instance !== undefined)
    admins.add(keyPairFromSecret(deriveClusterKey(modules.secret)).publicKey.toString('hex'));
  const limits = { clock, random, commands, maxConnections: MAX_CONNECTIONS, inFlight: IN_FLIGHT };

  // Who can connect is settled by the file's permissions: notifiers are of our group.
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
  if (listenPush !== undefined) {
    listeners.push(
      new PublicListener({
        ...limits,
        address: listenPush,
        access: 'none',
        maxMessageSize: PUSH_MESSAGE,
        // The front-end is no member of our group, and whoever else is on this machine could ask the front-end for the
        // same.
        mode: 0o666,
        on: { stray },
      }),
    );
  }
  try {
    for (const listener of listeners) {
      await listener.bind();
      const level = listener instanceof PublicListener && listenPush !== undefined && listener === listeners.at(-1);
      modules.log.info(`listening at ${listener.endpoint} (${level ? 'push.* only' : 'admin'})`);
    }
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.close()));
    throw error;
  }
  return listeners;
}
