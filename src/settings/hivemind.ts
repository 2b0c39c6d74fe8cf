import { resolve } from 'node:path';
import { type Address, formatAddress, parseAddress, zmqAddress } from '../oxenmq/address.ts';
import { connectAddress, parseBindAddress } from '../oxenmq/bind-address.ts';
import { checkedListen } from './listen-address.ts';
import type { Section } from './section.ts';
import {
  boolean,
  integer,
  list,
  number,
  parsed,
  type Role,
  readTable,
  string,
  type Table,
  type Values,
} from './table.ts';

const INSTANCE = /^[a-z0-9_-]{1,32}$/;
const INSTANCE_IN_WORDS = '1 to 32 of a-z, 0-9, - and _';

/**
 * `[hivemind]`. The table is here and not beside the hivemind since the web front-end, the notifiers and the commands
 * need to know where it listens, and the notifiers the limits of the breaker.
 */
export const HIVEMIND = {
  settings: {
    /** OxenMQ address of oxend. */
    oxendRpc: parsed('oxend_rpc', oxendAddress, {
      required: ['hivemind', 'canary'],
      restart: ['hivemind', 'canary'],
      example: 'ipc:///var/lib/oxen/oxend.sock',
      text: `Where oxend listens for OxenMQ connections; required by the hivemind and the canary. curve:// addresses carry the public
        key: curve://HOST:PORT/KEY.`,
    }),
    /** ZeroMQ address to bind. */
    listen: parsed('listen', listenAddress, {
      default: 'ipc://./hivemind.sock',
      restart: ['hivemind', 'web', 'notifier', 'canary'],
      listens: 'hivemind',
      text: `Where notifiers and the "spns" commands connect: ipc://PATH, or tcp://HOST:PORT, where HOST is an address
        (IPv6 in brackets), *, a network interface or a host name. Whoever can connect here may do everything, so keep
        it to a local socket or an address that is not reachable from outside.`,
    }),
    /** ZeroMQ address to bind, of `push.*` alone. */
    listenPush: parsed('listen_push', listenAddress, {
      restart: ['hivemind', 'web'],
      listens: 'hivemind',
      example: 'ipc:///run/spns/push.sock',
      text: `Where the web front-end connects, with no right but to subscribe and unsubscribe: so it can run as another
        user, and whoever breaks into it gains nothing else. Without this key the front-end connects to listen.`,
    }),
    /** ZeroMQ address to bind. */
    listenCurve: parsed('listen_curve', curveAddress, {
      restart: ['hivemind'],
      listens: 'hivemind',
      example: 'tcp://0.0.0.0:22030',
      text: `An encrypted listener for remote administration, and the X25519 public keys that it admits (64 hex digits
        each, separated by blanks, commas or indented lines). Open its port in your firewall to those machines only.`,
    }),
    /** X25519 public keys of 32 bytes. */
    listenCurveAdmin: parsed('listen_curve_admin', publicKeys, {
      default: '',
      restart: ['hivemind'],
      example: ['0123456789abcdef'.repeat(4), 'fedcba9876543210'.repeat(4)],
    }),
    /** ZeroMQ address to bind, of `push.*` alone. */
    listenCurvePublic: parsed('listen_curve_public', curveAddress, {
      restart: ['web'],
      listens: 'web',
      example: 'tcp://0.0.0.0:22031',
      text: `An encrypted listener that admits anyone, but only to subscribe and unsubscribe. The web front-end opens it,
        with the key pair of onionreq: clients name its public key.`,
    }),
    /** Seconds. */
    subsInterval: integer('subs_interval', {
      default: 30,
      min: 1,
      restart: ['hivemind'],
      text: 'How often, in seconds, to check which subscriptions are due for renewal at the storage servers.',
    }),
    maxConnects: integer('max_connects', {
      default: 500,
      min: 0,
      restart: ['hivemind'],
      text: `How many connections to storage servers may be opening at the same time. 0: connect to none, for a dry
        run.`,
    }),
    allowPrivateNodes: boolean('allow_private_nodes', {
      default: false,
      restart: ['hivemind', 'canary'],
      text: `Whether to connect to storage servers at addresses of a private network or of this machine. Only for a
        network of your own: in the public one, anybody can register a node with any address.`,
    }),
    /** Seconds after which the duplicate filter begins a new generation. */
    filterLifetime: integer('filter_lifetime', {
      default: 600,
      min: 1,
      text: 'How long copies of a message are recognised, in seconds: at least this long, at most twice as long.',
    }),
    /** Seconds. */
    startupWait: number('startup_wait', {
      default: 10,
      min: 0,
      text: `Seconds to wait at start for the notifiers listed in notifiers_expected (separated by commas) before joining
        the network.`,
    }),
    notifiersExpected: list('notifiers_expected', { example: 'apns, firebase, huawei' }),
    /** Bytes of sealed pushes that are held for a service before the oldest are dropped. */
    outboxMaxBytes: integer('outbox_max_bytes', {
      default: 268_435_456,
      min: 65_536,
      text: `While a service has no notifier, or its notifiers cannot keep up, its pushes are held in memory: up to this
        many bytes, and each for this many seconds. A push takes about 1,000 bytes and its body, whether it waits or a
        notifier has it; those that notifiers have, or that are on their way there, may take a quarter more. When there
        is no room, the account with the most waiting pushes loses its oldest; among accounts with equally many, the
        oldest push of all is dropped. Every dropped push is counted. A service never takes more than an eighth of
        Node's heap (node --max-old-space-size).`,
    }),
    /** Seconds that a push is held before it is dropped. */
    outboxMaxAge: integer('outbox_max_age', { default: 3600, min: 1, max: 1_209_600 }),
    /** 0 to 1. */
    goneBreakerShare: number('gone_breaker_share', {
      default: 0.5,
      min: 0,
      max: 1,
      text: `When more than this share of a service's answers say "device gone", and at least this many do, no device is
        removed any more: the cause is probably a wrong certificate, not a thousand dead phones.`,
    }),
    goneBreakerMinimum: integer('gone_breaker_minimum', { default: 100, min: 1 }),
    /** The name of this hivemind among several on one database; undefined if it is alone. */
    instance: string('instance', {
      pattern: INSTANCE,
      what: INSTANCE_IN_WORDS,
      restart: ['hivemind'],
      example: 'a',
      text: `Several hiveminds can share a database, so that no push is lost when one of them fails (docs/several.md). Each
        has a name, given here or by the unit spns-hivemind@NAME.service. What differs between those of one machine goes
        into sections [hivemind-NAME], whose keys override the ones here.`,
    }),
    /** Hiveminds that hold each slot. */
    copies: integer('copies', {
      default: 2,
      min: 1,
      max: 8,
      restart: ['hivemind'],
      text: `With several hiveminds: how many of them handle each account. With 2, any one of them may fail without a
        loss; 1 only divides the work. Must be the same in all of them.`,
    }),
    /** OxenMQ address. */
    advertise: parsed('advertise', reachableAddress, {
      restart: ['hivemind'],
      example: `curve://hivemind-a.example.org:22030/${'0123456789abcdef'.repeat(4)}`,
      text: `With several hiveminds on different machines: where the other hiveminds and the notifiers reach this one (its
        listen_curve, with the public key of [keys] hivemind), and where the web front-ends do. Without these settings,
        listen and listen_push are used, which only this machine can reach.`,
    }),
    /** OxenMQ address. */
    advertisePush: parsed('advertise_push', reachableAddress, {
      restart: ['hivemind'],
      example: 'tcp://10.0.0.1:22032',
    }),
    /** `host:port` or `unix:/path`. */
    metricsListen: parsed('metrics_listen', checkedListen, {
      restart: ['hivemind'],
      listens: 'hivemind',
      example: '127.0.0.1:9180',
      text: `/metrics (Prometheus), /live, /ready and the status page: host:port or unix:/path. Off unless set. Keep it
        private.`,
    }),
  },
  obsolete: { quic_listen: 'it takes requests as onion requests, HTTPS and OxenMQ, not over QUIC' },
} satisfies Table;

