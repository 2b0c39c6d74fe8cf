import { encode } from '../codec/bencode.ts';
import { blake2b } from '../session/sodium.ts';
import { accepted, type Backend, type BackendContext, Refusal } from './runtime/backend.ts';

const ID_BYTES = 48;

/**
 * A notifier without a provider, for tests and first steps: it logs each push. Its service_infos are `{"foo": "TEST-…",
 * "bar": INTEGER}`, as those of the original's example.
 */
export function create({ section, log }: BackendContext): Backend {
  section.check();
  return {
    validate(info) {
      const { foo, bar } = requireKeys(info);
      if (typeof foo !== 'string' || !foo.startsWith('TEST-')) {
        throw new Refusal(4, 'Invalid input: foo must start with TEST-');
      }
      if (typeof bar !== 'bigint' && !Number.isSafeInteger(bar)) {
        throw new Refusal(4, 'Invalid input: bar must be an integer');
      }
      const number = bar as number | bigint;
      const id = blake2b(ID_BYTES, Buffer.from(`${number}_${foo}`), Buffer.from('TestNotifier'));
      return { id: Buffer.from(id).toString('hex'), data: encode({ bar: number, foo }) };
    },
    async send(pushes) {
      for (const { payload, id } of pushes) {
        log.info(`push of ${payload.length} bytes for device ${id.slice(0, 8)}…`);
      }
      return pushes.map(() => accepted);
    },
    batch: 100,
  };
}

function requireKeys(info: unknown): { foo: unknown; bar: unknown } {
  if (typeof info !== 'object' || info === null || Array.isArray(info)) {
    throw new Refusal(4, 'Invalid service_info: expected an object');
  }
  for (const key of ['foo', 'bar']) {
    if (!Object.hasOwn(info, key)) throw new Refusal(1, `Error: missing required service_info key '${key}'`);
  }
  return info as { foo: unknown; bar: unknown };
}
