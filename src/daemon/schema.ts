import { isIP } from 'node:net';
import { parseAddress, zmqAddress } from '../oxenmq/address.ts';
import { connectAddress, parseBindAddress } from '../oxenmq/bind-address.ts';
import { readKeyFile } from './key-file.ts';
import { parseListen } from './listen.ts';
import { nearest } from './nearest.ts';
import type { Section } from './section.ts';

/** Whose configuration is asked for: each role requires only what it needs, but what is there is checked for all. */
export type Role = 'hivemind' | 'web' | 'notifier' | 'all';

/** The original's level names (docs/spec/hivemind.md, section 5). */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warning' | 'error' | 'critical' | 'none';

/** `auto`: for journald under systemd, coloured on a terminal, else plain lines with the time. */
export type LogFormat = 'auto' | 'plain' | 'json';

export interface LogSettings {
  readonly level: LogLevel;
  /** Levels of single categories, by lower-case name. */
  readonly levels: ReadonlyMap<string, LogLevel>;
  readonly format: LogFormat;
}

export interface HivemindSettings {
  /** Seconds between two looks at what is to be submitted anew. */
  readonly subsInterval: number;
  /** Connections to storage servers that may be in the making at a time; 0: none is made at all, a dry run. */
  readonly maxConnects: number;
  /** Whether storage servers may have addresses of a private network, or of this machine. */
  readonly allowPrivateNodes: boolean;
  /** Seconds after which the duplicate filter begins a new generation. */
  readonly filterLifetime: number;
  /** Seconds to wait at start for the expected notifiers. */
  readonly startupWait: number;
  readonly notifiersExpected: readonly string[];
  /** ZeroMQ address to bind; everybody who can connect to it is admin. */
  readonly listen: string;
  /** ZeroMQ address of the CURVE listener for the keys in `listenCurveAdmin`. */
  readonly listenCurve: string | undefined;
  /** ZeroMQ address for the web front-end, of `push.*` alone; without it, it connects to `listen`. */
  readonly listenPush: string | undefined;
  /** ZeroMQ address of the CURVE listener that admits anyone, to `push.*` alone; the web front-end has it. */
  readonly listenCurvePublic: string | undefined;
  /** X25519 public keys of 32 bytes. */
  readonly listenCurveAdmin: readonly Buffer[];
  /** OxenMQ address of oxend; empty only for roles that do not need it. */
  readonly oxendRpc: string;
  /** Bytes of sealed pushes that are held for a service before the oldest are dropped. */
  readonly outboxMaxBytes: number;
  /** Seconds that a push is held before it is dropped. */
  readonly outboxMaxAge: number;
  /** Share of a service's answers, 0 to 1, above which "device gone" is not believed. */
  readonly goneBreakerShare: number;
  /** The breaker judges no fewer answers than this. */
  readonly goneBreakerMinimum: number;
  /** `host:port` or `unix:/path`. */
  readonly metricsListen: string | undefined;
}

export interface WebSettings {
  /** `host:port` or `unix:/path`. */
  readonly listen: string;
  /** Longest request body, in bytes. */
  readonly bodyLimit: number;
  /** Whose `X-Forwarded-For` is believed: nobody's, everybody's, or that of these addresses and networks, separated by commas. */
  readonly trustProxy: boolean | string;
  /** Plain (not onion) requests a minute from one client address; 0: no limit. */
  readonly rateLimit: number;
  /** Requests that may wait for the hivemind at a time, large ones counted as several; further ones are told to come again later. */
  readonly inFlightLimit: number;
  /** `host:port` or `unix:/path`. */
  readonly metricsListen: string | undefined;
}

/** X25519 secret keys of 32 bytes. */
export interface Keys {
  /** Throws an Error in a daemon whose role does not load it: the web front-end has no business with it. */
  readonly hivemind: Buffer;
  /** Loaded by the web front-end only. */
  readonly onionreq?: Buffer;
}

const LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warning', 'error', 'critical', 'none'];
/** The original's reader takes these, too. */
const LEVEL_ALIASES: ReadonlyMap<string, LogLevel> = new Map([
  ['warn', 'warning'],
  ['err', 'error'],
  ['crit', 'critical'],
  ['off', 'none'],
]);
/** Categories whose near misses are called misspelt; others are taken as they come, for every part may have its own. */
const CATEGORIES = ['hivemind', 'snode', 'oxenmq', 'stats', 'pg', 'utils', 'web', 'notifier'];

export function readDatabase(section: Section) {
  return Object.freeze({
    url: section.string('url', {
      default: 'postgresql:///spns',
      pattern: /^postgres(ql)?:/,
      what: 'a PostgreSQL address that starts with postgresql://, such as postgresql:///spns',
    }),
  });
}