/** `oxendRpc` is empty only for roles that do not need it. */
export type HivemindSettings = Values<typeof HIVEMIND.settings> & { readonly oxendRpc: string };

/**
 * @param section as hivemind-instances.ts opens it
 * @param instance the name under which this hivemind was started, which overrides the one in the file
 */
export function readHivemind(section: Section, role: Role, warnings: string[], instance?: string): HivemindSettings {
  const read = readTable(section, HIVEMIND, role);
  if (instance !== undefined && !INSTANCE.test(instance))
    section.problem('instance', `the name of an instance is ${INSTANCE_IN_WORDS}, and "${instance}" is not`);
  const settings = Object.freeze({
    ...read,
    oxendRpc: read.oxendRpc ?? '',
    ...((instance ?? read.instance) !== undefined && { instance: instance ?? read.instance }),
  });
  if (section.integer('omq_push_instances', { default: 0 }) > 0) {
    warnings.push(
      '[hivemind].omq_push_instances is no longer needed and is ignored: one instance keeps up with all notifications',
    );
  }
  const { listenCurve } = settings;
  if (section.problems.length === 0) {
    const { listen, listenCurvePublic, listenPush } = settings;
    const isAt = (one: string | undefined, ...others: readonly (string | undefined)[]) =>
      one !== undefined && others.some((other) => other !== undefined && placeOf(other) === placeOf(one));
    if (isAt(listenCurvePublic, listen, listenCurve, listenPush)) {
      section.problem('listen_curve_public', 'is the address of another listener: each needs a port of its own');
    }
    if (isAt(listenPush, listen, listenCurve)) {
      section.problem('listen_push', 'is the address of another listener: each needs one of its own');
    }
    if (isAt(listenCurve, listen)) {
      section.problem('listen_curve', 'is the same address as listen: each needs a port of its own');
    }
    const who = openTo(listen);
    if (who !== undefined)
      warnings.push(
        `[${section.name}].listen = ${listen}: ${who}, and would be an administrator: use a path in a folder of your own`,
      );
  }
  if (
    listenCurve !== undefined &&
    settings.listenCurveAdmin.length === 0 &&
    settings.instance === undefined &&
    section.problems.length === 0
  ) {
    warnings.push(
      '[hivemind].listen_curve admits nobody: name the public keys of its administrators in listen_curve_admin, or remove it; clients belong to listen_curve_public',
    );
  }
  if (settings.listenCurveAdmin.length > 0 && listenCurve === undefined && section.problems.length === 0) {
    warnings.push(
      '[hivemind].listen_curve_admin names keys, but there is no listen_curve for them to connect to: set it, or remove the keys',
    );
  }
  return settings;
}

