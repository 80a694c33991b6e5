"""plots.py - results as plots, by gnuplot: an SVG and a PNG each, and the script that drew them, to be changed."""
import csv
import os
import subprocess

import matrix

STYLE = """set encoding utf8
set border 3 lc rgb "#444444"
set tics nomirror out
set grid ytics mytics lt 1 lc rgb "#dddddd", lt 1 lc rgb "#eeeeee"
set key outside right top vertical samplen 2
set label 1 "%s" at screen 0.01, screen 0.015 font ",9" textcolor rgb "#666666"
"""
TIMES = ", ".join(f'"{10 ** (at % 3)} {("ns", "µs", "ms", "s")[at // 3]}" {10.0 ** (at - 3):g}' for at in range(11))
TERMINALS = (("svg", 'svg size %d,%d font "sans,12" background "#ffffff"'),
             ("png", 'pngcairo size %d,%d font "sans,11"'))


def draw(out, name, size, body):
    """body: gnuplot, all but terminal and output."""
    script = "".join(f'reset\nset terminal {terminal % size}\nset output "{name}.{ending}"\n{body}\n'
                     for ending, terminal in TERMINALS) + "unset output\n"
    path = os.path.join(out, name + ".gp")
    with open(path, "w", encoding="utf-8") as f:
        f.write(script)
    done = subprocess.run(["gnuplot", name + ".gp"], cwd=out, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print(f"gnuplot {path}: {done.stderr.strip()}")
    return name + ".svg"


def block(name, rows):
    return f"${name} << END\n" + "\n".join(" ".join(str(cell) for cell in row) for row in rows) + "\nEND\n"


def colour(engine):
    return f'lc rgb "{matrix.ENGINES[engine]}"'


def style(engine):
    """A line that shows which engine it is also without colours."""
    at = list(matrix.ENGINES).index(engine)
    width = 3 if engine == "scree" else 1.5
    return f"{colour(engine)} lw {width} pt {(7, 5, 9, 11, 13, 4, 6, 8)[at]} ps 1" + \
        (" dt 2" if engine == "ceiling" else "")


def note(machine):
    runs = "quick run, proves nothing" if machine["quick"] else f"medians of {machine['runs']} runs at most"
    return STYLE % f"{machine['cpu']}, {machine['cores']} cores; {runs}".replace('"', "")


def present(cases):
    return [name for name in matrix.ENGINES if any(name in engines for engines in cases)]


def throughput(out, machine, summary):
    headline = matrix.HEADLINE_QUICK if machine["quick"] else matrix.HEADLINE
    cases = [(case, engines) for case, engines in summary.items() if case[1] == headline[case[0]]]
    names = present([engines for _, engines in cases])
    rows = []
    for case, engines in cases:
        threads = f"{case[1]:g} thread{'s' if case[1] > 1 else ''}"
        if case[0] == "page-get-cold":
            threads += "\\ndirect I/O only"
        rows.append([f'"{case[0]}\\n{threads}"'] +
                    [matrix.rate(engines[name]) if name in engines and drawn(engines[name]) else "NaN"
                     for name in names])
    plot = ", ".join(f'$d using {at + 2}{":xtic(1)" if at == 0 else ""} title "{name}" {colour(name)}'
                     for at, name in enumerate(names))
    return draw(out, "throughput", (1300, 560), note(machine) + block("d", rows) + f"""
set title "Throughput by workload and engine (higher is better; logarithmic)"
set ylabel "operations a second (recover: pages a second)"
set logscale y
set format y "%.0s %c"
set style data histogram
set style histogram clustered gap 1.5
set style fill solid 0.9 noborder
set boxwidth 0.95
set xtics font ",10"
set bmargin 5
plot {plot}""")


def drawn(line):
    """Of cold reads those that are cold; of recover what tells how long the open took."""
    return not matrix.cached_by_system(line) and (line["workload"] != "recover" or "entries_s" in line)


def panels(out, machine, name, title, parts):
    """Side by side, one legend for all; parts: gnuplot, with "plot" and its lines last, and the engines in it."""
    engines = present([names for _, _, names in parts])
    legend = ", ".join(f'keyentry with linespoints title "{engine}" {style(engine)}' for engine in engines)
    body = f'{note(machine)}set multiplot layout 1,{len(parts)} title "{title}" font ",14" ' \
        f"margins 0.07,0.885,0.16,0.84 spacing {0.075 if len(parts) > 1 else 0},0\n"
    for at, (part, plot, _) in enumerate(parts):
        last = at == len(parts) - 1
        body += part + ("set key at screen 0.995, screen 0.84 right top vertical Left reverse\n" if last
                        else "unset key\n") + f"plot {plot}{', ' + legend if last else ''}\nunset label 1\n"
    return draw(out, name, (1400, 560), body + "unset multiplot\n")


def by_threads(out, machine, summary):
    parts = []
    for workload in matrix.SWEPT:
        cases = {case[1]: engines for case, engines in summary.items() if case[0] == workload}
        if len(cases) < 2:
            continue
        names = present(cases.values())
        text = "".join(block(f"{name}_{workload.replace('-', '_')}",
                             [(threads, engines[name]["ops_s"]) for threads, engines in sorted(cases.items())
                              if name in engines]) for name in names)
        plot = ", ".join(f'${name}_{workload.replace("-", "_")} using 1:2 with linespoints notitle '
                         f"{style(name)}" for name in names)
        ticks = ", ".join(f"{threads:g}" for threads in sorted(cases))
        parts.append((text + f"""
set title "{workload}"
set xlabel "threads"
set ylabel "operations a second"
set logscale xy
set xtics ({ticks})
set xrange [{min(cases) * 0.9}:{max(cases) * 1.1}]
set format y "%.0s %c"
""", plot, names))
    if not parts:
        return None
    return panels(out, machine, "threads", "Throughput by number of threads (higher is better; both axes logarithmic)",
                  parts)


def latency(out, machine, summary):
    headline = matrix.HEADLINE_QUICK if machine["quick"] else matrix.HEADLINE
    parts = []
    fields = ("p50_us", "p99_us", "p999_us", "max_us")
    for (workload, threads), engines in summary.items():
        if workload not in matrix.SWEPT or threads != headline[workload]:
            continue
        tag = workload.replace("-", "_")
        names = present([engines])
        # 0 cannot be drawn on a logarithmic axis: a nanosecond is the least the clock tells.
        text = "".join(block(f"l_{name}_{tag}",
                             [(at, max(engines[name][field], 0.001)) for at, field in enumerate(fields)
                              if field in engines[name]]) for name in names)
        plot = ", ".join(f"$l_{name}_{tag} using 1:2 with linespoints notitle {style(name)}" for name in names)
        parts.append((text + f"""
set title "{workload}, {threads:g} thread{'s' if threads > 1 else ''}"
set xlabel "percentile of operations"
set ylabel "latency"
set logscale y
set ytics ({TIMES})
set xtics ("50 %%" 0, "99 %%" 1, "99.9 %%" 2, "worst" 3)
set xrange [-0.2:3.2]
""", plot, names))
    if not parts:
        return None
    return panels(out, machine, "latency", "Latency percentiles (lower is better; logarithmic)", parts)


def space(out, machine, summary):
    """Disk over live bytes while pages are overwritten, from what each engine sampled."""
    pages = [engines["scree"]["n"] for case, engines in summary.items()
             if case[0] == "churn" and "scree" in engines]
    churned = {name for case, engines in summary.items() if case[0] == "churn" for name in engines}
    text, plot = "", []
    for name in [name for name in matrix.ENGINES if name in churned]:
        path = os.path.join(out, f"samples-{name}.csv")
        if not pages or not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as f:
            rows = [(float(row["ops"]) / pages[0], float(row["disk"]) / float(row["live"]))
                    for row in csv.DictReader(f) if float(row["live"]) > 0]
        if rows:
            text += block(f"s_{name}", rows)
            plot.append(f'$s_{name} using 1:2 with lines title "{name}" {style(name)}')
    if not plot:
        return None
    return draw(out, "space", (1000, 560), note(machine) + text + f"""
set title "Space while 4 KiB pages are overwritten at random, zipfian (lower is better; logarithmic)"
set xlabel "overwrites so far, as a multiple of the number of pages"
set ylabel "bytes on disk / bytes that live"
set logscale y
set yrange [0.9:*]
set format y "%g"
set ytics (1, 1.5, 2, 3, 5, 10, 20, 50, 100)
set bmargin 5
plot {", ".join(plot)}""")


def all_plots(out, machine, summary):
    return [name for name in (plot(out, machine, summary) for plot in (throughput, by_threads, latency, space))
            if name]
