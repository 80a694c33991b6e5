#!/usr/bin/env bash
# tidy.sh - what the compiler does not check: the architecture, the atomics, the names, the sizes.
#
#   tools/tidy.sh [<source directory> [<build directory>]]
#
# Prints one line for each violation, file:line first, and fails if there was any. With a build directory the
# exported names of libscree.a and libscree.so are checked too. tools/tidy_test.sh shows that each check fails
# when it should.
set -u
root=${1:-$(cd "$(dirname "$0")/.." && pwd)}
build=${2:+$(realpath "$2")}
cd "$root" || exit 2
found=$(mktemp)
trap 'rm -f "$found"' EXIT

function_lines_max=70
columns_max=112 # of anything; clang-format holds code to 100, tables in comments may need more

# The C files below the given directories that are there, one a line.
c_files() {
    local dir
    for dir in "$@"; do
        [ -d "$dir" ] && find "$dir" -name '*.[ch]' -type f
    done | sort
}

library=$(c_files src)
all=$(c_files include src tools examples bench tests)

# Who may include whom: down only, and log, radix side by side.
check_includes() {
    # shellcheck disable=SC2086
    awk '
        BEGIN {
            may["base"] = " base "
            may["env"] = " base env "
            may["radix"] = " base radix "
            may["log"] = " base env log "
            may["snapshot"] = " base env radix log snapshot "
            may["pagecache"] = " base env radix log snapshot pagecache "
        }
        FNR == 1 { split(FILENAME, path, "/"); from = path[2] }
        FNR == 1 && !(from in may) { print FILENAME ":1: no such module in tools/tidy.sh: " from }
        match($0, /^[ \t]*#[ \t]*include[ \t]*"[^"]*"/) {
            header = $0
            sub(/^[^"]*"/, "", header)
            sub(/".*/, "", header)
            if (header == "scree.h")
                next
            to = header
            if (!sub(/\/[^\/]*$/, "", to))
                print FILENAME ":" FNR ": include by module: \"module/" header "\""
            else if (index(may[from], " " to " ") == 0)
                print FILENAME ":" FNR ": " from " may not include " header
            else if (header ~ /_private\.h$/ && to != from)
                print FILENAME ":" FNR ": " header " is private to " to
        }
        /#[ \t]*include[ \t]*<urcu/ && FILENAME != "src/base/rcu.h" {
            print FILENAME ":" FNR ": only base/rcu.h names the RCU flavor"
        }' $library
}

# Orders are written down: no bare atomic_load(&x), no x++ or x = y on an _Atomic, no volatile.
check_atomics() {
    local file
    # shellcheck disable=SC2086
    grep -nE '\batomic_(load|store|exchange|compare_exchange_(weak|strong)|fetch_[a-z]+|flag_test_and_set|flag_clear)[ ]*\(' \
        $all /dev/null | sed 's/$/   <- use the _explicit form/'
    # shellcheck disable=SC2086
    grep -nE '\b__(sync|atomic)_[a-z]|^[^*/]*\bvolatile\b' $library /dev/null | sed 's/$/   <- use C11 atomics/'
    # Only the compiler knows what is an _Atomic. It is the same for every build: one switch set will do.
    for file in $(printf '%s\n' "$library" | grep '\.c$'); do
        clang -std=c11 -D_GNU_SOURCE= -DSCREE_YIELDS -DSCREE_ALLOC_FAULTS -Iinclude -Isrc -fsyntax-only \
            -Werror=atomic-implicit-seq-cst "$file" 2>&1 | grep -E "error:"
    done
}

# Functions fit on a screen.
check_functions() {
    # shellcheck disable=SC2086
    ctags --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne -o - $all |
        awk -F'\t' -v max="$function_lines_max" '{
            line = end = 0
            for (i = 4; i <= NF; i++) {
                if ($i ~ /^line:/) line = substr($i, 6)
                if ($i ~ /^end:/) end = substr($i, 5)
            }
            if (end > 0 && end - line + 1 > max)
                print $2 ":" line ": " $1 " has " end - line + 1 " lines, at most " max
        }'
}

check_text() {
    # shellcheck disable=SC2086
    awk -v max="$columns_max" '
        /[ \t]$/ { print FILENAME ":" FNR ": trailing whitespace" }
        length($0) > max { print FILENAME ":" FNR ": " length($0) " columns, at most " max }
        /\t/ { print FILENAME ":" FNR ": a tab" }' $all
    # A library does not print, exit or abort. assert.c does, for its own defects.
    # shellcheck disable=SC2086
    grep -nE '(^|[^A-Za-z_"])(printf|puts|perror|abort|exit|_Exit)[ ]*\(|\bstd(out|err)\b' $library /dev/null |
        grep -vE '^src/base/assert\.c:|^[^:]*:[0-9]+:[ ]*(/?\*|//)' | sed 's/$/   <- not in a library/'
}

# Header guards: SCREE_<NAME>_H or SCREE_<MODULE>_<NAME>_H, each once.
check_guards() {
    local header name module guard guards=
    for header in $(c_files include src | grep '\.h$'); do
        name=$(basename "$header" .h | tr '[:lower:]' '[:upper:]')
        module=$(basename "$(dirname "$header")" | tr '[:lower:]' '[:upper:]')
        guard=$(awk '/^#ifndef/ { g = $2; getline; if ($1 == "#define" && $2 == g) print g; exit }' "$header")
        case $guard in
        "SCREE_${name#SCREE_}_H" | "SCREE_${module}_${name}_H") ;;
        SCREE_H) [ "$header" = include/scree.h ] || echo "$header:1: include guard $guard" ;;
        *) echo "$header:1: include guard '$guard', not SCREE_${name}_H or SCREE_${module}_${name}_H" ;;
        esac
        case " $guards " in *" $guard "*) echo "$header:1: include guard $guard is taken" ;; esac
        guards="$guards $guard"
    done
}

# Nothing outside scree_ leaves the archive; nothing outside the public header leaves the shared object.
check_names() {
    local archive=$1/libscree.a shared=$1/libscree.so name
    for name in "$archive" "$shared"; do
        [ -e "$name" ] || echo "$name:1: not built"
    done
    [ -e "$archive" ] && nm -g --defined-only "$archive" | awk -v lib="$archive" '
        # The sanitizers and compilers bring theirs, with a leading double underscore.
        NF == 3 && $3 !~ /^scree_/ && $3 !~ /^__/ { print lib ":1: exports " $3 }'
    # Public are the scree_ names without the double underscore of internal ones, and the header has them all.
    [ -e "$shared" ] && nm -D --defined-only "$shared" | awk '{ print $NF }' | while read -r name; do
        case $name in
        scree__* | [!s]* | s[!c]*) echo "$shared:1: exports $name" ;;
        *) grep -qE "\\b$name\\(" include/scree.h || echo "$shared:1: exports $name, not in scree.h" ;;
        esac
    done
}

# The program in the README is the one that is built and run.
check_readme() {
    [ -f README.md ] && [ -f examples/counter.c ] || return 0
    awk '/^```c$/ { inside = 1; next } /^```$/ { inside = 0 } inside' README.md |
        cmp -s - examples/counter.c || echo "README.md:1: its program is not examples/counter.c"
}

{
    check_includes
    check_readme
    check_atomics
    check_functions
    check_text
    check_guards
    if [ -n "$build" ]; then
        check_names "$build"
    fi
} >"$found"

if [ -s "$found" ]; then
    cat "$found"
    echo "tidy: $(wc -l <"$found") violations"
    exit 1
fi
echo "tidy: clean"
