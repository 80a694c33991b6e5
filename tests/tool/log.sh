#!/usr/bin/env bash
# log.sh <directory of the programs> - what `scree log` prints, and its exit statuses.
set -u
bin=$1
dir=$(mktemp -d "${SCREE_TEST_DIR:-${TMPDIR:-/tmp}}/scree-log-XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "FAILED: $*"
    exit 1
}

# status <expected> <command>...
status() {
    local expected=$1 rc
    shift
    "$@" >"$dir/out" 2>"$dir/err"
    rc=$?
    [ $rc -eq "$expected" ] || fail "$* gave $rc, not $expected: $(cat "$dir/err")"
}

# What is there begins at the snapshot before the last: now and then that is the end.
lines=0
for _ in $(seq 20); do
    status 0 "$bin/follow" work "$dir/a" 1
    status 0 "$bin/scree" log "$dir/a"
    lines=$(wc -l <"$dir/out")
    [ "$lines" -gt 100 ] && grep -q 'in batch$' "$dir/out" && break
done
[ "$lines" -gt 100 ] || fail "$lines lines"
cp -r "$dir/a" "$dir/damaged"
grep -q '^lsn [0-9]*  delta     page [0-9]*  version [0-9]*  bytes [0-9]*  in batch$' "$dir/out" || fail "no batch"
status 0 "$bin/scree" log --json "$dir/a"
[ "$(grep -c '^{"lsn":[0-9]*,"next":[0-9]*,"kind":"[a-z]*","page":[0-9]*,.*}$' "$dir/out")" -eq "$lines" ] ||
    fail "other lines as JSON"

# From a record's next on there is one less; from its middle there is nothing.
next=$(grep -v '"more":true' "$dir/out" | sed -nE '1s/.*"next":([0-9]+).*/\1/p')
before=$(grep -n "\"next\":$next," "$dir/out" | tail -n 1 | cut -d: -f1)
status 0 "$bin/scree" log --from "$next" "$dir/a"
[ "$(wc -l <"$dir/out")" -eq $((lines - before)) ] || fail "--from $next"
status 2 "$bin/scree" log --from $((next + 1)) "$dir/a"
status 2 "$bin/scree" log
status 2 "$bin/scree" log --no-such-option "$dir/a"
status 3 "$bin/scree" log "$dir/none"

# A writer comes and goes; --follow goes on, or says that the log there was given back.
"$bin/scree" log --follow "$dir/a" >"$dir/follow" 2>&1 &
follower=$!
for _ in $(seq 100); do
    [ "$(wc -l <"$dir/follow")" -ge "$lines" ] && break
    sleep 0.1
done
# A slow machine may get nothing done in a second.
for _ in $(seq 20); do
    until "$bin/follow" work "$dir/a" 1 2>/dev/null; do sleep 0.1; done
    for _ in $(seq 20); do
        [ "$(wc -l <"$dir/follow")" -gt "$lines" ] && break 2
        sleep 0.2
    done
done
kill $follower
wait $follower
status=$?
[ "$(wc -l <"$dir/follow")" -gt "$lines" ] ||
    fail "--follow ended with $status: $(grep -v ^lsn "$dir/follow" | tail -n 3) $(tail -n 1 "$dir/follow")"

# Damage in the middle of what is kept: told, with the file.
segments=("$dir"/damaged/segment-*)
segment=${segments[-1]}
at=$(grep -abo wrote "$segment" | tail -n 10 | head -n 1 | cut -d: -f1)
printf W | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none
status 1 "$bin/scree" log "$dir/damaged"
grep -q segment- "$dir/err" || fail "damage: $(cat "$dir/err")"
echo "scree log: ok"
