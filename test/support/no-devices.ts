import type { SubscriptionModules } from '../../src/hivemind/subscriptions/subscriptions.ts';

/** The memory of a hivemind that never has a subscription, and room for every one. */
export const NO_DEVICES: SubscriptionModules['devices'] = {
  replace: () => undefined,
  remove: () => true,
  get: () => undefined,
  hasRoom: () => true,
  hasSessionKey: () => false,
};
