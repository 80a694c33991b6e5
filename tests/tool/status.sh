#!/usr/bin/env bash
# status.sh <directory of the programs> - exit statuses and first words of the commands that look at a directory:
# 0, 1 damage, 2 usage, 3 it could not be done; on clean, crashed, damaged, missing ones, and on no directory.
set -u
bin=$1
work=$(mktemp -d "${SCREE_TEST_DIR:-${TMPDIR:-/tmp}}/scree-status-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2

fail() {
    echo "FAILED: $*"
    exit 1
}

# status <expected> <command of scree> <argument>...: its output is in out, its complaints in err.
status() {
    local expected=$1 rc
    shift
    rm -rf copy
    "$bin/scree" "$@" >out 2>err
    rc=$?
    [ $rc -eq "$expected" ] || fail "scree $* gave $rc, not $expected: $(head -c 2000 out err)"
    if [ $rc -eq 2 ] || [ $rc -eq 3 ]; then
        [ -s err ] || fail "scree $* gave $rc and said nothing"
    fi
}

# flip <file> <offset>
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# all <expected> <directory>: every command, as text and as JSON.
all() {
    local json
    for json in "" --json; do
        # shellcheck disable=SC2086
        {
            status "$1" verify $json "$2"
            status "$1" salvage $json "$2" copy
            status "$1" backup $json "$2" copy
            status "$1" log $json "$2"
            status "$1" dump $json "$2"
        }
    done
}

"$bin/follow" work clean 1 >/dev/null || fail "no clean directory"
# Killed; in log the first record behind the newest snapshot's start is damaged. If it was synced last of all that is
# a torn tail, and nothing to be found: once more.
found=0
for _ in $(seq 20); do
    bash -c "timeout -s KILL 1 '$bin/follow' work crashed 60; true" >/dev/null 2>&1
    # Gone, with all its threads, a moment after timeout says so.
    start=$("$bin/scree" stat crashed 2>/dev/null | sed -nE 's/^ *snapshot_lsn  +([0-9]+)$/\1/p')
    [ -n "$start" ] || continue
    lsn=$("$bin/scree" log --json crashed | sed -n 's/^{"lsn":\([0-9]*\),.*/\1/p' |
        awk -v start="$start" '$1 >= start' | head -n 1)
    [ -n "$lsn" ] || continue
    rm -rf log
    cp -r crashed log
    size=$(od -An -tu8 -j 24 -N 8 "$(ls log/segment-* | head -n 1)" | tr -d ' ')
    flip "$(printf 'log/segment-%016x' $((lsn / size)))" $((4096 + lsn % size + 20))
    "$bin/scree" verify log >/dev/null || found=1
    [ $found -eq 1 ] && break
done
[ -e crashed/OPEN ] && [ $found -eq 1 ] || fail "no crashed directory"

all 0 clean
status 0 verify clean
grep -q '^clean: clean; damage 0, lost 0, notes 0$' out || fail "verify: $(cat out)"
status 0 verify --json clean
grep -qx '{"damage":0,"lost":0,"notes":0}' out || fail "verify --json: $(cat out)"
status 0 backup clean copy
grep -q '^clean: [0-9]* pages as of lsn [0-9]*, [0-9]* bytes in [0-9.]* s, in copy$' out || fail "backup: $(cat out)"
status 0 verify clean
page=$("$bin/scree" dump clean | sed -nE '2s/^page ([0-9]+) .*/\1/p')
status 0 dump clean "$page"
grep -q "^page $page  version " out || fail "dump of a page: $(cat out)"
status 3 dump clean 999999999
all 0 crashed

# A record that is replayed: nothing but verify and salvage goes on.
for command in "verify log" "salvage log copy" "backup log copy" "log log" "dump log"; do
    # shellcheck disable=SC2086
    status 1 $command
    cat out err >both
    grep -q "lsn $lsn\b" both || fail "$command does not name lsn $lsn: $(head -n 5 both)"
done
status 1 verify --json log
grep -q "\"lsn\":$lsn," out || fail "verify --json does not name lsn $lsn"
[ "$(tail -n 1 out)" != '{"damage":0,"lost":0,"notes":0}' ] || fail "the last line counts nothing"

# A manifest that is damaged, and one that is gone.
cp -r clean older
flip "$(ls older/manifest-* | tail -n 1)" 20
status 1 verify older
status 1 salvage older copy
for command in "log older" "dump older"; do
    # shellcheck disable=SC2086
    status 0 $command
    grep -q 'passed over 1 damaged manifest' err || fail "$command: $(cat err)"
done
cp -r clean none
rm none/manifest-*
status 1 verify none
for command in "backup none copy" "log none" "dump none"; do
    # shellcheck disable=SC2086
    status 1 $command
    grep -q salvage err || fail "$command: $(cat err)"
done
status 3 salvage none copy
name=$("$bin/scree" stat clean | sed -nE 's/^ *materializer  +([^ ]*)$/\1/p')
status 1 salvage --materializer "$name" none copy
"$bin/scree" verify copy >out || fail "what was salvaged: $(cat out)"
[ "$("$bin/scree" dump copy | wc -l)" -eq "$("$bin/scree" dump clean | wc -l)" ] || fail "not all was salvaged"

# Nothing to look at.
: >file
mkdir empty
for what in missing file empty; do
    all 3 $what
    grep -q "$what" err || fail "the complaint does not name $what: $(cat err)"
done
mkdir full
: >full/file
"$bin/scree" backup clean full >out 2>err
[ $? -eq 3 ] || fail "backup into a directory that is not empty"
"$bin/scree" salvage clean full >out 2>err
[ $? -eq 3 ] || fail "salvage into a directory that is not empty"

for command in verify salvage backup log dump; do
    status 2 $command
    status 2 $command --no-such-option clean copy
    status 2 $command clean copy more and more
    status 0 $command --help
    grep -qi 'exit status' out || fail "$command --help does not tell the exit status"
done
status 2 dump clean none
status 2 no-such-command clean

# On a terminal progress comes on standard error, and nothing of it stays.
if script -qec true /dev/null >/dev/null 2>&1; then
    script -qec "\"$bin/scree\" verify clean >out" /dev/null >terminal 2>&1 || fail "verify on a terminal"
    grep -q '^clean: clean' out || fail "verify on a terminal: $(cat out)"
fi
echo "scree verify, salvage, backup, log, dump: ok"