export function readHivemind(section: Section, role: Role, warnings: string[]): HivemindSettings {
  const settings = {
    subsInterval: section.integer('subs_interval', { default: 30, min: 1 }),
    maxConnects: section.integer('max_connects', { default: 500, min: 0 }),
    allowPrivateNodes: section.boolean('allow_private_nodes', { default: false }),
    filterLifetime: section.integer('filter_lifetime', { default: 600, min: 1 }),
    startupWait: section.number('startup_wait', { default: 10, min: 0 }),
    notifiersExpected: Object.freeze(section.list('notifiers_expected')),
    listen: section.parsed('listen', pushAddress, {
      default: 'ipc://./hivemind.sock',
    }),
    listenCurve: section.parsed('listen_curve', curveAddress),
    listenPush: section.parsed('listen_push', pushAddress),
    listenCurvePublic: section.parsed('listen_curve_public', curveAddress),
    listenCurveAdmin: Object.freeze(section.parsed('listen_curve_admin', publicKeys, { default: [] })),
    oxendRpc:
      section.parsed('oxend_rpc', oxendAddress, { required: role === 'hivemind' || role === 'all', default: '' }) ?? '',
    outboxMaxBytes: section.integer('outbox_max_bytes', { default: 256 * 1024 * 1024, min: 64 * 1024 }),
    outboxMaxAge: section.integer('outbox_max_age', { default: 3600, min: 1, max: 1_209_600 }),
    goneBreakerShare: section.number('gone_breaker_share', { default: 0.5, min: 0, max: 1 }),
    goneBreakerMinimum: section.integer('gone_breaker_minimum', { default: 100, min: 1 }),
    metricsListen: section.parsed('metrics_listen', checkedListen),
  };
  section.obsolete('quic_listen', 'it takes requests as onion requests, HTTPS and OxenMQ, not by QUIC');
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
        `[hivemind].listen = ${listen}: ${who}, and would be an administrator: use a path in a folder of your own`,
      );
  }
  if (listenCurve !== undefined && settings.listenCurveAdmin.length === 0 && section.problems.length === 0) {
    warnings.push(
      '[hivemind].listen_curve admits nobody: name the public keys of its administrators in listen_curve_admin, or remove it; clients belong to listen_curve_public',
    );
  }
  if (settings.listenCurveAdmin.length > 0 && listenCurve === undefined && section.problems.length === 0) {
    warnings.push(
      '[hivemind].listen_curve_admin names keys, but there is no listen_curve for them to connect to: set it, or remove the keys',
    );
  }
  return Object.freeze(settings);
}

export function readWeb(section: Section, warnings: string[]): WebSettings {
  const settings = {
    listen: section.parsed('listen', checkedListen, { default: '127.0.0.1:8000' }),
    bodyLimit: section.integer('body_limit', { default: 100_000, min: 1024, max: 16 * 1024 * 1024 }),
    trustProxy: section.parsed('trust_proxy', trustProxy, { default: false }),
    rateLimit: section.integer('rate_limit', { default: 0, min: 0 }),
    inFlightLimit: section.integer('in_flight_limit', { default: 500, min: 1 }),
    metricsListen: section.parsed('metrics_listen', checkedListen),
  };
  if (section.problems.length === 0) warnings.push(...proxyWarnings(settings));
  return Object.freeze(settings);
}

/** What does not go together with where the front-end listens. */
function proxyWarnings({ listen, trustProxy, rateLimit }: WebSettings): string[] {
  const address = parseListen(listen);
  const local = 'path' in address || /^(127\.|::1$|localhost$)/.test(address.host);
  if (rateLimit > 0 && trustProxy === false && local) {
    const effect = 'path' in address ? 'has no effect' : 'counts all clients as one';
    return [
      `[web].rate_limit ${effect}: with listen = ${listen} clients come through a proxy, and are told apart only if [web].trust_proxy believes it`,
    ];
  }
  if (trustProxy === true && !local) {
    return [
      `[web].trust_proxy = yes believes everybody who can connect to ${listen} about his address: name your proxies instead, unless nobody else can`,
    ];
  }
  return [];
}

export function readLog(section: Section, warnings: string[]): LogSettings {
  const { level, levels } = section.parsed('level', compoundLevel, { default: compoundLevel('') });
  const format = section.parsed<LogFormat>('format', logFormat, { default: 'auto' });
  const single = section.startingWith('level-').map(([category]) => category);
  for (const category of single) {
    const value = section.parsed(`level-${category}`, logLevel);
    if (value !== undefined) levels.set(category, value);
  }
  for (const category of levels.keys()) {
    const near = nearest(category, CATEGORIES);
    if (near !== undefined && near !== category) {
      const [here, there] = single.includes(category)
        ? [`level-${category}`, `level-${near}`]
        : [`level = ${category}=…`, near];
      warnings.push(`[log].${here} names a category that there may not be: did you mean ${there}?`);
    }
  }
  return Object.freeze({ level, levels, format });
}

