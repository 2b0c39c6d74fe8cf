/**
 * The hiveminds of one cluster, its members, as seen by those who work with all of them: notifiers and web front-ends
 * are given the address of one or more, and learn of the others from any that answers.
 *
 * A member answers `admin.register_notifier` with `OK` and a second part, a {@link Members} with the addresses for
 * notifiers, and `push.hiveminds` (request) with one that has the addresses for web front-ends. A hivemind that is
 * alone answers without that part.
 */

import { BencodeError, encode } from '../codec/bencode.ts';
import { Fields } from './fields.ts';

/** A hivemind, and where it is reached. */
export interface Member {
  /** 1 to {@link MAX_NAME} of a-z, 0-9, - and _. */
  readonly name: string;
  /** OxenMQ address, at most {@link MAX_ADDRESS} bytes. */
  readonly address: string;
}

/** What a member reports of its cluster. */
export interface Members {
  /** The reporting member's own name: an address alone does not say who answers there. */
  readonly own: string;
  /** All members that it believes alive, itself included; at most {@link MAX_MEMBERS}. */
  readonly members: readonly Member[];
}

export const MAX_MEMBERS = 64;
const MAX_NAME = 64;
const MAX_ADDRESS = 512;
const NAME = /^[a-z0-9_-]+$/;

/** Writes a list of members, as one part. */
export function encodeMembers({ own, members }: Members): Buffer {
  return encode({ m: members.map(({ name, address }) => ({ a: address, n: name })), n: own });
}

/**
 * Reads what {@link encodeMembers} wrote. The addresses are not checked.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeMembers(data: Uint8Array): Members {
  const fields = Fields.decode('list of hiveminds', data);
  const list = fields.list('m');
  if (list.length > MAX_MEMBERS) throw new BencodeError(`Invalid list of hiveminds: ${list.length} of them`);
  const members = list.map((element) => {
    const member = new Fields('hivemind', element);
    return { name: nameIn(member), address: member.boundedText('a', MAX_ADDRESS) };
  });
  return { own: nameIn(fields), members };
}

/**
 * The members with each address in its canonical spelling, so that addresses can be compared. An address that cannot be
 * parsed becomes empty: the member lives, but cannot be reached.
 *
 * @param spell gives the canonical spelling of an address; throws if it is not one
 */
export function inOneSpelling(members: readonly Member[], spell: (address: string) => string): Member[] {
  return members.map(({ name, address }) => {
    try {
      return { name, address: spell(address) };
    } catch {
      return { name, address: '' };
    }
  });
}

/** A connection to a hivemind, or an attempt at one. */
export interface MemberLink {
  /** Where it leads, in its canonical spelling. */
  readonly address: string;
  /** Whether it is one of the addresses in the settings. */
  readonly isGiven: boolean;
  /**
   * `new` until the first answer or failure; `up` while it answers; `down` when it has stopped answering; `failed` when
   * it was given up. In every state attempts go on for as long as the link exists.
   */
  readonly state: 'new' | 'up' | 'down' | 'failed';
  /** Who answers there, or last did. Undefined: nobody yet, or a hivemind without a name. */
  readonly name: string | undefined;
  /** The members that it last reported, see {@link inOneSpelling}; none if it is alone. */
  readonly members: readonly Member[];
}

/** What to do so that there is one connection to every hivemind. */
export interface Plan<P extends MemberLink> {
  /** Addresses to connect to. */
  readonly open: readonly string[];
  readonly close: readonly P[];
  /** The members that are reported alive but do not answer us. */
  readonly missing: readonly Member[];
}

/**
 * Works out which connections there should be. Whoever answers is kept, whether or not others believe it alive: the
 * worst result of a wrong list is a connection that nobody needs.
 *
 * @param given the addresses in the settings
 */
export function planLinks<P extends MemberLink>(links: readonly P[], given: readonly string[]): Plan<P> {
  // Two addresses may lead to the same hivemind: the one in the settings is kept, such as a socket on this machine.
  const ranked = [...links.filter(({ isGiven }) => isGiven), ...links.filter(({ isGiven }) => !isGiven)];
  const reached = new Set<string>();
  const isSecond = new Set<P>();
  for (const link of ranked) {
    const { state, name } = link;
    if (state !== 'up' || name === undefined) continue;
    if (reached.has(name)) isSecond.add(link);
    reached.add(name);
  }
  const up = ranked.filter((link) => link.state === 'up' && !isSecond.has(link));
  const known = new Map<string, string>();
  // While nobody answers, the last reports are all that we have.
  for (const { members } of up.length > 0 ? up : links) {
    for (const { name, address } of members) if (!known.has(name)) known.set(name, address);
  }
  const listed = new Set(known.values());
  const isWanted = (link: P) => {
    const { isGiven, state, name, address } = link;
    if (isSecond.has(link)) return false;
    if (isGiven || state === 'up' || up.length === 0) return true;
    return name === undefined ? listed.has(address) : known.get(name) === address;
  };
  const kept = ranked.filter(isWanted);
  const addresses = new Set(kept.map(({ address }) => address));
  const open: string[] = [];
  const openOnce = (address: string) => {
    if (address === '' || addresses.has(address) || addresses.size >= MAX_MEMBERS) return;
    addresses.add(address);
    open.push(address);
  };
  // A given link that has not answered yet may be the very member that we would connect to a second time.
  if (!kept.some(({ isGiven, state }) => isGiven && state === 'new')) {
    for (const [name, address] of known) {
      if (!kept.some((link) => link.name === name && link.state !== 'failed')) openOnce(address);
    }
  }
  if (up.length === 0) given.forEach(openOnce);
  return {
    open,
    close: ranked.filter((link) => !isWanted(link)),
    missing: [...known].flatMap(([name, address]) => (reached.has(name) ? [] : [{ name, address }])),
  };
}

function nameIn(fields: Fields): string {
  const name = fields.boundedText('n', MAX_NAME);
  if (!NAME.test(name)) throw new BencodeError('Invalid name of a hivemind');
  return name;
}
