import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { Registry } from 'prom-client';
import { systemClock } from '../../src/clock.ts';
import { openSystemd } from '../../src/daemon/systemd.ts';
import { groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { MAX_SERVICE } from '../../src/hivemind/devices/device.ts';
import { FREE_ELEMENTS, MIN_ELEMENT_BYTES } from '../../src/hivemind/subscriptions/subscriptions.ts';
import { MAX_NAMESPACES } from '../../src/session/subscription.ts';
import { loadConfig } from '../../src/settings/config.ts';
import { VERSION } from '../../src/version.ts';
import { ONION_PATH } from '../../src/web/onion.ts';
import { ROUTES } from '../../src/web/subscriptions.ts';
import { startWeb } from '../../src/web/web.ts';
import { folder, keepLog } from '../notifiers/support.ts';
import { post } from '../support/http.ts';
import { subscribe, unsubscribe } from '../support/requests.ts';
import { startWorld } from '../support/session-world.ts';
import { until } from '../support/until.ts';

interface Schema {
  readonly type?: string;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly maxItems?: number;
  readonly maxLength?: number;
  readonly description?: string;
  readonly oneOf?: readonly Schema[];
}
interface Content {
  readonly content: Readonly<Record<string, { readonly schema: Schema }>>;
}
interface Operation {
  readonly requestBody: Content;
  readonly responses: Readonly<Record<string, Content | { readonly $ref: string }>>;
}
interface Document {
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<'Subscription' | 'Unsubscription', Schema>> };
}

const DOCUMENT = JSON.parse(readFileSync(join(import.meta.dirname, '../../docs/openapi.json'), 'utf8')) as Document;
const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema(DOCUMENT, 'openapi.json');

/** One element of a reply, of whichever kind. */
interface Reply {
  readonly success?: boolean;
  readonly added?: boolean;
  readonly updated?: boolean;
  readonly removed?: boolean;
  readonly error?: number;
  readonly message?: string;
}

/** A part of the document as a schema, by its JSON pointer. */
function schemaAt(...path: string[]): ValidateFunction {
  const pointer = path.map((part) => part.replaceAll('~', '~0').replaceAll('/', '~1')).join('/');
  return ajv.compile({ $ref: `openapi.json#/${pointer}` });
}

const requestSchema = (path: string) =>
  schemaAt('paths', path, 'post', 'requestBody', 'content', 'application/json', 'schema');

/** A front-end in front of a hivemind, whose one service takes every token. */
async function start(t: TestContext, rateLimit = 0) {
  const world = await startWorld(t);
  const dir = await folder(t);
  writeFileSync(join(dir, 'onionreq.key'), randomBytes(32), { mode: 0o600 });
  const ini = [
    `[keys]\nonionreq = ${dir}/onionreq.key`,
    `[hivemind]\nlisten = ${world.hivemind.address}`,
    `[web]\nlisten = unix:${dir}/web.sock\ntrust_proxy = loopback\nrate_limit = ${rateLimit}`,
  ];
  writeFileSync(join(dir, 'spns.ini'), ini.join('\n'));
  const web = await startWeb({
    name: 'web',
    config: loadConfig({ SPNS_CONFIG: join(dir, 'spns.ini') }, { role: 'web' }),
    clock: systemClock,
    registry: new Registry(),
    log: keepLog().log,
    random: randomBytes,
    systemd: openSystemd({}),
    stopping: new AbortController().signal,
    giveUp: (error) => assert.fail(error),
  });
  t.after(() => web.stop(1_000));
  await until(() => web.ready?.().ok === true);
  /** The reply, which has to be one that the document knows of that path. */
  const ask = async (path: keyof typeof ROUTES, body: unknown) => {
    const { status, headers, body: text } = await post({ socketPath: `${dir}/web.sock`, path }, JSON.stringify(body));
    const reply: unknown = JSON.parse(text);
    const response = DOCUMENT.paths[path]?.post?.responses[String(status)];
    assert.ok(response, `${path} is answered ${status}, of which the document does not know`);
    const place =
      '$ref' in response ? response.$ref.slice(2).split('/') : ['paths', path, 'post', 'responses', `${status}`];
    const known = schemaAt(...place, 'content', 'application/json', 'schema');
    assert.ok(known(reply), `${status} ${text}: ${ajv.errorsText(known.errors)}`);
    assert.equal(status !== 200, headers['retry-after'] !== undefined);
    // For an array an array, for anything else a single reply.
    return { status, replies: (Array.isArray(reply) ? reply : [reply]) as Reply[], isArray: Array.isArray(reply) };
  };
  return { ask, stopHivemind: () => world.hivemind.stop(), socketPath: `${dir}/web.sock` };
}

const without = (request: object, key: string) =>
  Object.fromEntries(Object.entries(request).filter(([k]) => k !== key));

test('paths, version and limits are those of the code', () => {
  assert.equal(DOCUMENT.info.version, VERSION);
  assert.deepEqual(Object.keys(DOCUMENT.paths), [...Object.keys(ROUTES), ONION_PATH]);
  for (const methods of Object.values(DOCUMENT.paths)) assert.deepEqual(Object.keys(methods), ['post']);
  const { Subscription, Unsubscription } = DOCUMENT.components.schemas;
  assert.equal(Subscription.properties?.namespaces?.maxItems, MAX_NAMESPACES);
  assert.equal(Unsubscription.properties?.service?.maxLength, MAX_SERVICE);
  for (const path of Object.keys(ROUTES)) {
    const [, many] = DOCUMENT.paths[path]?.post?.requestBody.content['application/json']?.schema.oneOf ?? [];
    assert.equal(
      many?.description,
      `At most ${FREE_ELEMENTS}, and one more for each ${MIN_ELEMENT_BYTES} bytes of the body.`,
    );
  }
});

