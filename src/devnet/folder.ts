import fs from 'node:fs/promises';
import path from 'node:path';

/**
 * Makes a world's folder unless it exists.
 *
 * @throws Error with a sentence for the user if it cannot be made, or if it or something in it belongs to another user,
 *   as after `sudo npm start`: that would fail later without saying why
 */
export async function makeOwnFolder(folder: string): Promise<void> {
  try {
    await fs.mkdir(folder, { recursive: true });
  } catch (error) {
    throw new Error(
      `${folder} cannot be created (${(error as NodeJS.ErrnoException).code}): choose another with --folder`,
      {
        cause: error,
      },
    );
  }
  const self = process.getuid?.();
  // Root may write everywhere.
  if (self === undefined || self === 0) return;
  const names = await fs.readdir(folder).catch(() => []);
  for (const file of [folder, ...names.map((name) => path.join(folder, name))]) {
    const { uid } = await fs.lstat(file);
    if (uid === self) continue;
    const whom = uid === 0 ? 'root' : `another user (${uid})`;
    throw new Error(
      `${file} belongs to ${whom}, who has run this before: remove it (sudo rm -r ${folder}), or choose another with --folder`,
    );
  }
}
