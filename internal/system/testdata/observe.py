# SPDX-License-Identifier: GPL-2.0-only
"""observe.py BACKEND FILE: looks at the rules and at what check says of them, and
writes a line of JSON to FILE for each look. While FILE.busy exists it does so all
the time, and else it leaves most of the time to others."""
import json
import os
import subprocess
import sys
import time

backend, path = sys.argv[1:]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def table(version):
    """Whether our rules are complete and first in the raw table, and the table."""
    save = ("iptables" if version == 4 else "ip6tables") + "-" + backend + "-save"
    rules = [r for r in run(save, "-t", "raw").splitlines() if r[:1] == "-"]
    first = next((r for r in rules if r.startswith("-A PREROUTING ")), "")
    target = [r for r in rules if r.startswith("-A netsysrq ") and " -j NETSYSRQ " in r]
    return first.endswith(" -j netsysrq") and len(target) == 1, rules


with open(path, "w", buffering=1) as out:
    while True:
        time.sleep(0.2)
        for _ in range(20):
            if os.path.exists(path + ".busy"):
                break
            time.sleep(0.1)
        at = time.monotonic()
        before = table(4), table(6)
        check = json.loads(run("netsysrqd", "check", "--json"))
        after = table(4), table(6)
        found = {f["name"]: f["state"] for f in check["findings"]}
        print(json.dumps({
            "at": at,
            "end": time.monotonic(),
            "here": [t[0] for t in before],
            "steady": before == after,
            "says": [found.get("rule IPv%d" % v, "") for v in (4, 6)],
            "verdict": check["verdict"],
        }), file=out)