/**
 * Reads the key files that the role needs. A notifier derives its own key from the hivemind's (docs/spec/notifiers.md,
 * section 1).
 */
export function readKeys(section: Section, role: Role, warnings: string[]): Keys {
  const read = (name: string, needed: boolean): Buffer | undefined => {
    const path = section.path(name, { required: needed });
    if (!needed || !path) return undefined;
    try {
      const { key, exposed } = readKeyFile(path);
      if (exposed) warnings.push(`[keys].${name}: every user of this machine may read or change ${path}: chmod 600 it`);
      return key;
    } catch (error) {
      section.problem(name, (error as Error).message);
      return undefined;
    }
  };
  section.obsolete('quic', 'it does not speak QUIC');
  const hivemind = read('hivemind', role !== 'web');
  const onionreq = read('onionreq', role === 'web' || role === 'all');
  return Object.freeze({
    get hivemind(): Buffer {
      if (!hivemind) throw new Error(`the hivemind's key is not loaded for the role "${role}"`);
      return hivemind;
    },
    ...(onionreq && { onionreq }),
  });
}

/** Checks an address for {@link parseListen}, and keeps the text. */
export function checkedListen(text: string): string {
  parseListen(text);
  return text;
}

function bindAddress(text: string, pattern: RegExp, protocols: string): string {
  if (!pattern.test(text)) throw new Error(`must be an address that starts with ${protocols}`);
  connectAddress(text);
  return text;
}

/** The same for all spellings of what is reached in the same place. */
function placeOf(listen: string): string {
  return zmqAddress(connectAddress(listen));
}

/** Who could connect beside those who are meant; undefined where that is usual. */
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

function pushAddress(text: string): string {
  return bindAddress(text, /^(tcp|ipc):\/\/./, 'tcp:// or ipc://');
}

function oxendAddress(text: string): string {
  const form = 'must be an OxenMQ address: ipc:///path, tcp://host:port or curve://host:port/key';
  if (!/^(tcp|ipc|curve):\/\/./.test(text)) throw new Error(form);
  let address: ReturnType<typeof parseAddress>;
  try {
    address = parseAddress(text);
  } catch (error) {
    throw new Error(`${form} (${(error as Error).message})`, { cause: error });
  }
  if (address.host === '*') throw new Error('must say where oxend is: to * one listens, and cannot connect');
  return text;
}

/** Keys separated by blanks, as in the original, or by commas, as the original's example promises. */
function publicKeys(text: string): readonly Buffer[] {
  return text
    .split(/[\s,]+/)
    .filter((word) => word !== '')
    .map((word) => {
      if (!/^[0-9a-f]{64}$/i.test(word))
        throw new Error('must be public keys of 64 hex digits each, separated by blanks');
      return Buffer.from(word, 'hex');
    });
}

function trustProxy(text: string): boolean | string {
  if (/^(no|false|off|0)$/i.test(text)) return false;
  if (/^(yes|true|on|1)$/i.test(text)) return true;
  const words = text.split(/[\s,]+/).filter((word) => word !== '');
  for (const word of words) {
    if (!/^(loopback|linklocal|uniquelocal)$/.test(word) && !isNetwork(word)) {
      throw new Error(
        'must be yes, no, or the addresses or networks of your proxies, such as 127.0.0.1, 10.0.0.0/8 or loopback',
      );
    }
  }
  return words.join(',');
}

function isNetwork(text: string): boolean {
  const [address, bits, ...rest] = text.split('/');
  const version = isIP(address!);
  if (version === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

function logLevel(text: string): LogLevel {
  const word = text.toLowerCase();
  const level = LEVEL_ALIASES.get(word) ?? LEVELS.find((known) => known === word);
  if (!level) throw new Error(`must be one of ${LEVELS.join(', ')}`);
  return level;
}

/**
 * `info`, or the original's `info, snode=debug, *=warning` (docs/spec/upstream.md, section 2.4); of several, the last
 * counts.
 */
function compoundLevel(text: string): { level: LogLevel; levels: Map<string, LogLevel> } {
  const levels = new Map<string, LogLevel>();
  let level: LogLevel = 'info';
  for (const word of text.split(/[\s,;]+/).filter((part) => part !== '')) {
    const [category, value] = word.includes('=') ? word.split('=', 2) : ['*', word];
    if (category === '') throw new Error('must name a category in front of each =, as in: info, snode=debug');
    if (category === '*') level = logLevel(value!);
    else levels.set(category!.toLowerCase(), logLevel(value!));
  }
  return { level, levels };
}

function logFormat(text: string): LogFormat {
  if (text !== 'auto' && text !== 'plain' && text !== 'json') throw new Error('must be auto, plain or json');
  return text;
}