/**
 * OxenMQ addresses at which this hivemind is reached: `address` by the other hiveminds and the notifiers, `pushAddress`
 * by web front-ends. Unless advertised they come from the listeners, and are only good on this machine.
 */
export function reachableAt(settings: HivemindSettings): { readonly address: string; readonly pushAddress: string } {
  const { listen, listenPush, advertise, advertisePush } = settings;
  return {
    address: advertise ?? onThisMachine(listen),
    // Front-ends may also subscribe at the administrators' socket.
    pushAddress: advertisePush ?? onThisMachine(listenPush ?? listen),
  };
}

/** The address for other processes of this machine, with an absolute path: they may have been started elsewhere. */
function onThisMachine(listen: string): string {
  const address = connectAddress(listen);
  const { path } = address;
  return formatAddress(path === undefined || path.startsWith('@') ? address : { ...address, path: resolve(path) });
}

function bindAddress(text: string, pattern: RegExp, protocols: string): string {
  if (!pattern.test(text)) throw new Error(`must be an address that starts with ${protocols}`);
  connectAddress(text);
  return text;
}

/** What tells two listeners apart, however their addresses are spelled. */
function placeOf(listen: string): string {
  return zmqAddress(connectAddress(listen));
}

/** Who else could connect, in words; undefined if only those who are meant to. */
function openTo(listen: string): string | undefined {
  const address = parseBindAddress(listen);
  if (address.protocol === 'ipc') {
    return address.path.startsWith('@') ? 'every user of this machine may connect to an abstract socket' : undefined;
  }
  return /^(127\.|::1$)/.test(address.host) ? undefined : 'whoever reaches this machine over the network may connect';
}

function curveAddress(text: string): string {
  return bindAddress(text, /^tcp:\/\/./, 'tcp://');
}

function listenAddress(text: string): string {
  return bindAddress(text, /^(tcp|ipc):\/\/./, 'tcp:// or ipc://');
}

function oxendAddress(text: string): string {
  if (oxenmqAddress(text).host === '*')
    throw new Error('must say where oxend is: * can be listened on, but not connected to');
  return text;
}

function reachableAddress(text: string): string {
  const { host } = oxenmqAddress(text);
  if (host === '*' || host === '0.0.0.0' || host === '[::]')
    throw new Error('must say where others reach this hivemind: that can be listened on, but not connected to');
  return text;
}

function oxenmqAddress(text: string): Address {
  const form = 'must be an OxenMQ address: ipc:///path, tcp://host:port or curve://host:port/key';
  if (!/^(tcp|ipc|curve):\/\/./.test(text)) throw new Error(form);
  try {
    return parseAddress(text);
  } catch (error) {
    throw new Error(`${form} (${(error as Error).message})`, { cause: error });
  }
}

/** Keys separated by blanks, as in the original, or by commas, as the original's example promises. */
function publicKeys(text: string): readonly Buffer[] {
  const keys = text
    .split(/[\s,]+/)
    .filter((word) => word !== '')
    .map((word) => {
      if (!/^[0-9a-f]{64}$/i.test(word))
        throw new Error('must be public keys of 64 hex digits each, separated by blanks');
      return Buffer.from(word, 'hex');
    });
  return Object.freeze(keys);
}
