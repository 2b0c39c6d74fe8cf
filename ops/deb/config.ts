/**
 * The configuration of the package: spns.ini.example, with what its units need. Throws if a key is not in the example
 * any more.
 */
export function packagedConfig(example: string): string {
  const wanted: readonly [section: string, key: string, value: string][] = [
    ['hivemind', 'listen', 'ipc:///run/spns/hivemind.sock'],
    ['hivemind', 'listen_push', 'ipc:///run/spns/push.sock'],
    ['web', 'listen', 'unix:/run/spns-web/web.sock'],
  ];
  return wanted.reduce((text, [section, key, value]) => {
    const line = new RegExp(`(\\n\\[${section}\\]\\n(?:(?!\\n\\[)[\\s\\S])*?\\n);?${key} = .*\\n`);
    if (!line.test(text)) throw new Error(`spns.ini.example has no [${section}] ${key}`);
    return text.replace(line, `$1${key} = ${value}\n`);
  }, example);
}
