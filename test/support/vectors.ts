import { readFileSync } from 'node:fs';

/**
 * Reads a file of test/vectors, which its own note describes. The type is the caller's claim; a wrong one makes the
 * test fail.
 */
export function vectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8')) as T;
}

/** notifier-push.json: what the original pushed for which message, to which of its subscriptions. */
export interface PushVectors {
  readonly subscriptions: readonly {
    readonly account: string;
    readonly service: string;
    readonly svcid: string;
    readonly want_data: boolean;
    readonly enc_key: string;
    readonly namespaces: number[];
    readonly svcdata_hex: string | null;
  }[];
  readonly cases: readonly {
    readonly name: string;
    readonly notify_message_hex: string | null;
    readonly pushes: readonly {
      readonly to: string;
      readonly part_hex: string | null;
      readonly part_sha256?: string;
    }[];
  }[];
  readonly filter: readonly {
    readonly service: string;
    readonly svcid: string;
    readonly hash: string;
    readonly hex: string;
  }[];
}
