import type { Account } from '../../src/devnet/account.ts';
import { monitorMessage, unsubscribeMessage } from '../../src/session/subscription.ts';

/** The time now, unix seconds. */
export const seconds = () => Math.floor(Date.now() / 1000);

/** A subscribe request as a client signs it. */
export function subscribe(
  account: Account,
  token: string,
  options: { key?: Buffer; at?: number; namespaces?: number[] } = {},
) {
  const { key = Buffer.alloc(32, 9), at = seconds(), namespaces = [0] } = options;
  const signature = account.sign(
    monitorMessage({
      ...account,
      account: account.id,
      namespaces,
      wantData: true,
      signedAt: at,
      signature: Buffer.alloc(0),
    }),
  );
  return {
    ...identity(account),
    namespaces,
    data: true,
    sig_ts: at,
    signature: signature.toString('base64'),
    service: 'test',
    service_info: { token },
    enc_key: key.toString('hex'),
  };
}

export function unsubscribe(account: Account, token: string, at = seconds()) {
  const signature = account.sign(unsubscribeMessage(account.id, at));
  return {
    ...identity(account),
    sig_ts: at,
    signature: signature.toString('base64'),
    service: 'test',
    service_info: { token },
  };
}

function identity(account: Account) {
  return {
    pubkey: account.id.toString('hex'),
    session_ed25519: account.sessionEd25519?.toString('hex'),
    subaccount: account.subaccount?.tag.toString('hex'),
    subaccount_sig: account.subaccount?.signature.toString('hex'),
  };
}
