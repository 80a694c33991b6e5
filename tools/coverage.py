#!/usr/bin/env python3
"""coverage.py <gcovr's json> <uncovered.txt>: lines and branches taken, by file and module, to stdout; every line with
a branch that was not taken, or that was not reached, to the second file."""
import collections
import json
import sys


def percent(taken, of):
    return 100.0 * taken / of if of else 100.0


def main():
    with open(sys.argv[1]) as f:
        files = sorted(json.load(f)["files"], key=lambda one: one["file"])
    modules = collections.defaultdict(lambda: [0, 0, 0, 0])
    print(f"{'':36}{'lines':>7}{'taken':>8}{'branches':>10}{'taken':>8}{'missing':>9}")
    with open(sys.argv[2], "w") as uncovered:
        for one in files:
            with open(one["file"]) as f:
                source = f.read().split("\n")
            figures = [0, 0, 0, 0]
            for line in one["lines"]:
                if line.get("gcovr/noncode"):
                    continue
                branches = [branch["count"] > 0 for branch in line["branches"]]
                missing = branches.count(False)
                figures[0] += 1
                figures[1] += line["count"] > 0
                figures[2] += len(branches)
                figures[3] += len(branches) - missing
                if missing or line["count"] == 0:
                    what = f"{missing} of {len(branches)}" if line["count"] else "not reached"
                    number = line["line_number"]
                    uncovered.write(f"{one['file']}:{number}: {what}: {source[number - 1].strip()}\n")
            for name in (one["file"], "/".join(one["file"].split("/")[:2]) + "/", "all"):
                modules[name] = [a + b for a, b in zip(modules[name], figures)]
    order = sorted(modules, key=lambda name: (name == "all", name.endswith("/"), name))
    for name in order:
        lines, lines_taken, branches, taken = modules[name]
        print(f"{name:36}{lines:7}{percent(lines_taken, lines):7.1f}%{branches:10}"
              f"{percent(taken, branches):7.1f}%{branches - taken:9}")
    print("Left out: branches of assertions, which are never taken; see scripts/coverage.")


main()
