import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const PROGRAM = '/usr/bin/chromium';
/** What a loaded machine may take for one step of the browser, ms. */
const PATIENCE = 60_000;

/** Why there is no browser to test with, or false. */
export const noChromium = !existsSync(PROGRAM) && `${PROGRAM} (Debian's package chromium) is not installed here`;

/** A page in a headless Chromium, through the DevTools protocol. */
export interface Page {
  /** Calls a method of the protocol. */
  call(method: string, params?: object): Promise<Record<string, unknown>>;
  /** The value of a JavaScript expression, awaited. */
  evaluate<T>(expression: string): Promise<T>;
  /** Evaluates again and again until the expression is true. */
  until(expression: string): Promise<void>;
  /** Every URL that the page asked for, and every error that it had. */
  readonly requests: string[];
  readonly errors: string[];
}

export interface Chromium {
  open(url: string): Promise<Page>;
  close(): Promise<void>;
}

interface Message {
  id?: number;
  sessionId?: string;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** Starts Chromium with a profile of its own, and talks to it through a pipe: no port, nothing for others to find. */
export async function startChromium(): Promise<Chromium> {
  const profile = await mkdtemp(join(tmpdir(), 'spns-chromium-'));
  const child: ChildProcess = spawn(
    PROGRAM,
    [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--user-data-dir=${profile}`,
      '--remote-debugging-pipe',
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
  );
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const input = child.stdio[3] as Writable;
  const output = child.stdio[4] as Readable;
  input.on('error', () => {});

  const waiting = new Map<number, { resolve(value: Record<string, unknown>): void; reject(error: Error): void }>();
  const listeners = new Map<string, (message: Message) => void>();
  let received = '';
  output.setEncoding('utf8').on('data', (text: string) => {
    received += text;
    const messages = received.split('\0');
    received = messages.pop()!;
    for (const each of messages) {
      const message = JSON.parse(each) as Message;
      const call = message.id === undefined ? undefined : waiting.get(message.id);
      if (message.id !== undefined) waiting.delete(message.id);
      if (call && message.error) call.reject(new Error(message.error.message));
      else if (call) call.resolve(message.result ?? {});
      else if (message.sessionId) listeners.get(message.sessionId)?.(message);
    }
  });
  void ended.then(() => {
    for (const { reject } of waiting.values()) reject(new Error('chromium ended'));
  });

  let calls = 0;
  const call = (method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> => {
    const id = ++calls;
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      input.write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    });
  };

  return {
    async open(url) {
      const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
      const { sessionId } = (await call('Target.attachToTarget', { targetId, flatten: true })) as { sessionId: string };
      const requests: string[] = [];
      const errors: string[] = [];
      listeners.set(sessionId, ({ method, params }) => {
        if (method === 'Network.requestWillBeSent') requests.push((params!.request as { url: string }).url);
        if (method === 'Runtime.exceptionThrown') errors.push(JSON.stringify(params));
        if (method === 'Log.entryAdded') errors.push(JSON.stringify(params));
      });
      const page: Page = {
        requests,
        errors,
        call: (method, params) => call(method, params, sessionId),
        async evaluate<T>(expression: string) {
          const answer = await call(
            'Runtime.evaluate',
            { expression, returnByValue: true, awaitPromise: true },
            sessionId,
          );
          if (answer.exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(answer.exceptionDetails)}`);
          return (answer.result as { value: T }).value;
        },
        async until(expression) {
          const deadline = Date.now() + PATIENCE;
          // The browser's own clock paces this: one look a frame.
          while (
            !(await page.evaluate<boolean>(`new Promise((done) => setTimeout(() => done(Boolean(${expression})), 20))`))
          ) {
            if (Date.now() > deadline) throw new Error(`did not become true: ${expression}`);
          }
        },
      };
      for (const domain of ['Network', 'Runtime', 'Log', 'Page']) await page.call(`${domain}.enable`);
      await page.call('Page.navigate', { url });
      return page;
    },
    async close() {
      await call('Browser.close').catch(() => {});
      await ended;
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
