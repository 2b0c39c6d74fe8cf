import { pathToFileURL } from 'node:url';
import { BUILT_IN_SERVICES, NOTIFIER } from '../../settings/notifier.ts';
import { ConfigError, type Section } from '../../settings/section.ts';
import type { CreateBackend } from './backend.ts';

/** The backends of the built-in services. Apple's two environments share one file. */
const BUILT_IN: Readonly<Record<(typeof BUILT_IN_SERVICES)[number], string>> = {
  apns: '../apns/apns.ts',
  'apns-sandbox': '../apns/apns.ts',
  firebase: '../firebase/firebase.ts',
  huawei: '../huawei/huawei.ts',
  webpush: '../webpush/webpush.ts',
  dummy: '../dummy.ts',
};

/**
 * Finds the backend of a service: the file that its section names as `module`, or a built-in one.
 *
 * @throws ConfigError with a sentence if there is none, or if the file cannot be loaded or exports no `create`
 */
export async function loadBackend(service: string, section: Section): Promise<CreateBackend> {
  const path = NOTIFIER.settings.module.read(section, 'notifier');
  section.check();
  const known = BUILT_IN_SERVICES.find((name) => name === service);
  const file = path === undefined ? known && new URL(BUILT_IN[known], import.meta.url) : pathToFileURL(path);
  if (file === undefined) {
    throw new ConfigError([
      `there is no notifier named ${service}: those that come with SPNS are ${BUILT_IN_SERVICES.join(', ')}; for one of your own, set module = /path/to/file.ts in [${section.name}]`,
    ]);
  }
  let loaded: { create?: unknown };
  try {
    loaded = await import(file.href);
  } catch (error) {
    throw new ConfigError([`[${section.name}].module = ${path}: cannot be loaded: ${(error as Error).message}`]);
  }
  if (typeof loaded.create !== 'function') {
    throw new ConfigError([`[${section.name}].module = ${path}: exports no function named create`]);
  }
  return loaded.create as CreateBackend;
}
