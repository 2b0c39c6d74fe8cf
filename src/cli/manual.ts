import { BUILT_IN_SERVICES } from '../settings/notifier.ts';
import type { Command, Option } from './command.ts';

/** All commands by name, in the order in which they are listed. */
export type Commands = ReadonlyMap<string, Command>;

const HELP: Option = { type: 'boolean', help: 'explains the command' };

function optionsOf({ options }: Command): [name: string, Option][] {
  return Object.entries({ ...options, help: HELP });
}

/** The man page `spns(1)`, in man(7)'s macros, from the texts of `--help`. */
export function manPage(commands: Commands, version: string): string {
  const lines = [
    `.TH SPNS 1 "" "spns ${version}" "User Commands"`,
    '.SH NAME',
    'spns \\- sets up, checks and operates a Session Push Notification Server',
    '.SH SYNOPSIS',
    '.B spns',
    '.I COMMAND',
    '[\\fIWORD\\fR ...] [\\fIOPTION\\fR ...]',
    '.SH DESCRIPTION',
    'The server consists of daemons that systemd runs; this command creates what they need, checks it, and shows their',
    'state. The configuration is the file given by \\fB\\-\\-config\\fR, or by \\fBSPNS_CONFIG\\fR, or spns.ini in the',
    'current folder, or /etc/spns/spns.ini.',
    '.SH COMMANDS',
  ];
  for (const [name, command] of commands) {
    lines.push(`.SS "spns ${[name, ...command.words].map(roff).join(' ')}"`, `${roff(command.summary)}.`);
    // Its columns stay as they are.
    if (command.help !== '') lines.push('.PP', '.nf', ...command.help.split('\n').map(roff), '.fi');
    for (const [option, { value, help }] of optionsOf(command)) {
      const named = value === undefined ? '' : ` \\fI${roff(value)}\\fR`;
      lines.push('.TP', `\\fB${roff(`--${option}`)}\\fR${named}`, roff(help));
    }
  }
  lines.push(
    ...['.SH EXIT STATUS', '0 on success, 1 on failure, 2 if the command line makes no sense.'],
    ...['.SH ENVIRONMENT', '.TP', '.B SPNS_CONFIG', 'The configuration, unless \\fB\\-\\-config\\fR names another.'],
    ...['.SH FILES', '.TP', '.I /etc/spns/spns.ini', 'The configuration.'],
    ...['.TP', '.I /run/spns/hivemind.sock', 'Where the hivemind takes these commands.'],
    ...['.SH SEE ALSO', '.BR systemctl (1),', '.BR journalctl (1)'],
  );
  return `${lines.join('\n')}\n`;
}

/** Escapes a text for roff, to which a dot at a line's start is a request and a hyphen a place to break the line. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=[.'])/, '\\&');
}

/** The completion of `spns` for bash: commands, their options, and files, services and commands where those belong. */
export function completion(commands: Commands): string {
  const names = [...commands.keys()];
  const cases = [...commands].map(([name, command]) => {
    const options = optionsOf(command);
    const valued = options.filter(([, { value }]) => value !== undefined);
    const files = valued.filter(([, { value }]) => value === 'FILE').map(([option]) => `--${option}`);
    const others = valued.filter(([, { value }]) => value !== 'FILE').map(([option]) => `--${option}`);
    const [word = ''] = command.words;
    return [
      `    ${name})`,
      `      options='${options.map(([option]) => `--${option}`).join(' ')}'`,
      ...(files.length > 0 ? [`      files='${files.join(' ')}'`] : []),
      ...(others.length > 0 ? [`      others='${others.join(' ')}'`] : []),
      ...(word === 'FILE' ? ['      words=files'] : []),
      ...(word === 'SERVICE' ? [`      words='${BUILT_IN_SERVICES.join(' ')}'`] : []),
      '      ;;',
    ].join('\n');
  });
  return `# bash completion of spns(1): "spns completion" prints it.
_spns() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} options='' files='' others='' words=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '${[...names, 'help'].join(' ')} --help --version' -- "$word")
    return
  fi
  case \${COMP_WORDS[1]} in
    help) words='${names.join(' ')}' ;;
${cases.join('\n')}
  esac
  if [[ " $others " == *" $before "* ]]; then return; fi
  if [[ " $files " == *" $before "* || ($words == files && $word != -*) ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  fi
}
complete -F _spns spns
`;
}
