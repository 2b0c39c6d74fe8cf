import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The blocks of a language in a page, without the indentation of a list. */
export function fence(file: string, language: string, heading?: string): string[] {
  let text = readFileSync(file, 'utf8');
  if (heading !== undefined) {
    const start = text.indexOf(`\n## ${heading}\n`);
    if (start < 0) throw new Error(`${file} has no heading "${heading}"`);
    const end = text.indexOf('\n## ', start + 1);
    text = text.slice(start, end < 0 ? undefined : end);
  }
  return blocks(text, language);
}

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^( *)\`\`\`${language}\n([\\s\\S]*?)^ *\`\`\``, 'gm'))].map(([, indent, body]) =>
    body!.replace(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** The blocks of the numbered steps, which come before the first heading. */
function steps(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return blocks(text.slice(0, text.indexOf('\n## ')), 'sh');
}

/** All that is played, as a bash script: the pages' own commands, and after each part a look at what came of it. */
export function script(root: string): string {
  const page = (name: string, heading?: string) => fence(join(root, 'docs', name), 'sh', heading);
  const [packages, program, ...rest] = steps(join(root, 'docs/install.md'));
  const filled = (block: string | undefined, version: string) =>
    (block ?? '')
      .replaceAll('OLDVERSION', 'v1')
      .replaceAll('VERSION', version)
      .replaceAll('URL-OF-THIS-REPOSITORY', '/play/spns.git');
  const [backUp, restore] = page('upgrade.md', 'Back up, restore');
  const [upgrade] = page('upgrade.md', 'Upgrade');
  const [back] = page('upgrade.md', 'Go back to an earlier version');
  const [grants] = page('upgrade.md', 'Move over from the original SPNS');
  const [leave] = page('upgrade.md', 'Go back to the original');
  return [
    HEAD,
    said('install'),
    filled(packages, ''),
    filled(program, 'v1'),
    OXEND,
    ...rest,
    'works /opt/spns-v1',
    LOOK,

    said('back up, restore'),
    MARK,
    backUp,
    PRIVATE,
    "sudo -u postgres psql -qd spns -c 'DROP TABLE marker'; rm -r /etc/spns",
    restore,
    'works /opt/spns-v1',
    MARKED,

    said('upgrade, go back'),
    filled(upgrade, 'v2'),
    'works /opt/spns-v2',
    filled(back, 'v2'),
    'works /opt/spns-v1',

    said('move over from the original, go back to it'),
    ORIGINAL,
    grants?.replaceAll('olddb', 'original').replaceAll('olduser', 'theirs'),
    'systemctl start spns.target',
    'works /opt/spns-v1',
    leave,
    'hivemind_ended',
    THEIRS,

    said('the Debian package'),
    PACKAGE,
    'echo all played',
  ].join('\n');
}

function said(what: string): string {
  return `{ echo "== ${what}"; } 2>/dev/null`;
}

const HEAD = `
set -euxo pipefail
exec </dev/null
cd /play
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Debian's own may not be reached from everywhere; the packages are there.
printf '#!/bin/sh\\nfor one; do case $one in install) ;; *) dpkg -s "$one" >/dev/null || exit 1;; esac; done\\n' >/usr/local/bin/apt
printf '#!/bin/sh\\ncp /play/edited.ini "$1"\\n' >/usr/local/bin/editor
chmod +x /usr/local/bin/apt /usr/local/bin/editor
openssl genpkey -algorithm RSA -out firebase.pem 2>/dev/null
printf '{"type":"service_account","project_id":"a","private_key_id":"b","client_email":"c@d.example","token_uri":"https://oauth2.googleapis.com/token","private_key":"%s"}' \\
  "$(sed ':a;N;$!ba;s/\\n/\\\\n/g' firebase.pem)" >firebase.json
# Only the socket: the network may be the host's.
printf "listen_addresses = ''\\n" >"$(echo /etc/postgresql/*/main/conf.d)/socket.conf"
systemctl restart postgresql

# Where bash's own ! would let a failure pass.
no() {
  if "$@"; then echo "should have failed: $*"; exit 1; fi
}

# Whether all run, registered with each other, by the program of that version.
works() {
  for try in $(seq 240); do
    [ "$(spns services 2>/dev/null | grep -cE '^(apns|firebase) +1 ')" = 2 ] && break
    sleep 0.25
  done
  spns services | grep -E '^apns +1 ' && spns services | grep -E '^firebase +1 '
  for unit in spns-hivemind spns-web spns-notifier@apns spns-notifier@firebase; do
    systemctl is-active $unit
    exe=$(readlink /proc/$(systemctl show --value -p MainPID $unit)/exe)
    case $exe in $1/*) ;; *) echo "$unit runs $exe"; exit 1 ;; esac
  done
  # It connects to oxend when the notifiers are there.
  for try in $(seq 240); do
    spns stats --json | grep '"oxend": true' && return
    sleep 0.25
  done
  echo 'no oxend'; exit 1
}
hivemind_ended() {
  no systemctl is-active spns-hivemind
  no pgrep -af '^spns-'
}
`;

const OXEND = `
adduser --system --group --home /var/lib/oxen oxen
printf '[Service]\\nUser=oxen\\nGroup=oxen\\nExecStart=/opt/spns/src/cli/node /opt/spns/test/install/oxend-main.ts\\n' >/etc/systemd/system/oxend.service
# The package is tried without these folders.
cp -a /opt/spns-v1 /play/oxend
sed 's:/opt/spns/:/play/oxend/:g' /etc/systemd/system/oxend.service >/etc/systemd/system/oxend-deb.service
systemctl daemon-reload; systemctl start oxend
until [ -S /var/lib/oxen/oxend.sock ]; do sleep 0.1; done
`;

const LOOK = `
journalctl -q -t spns-hivemind | grep 'ready for subscriptions'
journalctl -q -t spns-notifier-apns | grep registered
pgrep -af '^spns-notifier-firebase'
systemctl show --value -p StatusText spns-hivemind | tee /dev/stderr | grep 'SN conns: 0/0'
no runuser -u spns-web -- cat /etc/spns/hivemind.key
`;

const MARK = `sudo -u postgres psql -qd spns -c 'CREATE TABLE marker AS SELECT 42 AS answer'`;
const MARKED = `[ "$(sudo -u postgres psql -qtAd spns -c 'SELECT answer FROM marker')" = 42 ]`;

const PRIVATE = `
for file in /var/backups/spns.dump /var/backups/spns-etc.tar.gz; do
  [ -s $file ]
  no runuser -u nobody -- cat $file
  no runuser -u spns-web -- cat $file
done
`;

/** A database as the original leaves it, of a user of its own. */
const ORIGINAL = `
systemctl stop 'spns*'
hivemind_ended
sudo -u postgres dropdb spns
sudo -u postgres dropuser spns
sudo -u postgres createuser theirs
sudo -u postgres createdb --owner=theirs original
{ echo 'SET ROLE theirs;'; cat /opt/spns/src/hivemind/store/migrations/001_original.sql; } | sudo -u postgres psql -qd original -v ON_ERROR_STOP=1
printf '[db]\\nurl = postgresql:///original\\n' >>/etc/spns/spns.ini
`;

/** What the original does with its tables, which ours has added to. */
const THEIRS = `
sudo -u postgres psql -qd original -v ON_ERROR_STOP=1 <<'SQL'
SET ROLE theirs;
INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
  VALUES ('a', 's', 1, true, 'k', 'apns', 't');
INSERT INTO sub_namespaces SELECT id, 0 FROM subscriptions;
UPDATE subscriptions SET signature_ts = 2;
INSERT INTO service_stats (service, name, val_int) VALUES ('apns', 'notifies-x', 1) ON CONFLICT DO NOTHING;
DELETE FROM subscriptions;
SELECT count(*) FROM spns_unsubscribed;
SQL
`;

/**
 * Installed on a system that has nothing else of ours, run, and removed: then nothing is left but what the operator has
 * put into /etc/spns.
 */
const PACKAGE = `
without_a_trace() {
  [ -z "$(find / -xdev \\( -path /play -o -path /root -o -path /var/log \\) -prune -o -name '*spns*' -print | tee /dev/stderr)" ]
  no grep spns /etc/passwd /etc/group /etc/shadow
  no ls -d /run/spns*
}
cp -a /etc/spns /play/etc
rm -rf /etc/systemd/system/spns* /usr/local/bin/spns /usr/local/share/man/man1/spns.1 /etc/bash_completion.d/spns
rm -rf /etc/spns /opt/spns* /var/cache/spns* /var/backups/spns*
systemctl daemon-reload
for user in spns-web spns-notifier spns; do deluser --quiet $user; done
for group in spns spns-config; do ! getent group $group || delgroup --quiet $group; done
without_a_trace

/usr/bin/apt-get install --yes /play/spns.deb
[ "$(stat -c '%a %G' /etc/spns/spns.ini)" = '640 spns-config' ]
spns check-config --no-database | head -3 || true
cp -a /play/etc/*.key /etc/spns/
install -g spns -m 640 /play/apns.pem /play/firebase.json /etc/spns/
cat /play/edited.ini >/etc/spns/spns.ini
printf '[db]\\nurl = postgresql:///original\\n' >>/etc/spns/spns.ini
adduser --quiet spns oxen
systemctl start oxend-deb
until [ -S /var/lib/oxen/oxend.sock ]; do sleep 0.1; done
spns check-config --unit
systemctl enable spns.target spns-hivemind spns-web spns-notifier@apns spns-notifier@firebase
systemctl start spns.target
works /usr/lib/spns
man -w spns
bash -c '. /usr/share/bash-completion/completions/spns; complete -p spns'
du -sm /usr/lib/spns/node_modules
[ "$(du -sm --apparent-size /usr/lib/spns/node_modules | cut -f1)" -lt 200 ]

# The same again is an upgrade: what ran runs, configuration and keys are as they were.
sum=$(cat /etc/spns/* | sha256sum)
/usr/bin/apt-get install --yes --reinstall /play/spns.deb
works /usr/lib/spns
[ "$(cat /etc/spns/* | sha256sum)" = "$sum" ]

/usr/bin/apt-get remove --yes spns
hivemind_ended
[ -f /etc/spns/spns.ini ]
/usr/bin/apt-get purge --yes spns
[ -f /etc/spns/hivemind.key ]
rm -r /etc/spns
without_a_trace
`;