test('what the document allows is accepted, and each answer is one of those that it has', async (t) => {
  const { ask } = await start(t);
  const [person, group] = [sessionAccount(randomBytes), groupAccount(randomBytes)];
  const member = groupMember(group, randomBytes);
  const [allowsSubscribe, allowsUnsubscribe] = [requestSchema('/subscribe'), requestSchema('/unsubscribe')];
  for (const account of [person, group, member]) {
    const request = JSON.parse(JSON.stringify(subscribe(account, 'token', { namespaces: [-10, 0, 2] })));
    assert.ok(allowsSubscribe(request), ajv.errorsText(allowsSubscribe.errors));
    const first = await ask('/subscribe', request);
    assert.deepEqual([first.isArray, first.replies[0]?.added], [false, true]);
    const again = await ask('/subscribe', [request, request]);
    assert.ok(again.isArray);
    assert.deepEqual(
      again.replies.map(({ updated }) => updated),
      [true, true],
    );
    const end = JSON.parse(JSON.stringify(unsubscribe(account, 'token')));
    assert.ok(allowsUnsubscribe(end), ajv.errorsText(allowsUnsubscribe.errors));
    assert.equal((await ask('/unsubscribe', end)).replies[0]?.removed, true);
    assert.equal((await ask('/unsubscribe', [end])).replies[0]?.removed, false);
  }
  // In base64, too, as Android sends it.
  const request = subscribe(person, 'another');
  const base64 = { ...request, enc_key: Buffer.from(request.enc_key, 'hex').toString('base64') };
  assert.ok(allowsSubscribe(base64));
  assert.equal((await ask('/subscribe', base64)).replies[0]?.success, true);
});

test('what the document requires is missed when absent, and the error names it', async (t) => {
  const { ask } = await start(t);
  const account = sessionAccount(randomBytes);
  const whole = { '/subscribe': subscribe(account, 'token'), '/unsubscribe': unsubscribe(account, 'token') } as const;
  const { Subscription, Unsubscription } = DOCUMENT.components.schemas;
  const required = [...(Unsubscription.required ?? []), 'session_ed25519'];
  assert.ok(required.length >= 6 && Subscription.required?.length === 3);
  for (const path of ['/subscribe', '/unsubscribe'] as const) {
    const allowed = requestSchema(path);
    for (const key of [...required, ...(path === '/subscribe' ? (Subscription.required ?? []) : [])]) {
      for (const wrong of [
        without(whole[path], key),
        { ...whole[path], [key]: key === 'service_info' ? undefined : {} },
      ]) {
        assert.ok(!allowed(wrong), `${path} without ${key} is allowed`);
        const { status, replies } = await ask(path, wrong);
        assert.deepEqual([status, replies[0]?.error], [200, 1], key);
        assert.match(replies[0]?.message ?? '', new RegExp(`'${key}'`));
      }
    }
  }
});

test('what the document forbids is refused', async (t) => {
  const { ask } = await start(t);
  const account = sessionAccount(randomBytes);
  const member = groupMember(groupAccount(randomBytes), randomBytes);
  const allowed = requestSchema('/subscribe');
  const many = Array.from({ length: MAX_NAMESPACES + 1 }, (_, index) => index);
  for (const [request, code] of [
    [subscribe(account, 'token', { namespaces: [] }), 4],
    [subscribe(account, 'token', { namespaces: [1, 1] }), 4],
    [subscribe(account, 'token', { namespaces: many }), 4],
    [{ ...subscribe(account, 'token'), enc_key: 'ab' }, 1],
    [{ ...subscribe(account, 'token'), data: 1 }, 1],
    [{ ...subscribe(account, 'token'), sig_ts: 0 }, 4],
    [{ ...subscribe(member, 'token'), subaccount_sig: undefined }, 4],
    ['a text', 1],
  ] as const) {
    const sent = JSON.parse(JSON.stringify(request));
    assert.ok(!allowed(sent), JSON.stringify(sent));
    assert.equal((await ask('/subscribe', request)).replies[0]?.error, code, JSON.stringify(sent));
  }
  // A service that nobody runs here is no fault of the form.
  const unknown = { ...subscribe(account, 'token'), service: 'nobody' };
  assert.ok(allowed(unknown));
  assert.equal((await ask('/subscribe', unknown)).replies[0]?.error, 2);
});

test('the statuses of the front-end itself are those that the document has', async (t) => {
  const { ask, socketPath } = await start(t, 1);
  const request = subscribe(sessionAccount(randomBytes), 'token');
  assert.equal((await ask('/subscribe', request)).status, 200);
  const second = await ask('/subscribe', request);
  assert.deepEqual([second.status, second.replies[0]?.error], [429, 2]);
  const { status, headers } = await post({ socketPath, path: ONION_PATH }, 'no onion');
  const known = DOCUMENT.paths[ONION_PATH]?.post?.responses[String(status)];
  assert.ok(status === 400 && known && 'content' in known);
  assert.ok(Object.hasOwn(known.content, String(headers['content-type']).replace(/;.*/, '')), headers['content-type']);
});

test('while the hivemind is away, clients are answered as the document has it', async (t) => {
  const { ask, stopHivemind } = await start(t);
  await stopHivemind();
  const { status, replies } = await ask('/subscribe', [subscribe(sessionAccount(randomBytes), 'token')]);
  assert.deepEqual([status, replies[0]?.error], [503, 3]);
});
