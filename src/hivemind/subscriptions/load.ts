import type { JudgedClock } from '../../judged-clock.ts';
import type { Log } from '../../log.ts';
import { CLOCK_TOLERANCE } from '../../session/subscription.ts';
import type { Devices } from '../devices/devices.ts';
import type { Store } from '../store/store.ts';
import { SigningTimes } from './signing-times.ts';

/** What {@link loadSubscriptions} works with. */
export interface LoadModules {
  readonly clock: Pick<JudgedClock, 'monotonic' | 'raiseFloor'>;
  readonly store: Pick<Store, 'load'>;
  readonly devices: Pick<Devices, 'upsert' | 'expect' | 'size' | 'accounts'>;
  /** Ends the loading. */
  readonly stopping: AbortSignal;
  readonly log: Pick<Log, 'info'>;
}

/**
 * Loads subscriptions from the database into memory.
 *
 * @param slots the slots to load; all if not given
 * @throws StoreError
 */
export async function loadSubscriptions(modules: LoadModules, slots?: ReadonlySet<number>): Promise<void> {
  const { clock, store, devices, stopping, log } = modules;
  const loading = clock.monotonic();
  const signed = new SigningTimes();
  const visit = (row: Parameters<Parameters<Store['load']>[0]>[0]) => {
    signed.add(row.signedAt);
    devices.upsert(row, row.signedAt);
  };
  const before = devices.size;
  const expect = (rows: number) => devices.expect(before + rows);
  const loaded = await store.load(visit, stopping, slots && [...slots], expect).finally(() => devices.expect(0));
  const seconds = ((clock.monotonic() - loading) / 1000).toFixed(1);
  log.info(
    `loaded ${loaded.rows} subscriptions${slots ? ` of ${slots.size} slots` : ''}, now of ${devices.accounts} accounts, in ${seconds} s` +
      (loaded.skipped > 0 ? `; ${loaded.skipped} rows are invalid and were skipped` : ''),
  );
  // Devices sign by their own clocks, which may be ahead by the tolerance at most: an earlier time must be wrong.
  clock.raiseFloor((signed.newest() - CLOCK_TOLERANCE) * 1000);
}
