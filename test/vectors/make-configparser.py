#!/usr/bin/env python3
"""Writes configparser.json beside it: what Python's own reader makes of INI files. Run it with any Python 3."""

import configparser
import json
import os

ORIGINAL_2024 = """[db]

# where
url = postgresql:///spns

[log]

level = INFO

[hivemind]

listen = ipc://./hivemind.sock

#listen_curve = tcp://0.0.0.0:22030

# one key
listen_curve_admin = 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

oxend_rpc = tcp://localhost:22029

subs_interval = 10

max_connects = 1000

filter_lifetime = 300

startup_wait = 8.0

#notifiers_expected = apns,firebase


[keys]

#
#     indented words of a comment
#

hivemind = key_x25519

onionreq = onionreq_x25519


[notify-firebase]

#token_file = firebase.json

retries = 3

retry_interval = 10

notify_interval = 0.1

[notify-apns]
identifier = com.loki-project.loki-messenger

cert_file = apns-cert.pem

retries = 2

retry_interval = 3


[notify-apns-sandbox]
identifier = com.loki-project.loki-messenger

cert_file = apns-sandbox-cert.pem

retries = 0

retry_interval = 3
"""

ORIGINAL_2026 = ORIGINAL_2024.replace("subs_interval = 10\n", "quic_listen = [::]:5522\n").replace(
    "onionreq = onionreq_x25519\n", "onionreq = onionreq_x25519\n\nquic = key_ed25519\n"
)

CASES = {
    "the original's example of 2024": ORIGINAL_2024,
    "the original's example of 2026": ORIGINAL_2026,
    "both separators": "[a]\nx=1\ny : 2\nz  =  a = b : c\nurl = postgresql://u:p@h/d?x=1\nt:u=v\nw:\n",
    "looks like something else": "[a]\n"
    + "\n".join(
        f"v{n} = {value}"
        for n, value in enumerate(
            ["true", "false", "null", "yes", "TRUE", "1.50", "007", "1e3", "0x1f", "NaN", "{}", "[]", "[1, 2]"]
            + ['{"a": 1}', '"quoted"', "'single'", '"open', "'open", '""', "''", '"a" b', "undefined", "-", "[section]"]
        )
    )
    + "\n",
    "names": "[a.b.c]\nX.Y = 1\n[A.b.c]\nk = v\n[a]b]\nk = v\n[ spaced ]\nk = v\n[a\\.b]\nk = v\n[x[]]\nk[] = v\nk2[] = w\n"
    "[__proto__]\npolluted = 1\n[a]\n__proto__ = 2\nconstructor = 3\nhasownproperty = 4\n\u00e4\u00f6 = 5\n[1]\n2 = 3\n1 = 4\n",
    "names, twice nested dots": "[a]\nb = 1\n[a.b]\nc = 2\n[a.b.c]\nd = 3\n[b]\n",
    "after a header": "[a] ; words\nx = 1\n[b]# words\ny = 2\n[c]   \nz = 3\n",
    "comments": "# one\n; two\n[a]\n  ; three\nx = 1\n  # four\ny = 2 ; not one\nz = 3 # nor this\n;w = 4\n",
    "continued lines": "[a]\nkeys =\n    one\n    # not this\n\n    two = 2\n    [three]\n  four: 4\nx = 1\n\n\n",
    "continued, by tabs": "[a]\nx = 1\n\t2\n  \t3\ny = 4\n",
    "an indented section": "  [a]\n  x = 1\n   2\n  y = 3\n [b]\n z = 4\n",
    "line ends of Windows": "[a]\r\nx = 1\r\n  2\r\n\r\ny = 3\r\n",
    "line separators of Unicode": "[a]\nx = a\u2028b\u2029c\u0085d\ny = \u00a0\n",
    "a byte order mark": "\ufeff[a]\nx = 1\n",
    "defaults": "[DEFAULT]\nhome = /srv\nshared = 1\n[a]\nshared = 2\np = %(home)s/x\n[b]\n[DEFAULT]\nlate = 3\n",
    "references": "[a]\np = 100%%\nq = %(p)s\nr = %(P)s and %(q)s\ns = %%(p)s\nt = %%%%\nlong =\n  %(p)s\n  %(q)s\n",
    "empty": "",
    "no value": "[a]\nx =\ny:\nz = \n",
}

for name, character in {
    "hash": "#", "semicolon": ";", "percent": "%%", "equals": "=", "colon": ":", "double quote": '"', "single quote": "'",
    "backslash": "\\", "blank": " ", "dollar": "$", "bracket": "]", "brace": "{", "comma": ",", "umlaut": "\u00fc", "at": "@",
}.items():  # fmt: skip
    CASES[f"a password with a {name}"] = "[db]\n" + "".join(
        f"{key} = {value}\n"
        for key, value in {
            "url": f"postgresql://spns:a{character}b@db/spns",
            "first": f"{character}a",
            "last": f"a{character}",
            "alone": character,
            "twice": f"{character}a{character}",
            "many": f"a {character} b{character}{character} c",
        }.items()
    )


def read(text):
    parser = configparser.ConfigParser()
    parser.read_string(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    return {name: dict(parser[name]) for name in parser.sections()}


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "configparser.json"), "w") as out:
    json.dump([{"name": name, "text": text, "sections": read(text)} for name, text in CASES.items()], out, indent=1)
    out.write("\n")
