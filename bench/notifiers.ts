import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { startFakeApns } from '../src/devnet/providers/apns.ts';
import { startFakeFcm } from '../src/devnet/providers/fcm.ts';
import { startFakeHuawei } from '../src/devnet/providers/huawei.ts';
import type { FakeProvider } from '../src/devnet/providers/script.ts';
import { type FakeWebPush, startFakeWebPush } from '../src/devnet/providers/webpush.ts';
import type { SealedPush } from '../src/session/notifier-protocol.ts';
import { FakeHivemind } from '../test/notifiers/fake-hivemind.ts';
import { writeConfig } from '../test/notifiers/process.ts';
import { cpuSeconds, residentMegabytes } from './cpu.ts';
import { daemonEnvironment, nodeFlags, round } from './world.ts';

const MAIN = path.join(import.meta.dirname, '../src/notifiers/main.ts');
const COUNT = Number(process.env.BENCH_PUSHES ?? 100_000);
const BATCH = 10_000;
/** The largest payload there is: what a message of 2500 bytes becomes. */
const PAYLOAD = randomBytes(2_856);
/** How many are handed over at once: the notifier's window decides how many it takes. */
const AHEAD = 5_000;

const PROVIDERS: Record<string, () => Promise<FakeProvider>> = {
  apns: () => startFakeApns({ keep: 100 }),
  firebase: () => startFakeFcm({ keep: 100 }),
  huawei: () => startFakeHuawei({ keep: 100 }),
  webpush: () => startFakeWebPush({ keep: 100 }),
};

/** One notifier process against a fake of its provider over TLS; provider and hivemind are in this process. */
export async function notifier(service: keyof typeof PROVIDERS): Promise<object> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-bench-'));
  const provider = await (PROVIDERS[service] as () => Promise<FakeProvider>)();
  const hivemind = await FakeHivemind.start(undefined, service);
  const config = await writeConfig(folder, service, hivemind, await provider.settings(folder));
  const child = spawn(process.execPath, [...nodeFlags(), MAIN, service], {
    env: daemonEnvironment(`notify-${service}`, config),
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await hivemind.until(() => hivemind.instances.size === 1);
    const pid = child.pid as number;
    const push = await pushesOf(service, provider, hivemind);
    let pushed = 0;
    const fill = () => {
      const free = Math.min(COUNT - pushed, AHEAD - hivemind.outstanding);
      if (free < AHEAD / 10 && pushed + free < COUNT) return;
      hivemind.push(Array.from({ length: free }, () => push(pushed++)));
    };
    const rates: number[] = [];
    const memory: number[] = [];
    const cpuBefore = cpuSeconds(pid);
    const benchBefore = cpuSeconds(process.pid);
    const start = performance.now();
    for (let last = start, done = BATCH; done <= COUNT; done += BATCH) {
      await hivemind.until(() => {
        fill();
        return hivemind.accepted.size + hivemind.refused.size >= done;
      });
      const now = performance.now();
      rates.push(Math.round((BATCH * 1000) / (now - last)));
      memory.push(residentMegabytes(pid));
      last = now;
    }
    const seconds = (performance.now() - start) / 1000;
    const cpu = cpuSeconds(pid) - cpuBefore;
    return {
      row: `${service} notifier`,
      pushes: COUNT,
      per_second: Math.round(COUNT / seconds),
      per_second_by_batch: rates,
      accepted: hivemind.accepted.size,
      taken_by_provider: provider.taken.count,
      cpu_us_a_push: round((cpu * 1e6) / COUNT),
      rss_mb_by_batch: memory,
      cpu_seconds: { notifier: round(cpu), bench: round(cpuSeconds(process.pid) - benchBefore) },
    };
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
    await hivemind.close();
    await provider.close();
    await fs.rm(folder, { recursive: true, force: true });
  }
}

/** How many apps have subscribed at the push service. */
const APPS = 100;

/** The push of that number, for devices as the service has them. */
async function pushesOf(service: string, provider: FakeProvider, hivemind: FakeHivemind) {
  if (service !== 'webpush') {
    // 64 hexadecimal digits: a token for Apple, and good enough for the others.
    return (number: number): Partial<SealedPush> => ({
      serviceId: number.toString(16).padStart(64, '0'),
      payload: PAYLOAD,
    });
  }
  const devices: Partial<SealedPush>[] = [];
  for (let app = 0; app < APPS; app++) {
    const { info } = (provider as FakeWebPush).subscribe(randomBytes);
    const [, serviceId, serviceData] = await hivemind.validateDevice(JSON.stringify(info));
    devices.push({ serviceId: String(serviceId), serviceData: serviceData!, payload: PAYLOAD });
  }
  return (number: number): Partial<SealedPush> => devices[number % APPS]!;
}
