"""report.py - medians, tables, results.csv."""
import csv
import statistics

import matrix

COLUMN = 12


def medians(lines):
    """(workload, threads) -> engine -> a line whose numbers are the medians over the runs."""
    groups = {}
    for line in lines:
        groups.setdefault((line["workload"], line["threads"]), {}).setdefault(line["engine"], []).append(line)
    return {case: {engine: median(group) for engine, group in engines.items()} for case, engines in groups.items()}


def median(group):
    result = dict(group[0])
    for name, value in group[0].items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            result[name] = statistics.median(line[name] for line in group if name in line)
    rates = [matrix.rate(line) if has_rate(line) else 0 for line in group]
    middle = statistics.median(rates)
    result["runs"] = len(group)
    result["spread"] = (max(rates) - min(rates)) / middle if middle else 0
    return result


def has_rate(line):
    return "entries_s" in line or line["workload"] != "recover"


def short(value):
    """Three digits and a unit."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}" if value / limit < 999.5 else f"{value / limit:.0f} {unit}"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def row(cells):
    print(f"{cells[0]:<18}" + "".join(f"{cell:>{COLUMN}}" for cell in cells[1:]))


def present(summary):
    return [name for name in matrix.ENGINES if any(name in engines for engines in summary.values())]


def fragile(case, name):
    """Recovery begins with what was made durable, and LMDB's file is whole then, with nothing to do at an open."""
    return name in matrix.FRAGILE and (case[0] in ("frag-merge", "mixed", "churn") or
                                       (case[0] == "recover" and name != "lmdb"))


def best_peer(case, engines, sound):
    """The fastest that does the same work: reads that the page cache may answer do not count. `sound`: nor does
    what may lose its file."""
    peers = [(matrix.rate(line), name) for name, line in engines.items()
             if name in matrix.PEERS and not matrix.cached_by_system(line) and not (sound and fragile(case, name))]
    return max(peers, default=(None, None))


def ceiling_rate(summary, case):
    """With as many threads; of commit with one, whatever their number."""
    threads = 1 if case[0] in matrix.CEILING_THREADS else case[1]
    line = summary.get((case[0], threads), {}).get("ceiling")
    return line["ops_s"] if line else None


def ratio(a, b):
    return f"{a / b:.3g}" if a is not None and b else "-"


def marked(case, name, line):
    text = short(matrix.rate(line))
    if matrix.cached_by_system(line):
        return text + " c"
    return text + " f" if fragile(case, name) else text


def throughput(summary):
    names = [name for name in present(summary) if name != "ceiling"]
    print("\nThroughput, operations a second; of recover, pages a second in the open after a crash")
    row(["workload, threads", *names, "ceiling", "best peer", "scree/best", "best sound", "scree/sound", "scree/ceil"])
    for case, engines in summary.items():
        cells = [f"{case[0]}, {case[1]:g}"]
        cells += [marked(case, name, engines[name]) if name in engines else "-" for name in names]
        pairs = []
        scree = matrix.rate(engines["scree"]) if "scree" in engines else None
        top = ceiling_rate(summary, case)
        for sound in (False, True):
            best, who = best_peer(case, engines, sound)
            pairs += [who or "-", ratio(scree, best)]
        row([*cells, short(top), *pairs, ratio(scree, top)])
    print("  -  refused, or not built   c  the system's page cache may have answered: not a best peer")
    print("  f  not synced, it may lose the whole file with the power; the others lose their newest operations;")
    print("     nor does --cache bind it. Best sound: of the others")


def latency(summary):
    names = present(summary)
    print("\nLatency, 99.9th percentile, microseconds")
    row(["workload, threads", *names])
    for case, engines in summary.items():
        if case[0] != "recover":
            row([f"{case[0]}, {case[1]:g}", *[short(engines[name]["p999_us"]) if name in engines else "-"
                                            for name in names]])


def space(summary):
    names = [name for name in present(summary) if name != "ceiling"]
    rows = (("space_amp_max", "churn", "disk / live bytes, the most in the second half"),
            ("write_amp", "churn", "device bytes / bytes put"),
            ("peak_rss", "churn", "peak memory of the process, bytes"),
            ("open_s", "recover", "open after the crash, seconds"))
    print("\nSpace, memory, recovery")
    row(["", *names])
    for field, workload, text in rows:
        for case, engines in summary.items():
            if case[0] == workload:
                row([f"{workload}", *[short(engines[name].get(field)) if name in engines else "-"
                                      for name in names], "  " + text])


def tables_print(machine, summary):
    kind = "QUICK RUN, proves nothing" if machine["quick"] else f"medians of {machine['runs']} runs at most"
    print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {kind}")
    throughput(summary)
    latency(summary)
    space(summary)
    wild = [f"{case[0]}, {case[1]:g}: {name} {100 * line['spread']:.0f} %" for case, engines in summary.items()
            for name, line in engines.items() if line["runs"] > 1 and line["spread"] > 0.3]
    if wild:
        print("\nSpread of more than 30 % between runs ((most - least) / median):\n  " + "\n  ".join(wild))
    wrong = [f"{case[0]}, {case[1]:g}: {name}" for case, engines in summary.items()
             for name, line in engines.items() if line.get("verified") is False]
    if wrong:
        print("\nNOT VERIFIED: " + "; ".join(wrong))


def csv_write(path, lines):
    names = []
    for line in lines:
        names += [name for name in line if name not in names]
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
