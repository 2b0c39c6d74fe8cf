import { setTimeout as sleep } from 'node:timers/promises';
import { type Account, groupAccount, groupMember, type Random, sessionAccount } from './account.ts';
import type { Carrier } from './carriers.ts';
import type { Network } from './network.ts';
import { createPhone, type FrontEnd, type Phone } from './phone.ts';

/** Somebody to write to, or a group. */
export interface Person {
  readonly name: string;
  readonly account: Account;
  /** The phones that must wake. */
  readonly phones: readonly Phone[];
}

/** How long a phone tries to subscribe, and the swarm may take to watch it, ms. */
const PATIENCE = 45_000;

/** Namespaces in which somebody writes to a person, and to a group. */
const PERSON_NAMESPACE = 0;
const GROUP_NAMESPACE = 11;

/** The namespace in which messages are written to that account. */
export function namespaceOf(account: Account): number {
  return account.id[0] === 5 ? PERSON_NAMESPACE : GROUP_NAMESPACE;
}

/** Session accounts, one of them with two devices, and a group account through a subaccount. */
export function makePeople(modules: {
  carriers: readonly Carrier[];
  devices: Map<string, Phone>;
  random: Random;
  now: () => number;
}): Person[] {
  const { carriers, devices, random, now } = modules;
  const phone = (name: string, service: string, account: Account): Phone => {
    const carrier = carriers.find((one) => one.service === service);
    if (!carrier) throw new Error(`there is no provider for ${service}`);
    const { token, serviceInfo } = carrier.register(random);
    const platform = service.startsWith('apns') ? 'ios' : 'android';
    const made = createPhone({ name, platform, service, serviceInfo, accounts: [account], random, now });
    devices.set(`${service} ${token}`, made);
    return made;
  };
  const ada = sessionAccount(random);
  const bo = sessionAccount(random);
  const dee = sessionAccount(random);
  const member = groupMember(groupAccount(random), random);
  return [
    { name: 'Ada', account: ada, phones: [phone("Ada's iPhone", 'apns', ada)] },
    {
      name: 'Bo',
      account: bo,
      phones: [phone("Bo's Android phone", 'firebase', bo), phone("Bo's iPad", 'apns', bo)],
    },
    { name: 'Dee', account: dee, phones: [phone("Dee's phone without Google", 'webpush', dee)] },
    { name: 'the hiking group', account: member, phones: [phone("Cem's Huawei phone", 'huawei', member)] },
  ];
}

/** Subscribes, and retries what is reported as temporary. */
export async function subscribe(phone: Phone, frontEnd: FrontEnd, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  for (;;) {
    const reply = await phone.subscribe(frontEnd);
    const elements = Array.isArray(reply.body) ? reply.body : [reply.body];
    if (reply.code === 200 && elements.every((element) => element?.success === true)) return;
    // As the apps do: what is reported as temporary is retried.
    if (reply.code !== 503 || performance.now() > deadline) {
      throw new Error(`${phone.name} could not subscribe: ${reply.code} ${JSON.stringify(reply.body)}`);
    }
    await sleep(500, undefined, { signal });
  }
}

/** Unsubscribes them. Whether it succeeds does not matter: something may have died. */
export async function unsubscribe(phones: readonly Phone[], frontEnd: FrontEnd): Promise<void> {
  await Promise.allSettled(phones.map((phone) => phone.unsubscribe(frontEnd)));
}

/** Waits until every storage server of its swarm has been asked to watch that person's account. */
export async function untilWatched(
  network: Network,
  name: string,
  account: Account,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  const members = network.membersFor(account.id);
  const namespace = namespaceOf(account);
  for (;;) {
    const watching = members.filter((server) => server.watches(account.id, namespace)).length;
    if (watching === members.length) return;
    if (performance.now() > deadline) {
      throw new Error(`only ${watching} of ${members.length} storage servers were asked to watch ${name}`);
    }
    await sleep(20, undefined, { signal });
  }
}
