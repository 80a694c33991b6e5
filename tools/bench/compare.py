#!/usr/bin/env python3
"""compare.py - scree beside other engines: run the matrix, one program at a time, then tables and plots.

Called by scripts/bench. For each case and each run all engines take their turn, so that what changes on the machine
meanwhile changes for all of them. A run that fails is reported and left out; what an engine refuses (exit status 2
and "refused") is left out silently.
"""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time

import matrix
import plots
import report


class Progress:
    """One line on a terminal that is written over; else a line a case."""

    def __init__(self, total):
        self.total, self.done, self.begun = total, 0, time.monotonic()
        self.terminal = sys.stderr.isatty()

    def show(self, what):
        spent = time.monotonic() - self.begun
        left = f", {spent / self.done * (self.total - self.done) / 60:.0f} min left" if self.done > 4 else ""
        text = f"[{self.done + 1}/{self.total}{left}] {what}"
        if self.terminal:
            sys.stderr.write(f"\r\033[K{text[:110]}")
            sys.stderr.flush()
        elif self.done % 10 == 0:
            print(text, file=sys.stderr, flush=True)

    def clear(self):
        if self.terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def programs(build, wanted):
    """The engines that are built, by name."""
    found = {"scree": [os.path.join(build, "scree"), "bench"]}
    for name in matrix.PEERS:
        found[name] = [os.path.join(build, f"peer_{name}")]
    return {name: command for name, command in found.items()
            if os.path.exists(command[0]) and (not wanted or name in wanted)}


def ceiling(build, case):
    if case.workload not in matrix.CEILINGS or case.threads not in matrix.CEILING_THREADS.get(case.workload,
                                                                                              (case.threads,)):
        return None
    name, *more = matrix.CEILINGS[case.workload]
    path = os.path.join(build, name)
    if not os.path.exists(path):
        return None
    known = ("--n", "--seconds")  # it has no cache
    options = [word for at in range(0, len(case.options), 2) if case.options[at] in known
               for word in case.options[at:at + 2]]
    return [path, *more, *options]


def run(command, progress):
    """Its line, or None."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    if not (done.returncode == 2 and "refused" in done.stderr):
        progress.clear()
        print(f"FAILED ({done.returncode}): {' '.join(command)}\n{done.stderr.strip()}", file=sys.stderr)
    return None


def save(path, machine, lines):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump({"machine": machine, "lines": lines}, f, indent=0)
    os.replace(path + ".new", path)


def measure(args, out):
    engines = programs(args.build, args.engines)
    cases = list(matrix.cases(args.quick, args.workloads))
    data = os.path.abspath(args.dir or os.path.join(out, "data"))
    total = sum(min(args.runs, case.runs_max) * (len(engines) + (ceiling(args.build, case) is not None))
                for case in cases)
    progress = Progress(total)
    lines = []
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "kernel": platform.release(), "quick": args.quick,
               "runs": args.runs}
    for case in cases:
        for turn in range(min(args.runs, case.runs_max)):
            commands = {name: [*command, "--workload", case.workload, *case.options]
                        for name, command in engines.items()}
            if ceiling(args.build, case):
                commands["ceiling"] = ceiling(args.build, case)
            for name, command in commands.items():
                progress.show(f"{case.workload}, {case.threads} threads, run {turn + 1}: {name}")
                command = [*command, "--threads", str(case.threads), "--dir", data]
                if case.workload == "churn":
                    command += ["--samples", os.path.join(out, f"samples-{name}.csv")]
                line = run(command, progress)
                if line:
                    lines.append({**line, "engine": name, "workload": case.workload, "run": turn + 1})
                progress.done += 1
            save(os.path.join(out, "results.json"), machine, lines)
    progress.clear()
    shutil.rmtree(data, ignore_errors=True)
    return machine, lines


def cpu():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="scree beside other engines")
    parser.add_argument("--quick", action="store_true", help="little data, moments, one run: no proof of anything")
    parser.add_argument("--report", action="store_true", help="nothing is run: tables and plots from results.json")
    parser.add_argument("--runs", type=int, help="of each case, of which the median counts (5)")
    parser.add_argument("--workloads", nargs="+", choices=[row[0] for row in matrix.TABLE], metavar="W")
    parser.add_argument("--engines", nargs="+", choices=["scree", *matrix.PEERS], metavar="E")
    parser.add_argument("--dir", help="where the data lies while it runs (build/bench/data)")
    parser.add_argument("--build", default="build/bench", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.runs = args.runs or (1 if args.quick else 5)
    return args


def main():
    args = arguments()
    out = args.build
    path = os.path.join(out, "results.json")
    if args.report:
        with open(path, encoding="utf-8") as f:
            saved = json.load(f)
        machine, lines = saved["machine"], saved["lines"]
    else:
        machine, lines = measure(args, out)
    if not lines:
        sys.exit("scripts/bench: nothing was measured")
    summary = report.medians(lines)
    report.csv_write(os.path.join(out, "results.csv"), lines)
    report.tables_print(machine, summary)
    written = plots.all_plots(out, machine, summary)
    print(f"\n{path}, results.csv beside it: all {len(lines)} runs; plots: {', '.join(written)}")


if __name__ == "__main__":
    main()
