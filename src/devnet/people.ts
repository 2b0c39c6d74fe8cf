import { setTimeout as sleep } from 'node:timers/promises';
import { type Account, groupAccount, groupMember, type Random, sessionAccount } from './account.ts';
import type { Network } from './network.ts';
import { createPhone, type FrontEnd, type Phone } from './phone.ts';
import type { Provider } from './providers.ts';

/** Somebody to write to, or a group. */
export interface Person {
  readonly name: string;
  readonly account: Account;
  /** The phones that must wake. */
  readonly phones: readonly Phone[];
}

/** How long a phone may try to subscribe, and how long its swarm may take to monitor it; ms. */
const PATIENCE = 60_000;

/** The namespaces of messages to a person and to a group. */
const PERSON_NAMESPACE = 0;
const GROUP_NAMESPACE = 11;

/** The namespace in which messages are written to that account. */
export function namespaceOf(account: Account): number {
  return account.id[0] === 5 ? PERSON_NAMESPACE : GROUP_NAMESPACE;
}

/**
 * Makes session accounts, one of them with two devices, and a group account that is subscribed through a subaccount.
 *
 * @param modules.devices gets each phone by its service and token
 */
export function makePeople(modules: {
  providers: readonly Provider[];
  devices: Map<string, Phone>;
  random: Random;
  now: () => number;
}): Person[] {
  const { providers, devices, random, now } = modules;
  const phone = (name: string, service: string, account: Account): Phone => {
    const provider = providers.find((one) => one.service === service);
    if (!provider) throw new Error(`there is no provider for ${service}`);
    const { token, serviceInfo } = provider.register(random);
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

/** Subscribes a phone, and retries temporary errors. @throws Error if it does not succeed in time */
export async function subscribe(phone: Phone, frontEnd: FrontEnd, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  for (;;) {
    const reply = await phone.subscribe(frontEnd);
    const elements = Array.isArray(reply.body) ? reply.body : [reply.body];
    if (reply.code === 200 && elements.every((element) => element?.success === true)) return;
    // As the apps do.
    if (reply.code !== 503 || performance.now() > deadline) {
      throw new Error(`${phone.name} could not subscribe: ${reply.code} ${JSON.stringify(reply.body)}`);
    }
    await sleep(500, undefined, { signal });
  }
}

/** Unsubscribes phones. Failures are ignored: some daemon may be dead. */
export async function unsubscribe(phones: readonly Phone[], frontEnd: FrontEnd): Promise<void> {
  await Promise.allSettled(phones.map((phone) => phone.unsubscribe(frontEnd)));
}

/**
 * Waits until every storage server of a person's swarm monitors the account, and where there are several hiveminds, one
 * of the servers for a second as well: so two hear each message.
 *
 * @throws Error if that takes too long
 */
export async function untilWatched(
  network: Network,
  { name, account }: Pick<Person, 'name' | 'account'>,
  { hiveminds, signal }: { hiveminds: number; signal: AbortSignal },
): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  const members = network.membersFor(account.id);
  const namespace = namespaceOf(account);
  for (;;) {
    const monitors = members.map((server) => server.monitorsOf(account.id, namespace));
    const monitoring = monitors.filter((count) => count > 0).length;
    const isHeardByTwo = monitors.some((count) => count > 1);
    if (monitoring === members.length && (isHeardByTwo || hiveminds === 1)) return;
    if (performance.now() > deadline) {
      throw new Error(
        monitoring < members.length
          ? `only ${monitoring} of ${members.length} storage servers monitor ${name}`
          : `only one hivemind asks for the messages of ${name}`,
      );
    }
    await sleep(20, undefined, { signal });
  }
}
