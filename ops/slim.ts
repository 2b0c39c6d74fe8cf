import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Of installed packages, by folder, what a running server never opens; `ARCH` is Node's name of the processor. */
const NEEDLESS: { readonly [folder: string]: (name: string, arch: string) => boolean } = {
  // Headers, and what npm would want.
  'node-linux-ARCH': (name) => !['bin', 'package.json', 'LICENSE'].includes(name),
  // Sources, and what was built for other systems.
  zeromq: (name) => !['build', 'lib', 'package.json', 'LICENSE.txt', 'LICENSE_MPL-2.0.txt'].includes(name),
  'zeromq/build': (name) => !['linux', 'manifest.json'].includes(name),
  'zeromq/build/linux': (name, arch) => name !== arch,
  'zeromq/build/linux/ARCH/node': (name) => !name.startsWith('glibc'),
  'sodium-native/prebuilds': (name, arch) => name !== `linux-${arch}`,
  // Of the build tool zeromq loads what finds its addon.
  'cmake-ts': (name) => !['build', 'package.json', 'LICENSE'].includes(name),
  'cmake-ts/build': (name) => !name.startsWith('loader') || name.endsWith('.map'),
};

/**
 * Takes out of a folder `node_modules` what no running server needs: half of it.
 * @param arch `x64` or `arm64`
 */
export function slim(modules: string, arch: string): void {
  for (const [pattern, isNeedless] of Object.entries(NEEDLESS)) {
    const folder = join(modules, pattern.replace('ARCH', arch));
    for (const name of readdirSync(folder)) {
      if (isNeedless(name, arch)) rmSync(join(folder, name), { recursive: true });
    }
  }
  // Descriptions of types, and what leads from built code back to its sources.
  for (const name of readdirSync(modules, { recursive: true, encoding: 'utf8' })) {
    if (/\.d\.[cm]?ts$|\.map$/.test(name)) rmSync(join(modules, name));
  }
}

if (import.meta.main) slim(process.argv[2] ?? 'node_modules', process.arch);
