import type { Clock } from '../../clock.ts';
import { ACCOUNT_SIZE } from '../../session/account.ts';
import { RequestError } from '../../session/request.ts';
import { Doubt } from '../notifications/doubt.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
import { validateDevice } from '../subscriptions/validate.ts';

/** What {@link testPush} works with. */
export interface TestPushModules {
  clock: Clock;
  random: (bytes: number) => Buffer;
  outbox: Outbox;
}

const LIFETIME_MS = 60_000;

/**
 * Sends a real push to a device for an operator: through the notifier to the provider, whose answer comes back. It is
 * sealed with a key that nobody has, so the phone shows its generic notification.
 * @param serviceInfo what a client would send, e.g. `{token: "…"}`
 * @param wait how long to wait for the provider's answer, in ms
 * @returns whether the provider accepted it, and what it, or whatever stopped the push on its way, answered
 */
export async function testPush(
  service: string,
  serviceInfo: unknown,
  modules: TestPushModules,
  wait = 30_000,
): Promise<{ ok: boolean; answer: string }> {
  const { clock, random, outbox } = modules;
  const instance = outbox.validator(service);
  let device: Awaited<ReturnType<typeof validateDevice>>;
  try {
    device = await validateDevice(service, instance?.remote, serviceInfo);
  } catch (error) {
    if (error instanceof RequestError) return { ok: false, answer: error.message };
    throw error;
  }
  return new Promise((resolve) => {
    const timer = clock.setTimeout(() => resolve({ ok: false, answer: `no answer in ${wait / 1000} s` }), wait);
    const now = clock.now();
    const message = {
      account: Buffer.concat([Buffer.from([0x05]), random(ACCOUNT_SIZE - 1)]),
      hash: Buffer.from(random(32).toString('base64').slice(0, 43)),
      namespace: 0,
      timestamp: now,
      expiry: now + LIFETIME_MS,
      data: Buffer.from('SPNS test push'),
    };
    outbox.add(message, [{ service, ...device, encKey: random(32), wantData: true }], Doubt.none, (answer) => {
      timer.cancel();
      resolve({ ok: answer.startsWith('accepted'), answer });
    });
    if (instance && !instance.acknowledges) {
      timer.cancel();
      resolve({
        ok: true,
        answer: "handed over; a notifier of the original's kind does not tell the provider's answer",
      });
    }
  });
}
