"""matrix.py - what scripts/bench runs: workloads, threads, sizes; and what each engine is called and stands for."""
import collections

# In this order everywhere, in these colours (distinct also for who sees red and green alike).
ENGINES = collections.OrderedDict([
    ("scree", "#000000"),
    ("rocksdb", "#0072b2"),
    ("lmdb", "#e69f00"),
    ("wiredtiger", "#009e73"),
    ("leveldb", "#56b4e9"),
    ("berkeleydb", "#d55e00"),
    ("tkrzw", "#cc79a7"),
    ("ceiling", "#999999"),
])
PEERS = [name for name in ENGINES if name not in ("scree", "ceiling")]

# After a loss of power their file may be damaged as a whole if nothing is synced, where the others lose the newest
# operations and no more.
FRAGILE = {"lmdb", "tkrzw"}

# Programs without an engine, of the same work; some know two workloads, so are told which.
CEILINGS = {
    "frag-merge": ["ceiling_frag_merge"],
    "mixed": ["ceiling_frag_merge", "--workload", "mixed"],
    "page-get": ["ceiling_get"],
    "page-view": ["ceiling_view"],
    "page-get-cold": ["ceiling_cold"],
    "commit": ["ceiling_commit"],
}

# One writer at a time: what more threads reach is told as a multiple of it.
CEILING_THREADS = {"commit": (1,)}

Case = collections.namedtuple("Case", "workload threads options runs_max")

# workload, threads: all, quick; options: all, quick; runs at most.
TABLE = [
    ("frag-merge", (1, 2, 4, 8), (1, 2), "--n 100000", "--n 10000", 99),
    ("page-get", (1, 2, 4, 8), (1, 2), "--n 100000", "--n 10000", 99),
    ("page-view", (1, 2), (2,), "--n 100000", "--n 10000", 99),
    ("page-get-cold", (1, 8, 32), (2,), "--n 1000000", "--n 20000", 3),
    ("mixed", (1, 2), (2,), "--n 100000", "--n 10000", 99),
    ("commit", (1, 8, 64), (1, 8), "", "", 99),
    ("batch-commit", (1, 8), (8,), "--n 100000", "--n 10000", 99),
    ("churn", (2,), (2,), "--n 250000 --seconds 120", "--n 2000 --cache 4 --seconds 2", 1),
    ("recover", (1,), (1,), "--n 1000000", "--n 20000", 3),
]
SECONDS, SECONDS_QUICK = 4, 0.3
SWEPT = ("frag-merge", "page-get", "commit")  # drawn over the number of threads
HEADLINE = {name: full[1] if len(full) > 1 else full[0] for name, full, *_ in TABLE}
HEADLINE_QUICK = {name: quick[-1] for name, _, quick, *_ in TABLE}


def cases(quick, workloads):
    for name, full, short, options, options_quick, runs_max in TABLE:
        if workloads and name not in workloads:
            continue
        for threads in short if quick else full:
            text = options_quick if quick else options
            if "--seconds" not in text:
                text += f" --seconds {SECONDS_QUICK if quick else SECONDS}"
            yield Case(name, threads, text.split(), 1 if quick else runs_max)


def rate(line):
    """The figure that counts: operations a second; of recover, pages that were there after the crash, a second."""
    return line["entries_s"] if line["workload"] == "recover" else line["ops_s"]


def cached_by_system(line):
    """Reads meant to be cold may be answered by the system's page cache."""
    return (line["workload"] == "page-get-cold" and line["engine"] in PEERS and
            "direct I/O" not in line["config"])
