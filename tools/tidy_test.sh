#!/usr/bin/env bash
# tidy_test.sh - does tools/tidy.sh fail when it should? Seeds one violation at a time into a small tree of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# A tree without violations.
plant() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/include "$tree"/build "$tree"/src/{base,env,radix,log,snapshot,pagecache}
    printf '#ifndef SCREE_H\n#define SCREE_H\nint scree_one(void);\n#endif\n' >"$tree/include/scree.h"
    local module
    for module in base env radix log snapshot pagecache; do
        local guard=SCREE_${module^^}_H
        printf '#ifndef %s\n#define %s\n#endif\n' "$guard" "$guard" >"$tree/src/$module/$module.h"
        guard=SCREE_${module^^}_PRIVATE_H
        printf '#ifndef %s\n#define %s\n#endif\n' "$guard" "$guard" >"$tree/src/$module/${module}_private.h"
        printf '#include "%s/%s_private.h"\n' "$module" "$module" >"$tree/src/$module/$module.c"
    done
    printf '__attribute__((visibility("default"))) int scree_one(void);\nint\nscree_one(void)\n{\n    return 1;\n}\n' \
        >>"$tree/src/base/base.c"
}

build() {
    (cd "$tree/build" && gcc -c -fPIC -fvisibility=hidden -I../include -I../src ../src/*/*.c &&
        ar rcs libscree.a ./*.o && gcc -shared -o libscree.so ./*.o)
}

# expect <clean|a word of the message> <what is tested>
expect() {
    local output status=0
    build
    output=$("$here/tidy.sh" "$tree" "$tree/build" 2>&1) || status=$?
    if { [ "$1" = clean ] && [ $status -eq 0 ]; } ||
        { [ "$1" != clean ] && [ $status -eq 1 ] && grep -qF -- "$1" <<<"$output"; }; then
        echo "ok      $2"
    else
        echo "FAILED  $2: exit $status"
        printf '%s\n' "$output" | sed 's/^/        /'
        failures=$((failures + 1))
    fi
    plant
}

# append <file> <line>...
append() {
    local file=$tree/src/$1
    shift
    printf '%s\n' "$@" >>"$file"
}

plant
expect clean "a tree without violations is clean"

append base/base.c '#include "env/env.h"'
expect "base may not include env/env.h" "an include that points up"
append radix/radix.c '#include "log/log.h"'
expect "radix may not include log/log.h" "radix includes log"
append log/log.c '#include "radix/radix.h"'
expect "log may not include radix/radix.h" "log includes radix"
append snapshot/snapshot.c '#include "pagecache/pagecache.h"'
expect "snapshot may not include pagecache/pagecache.h" "snapshot includes pagecache"
append pagecache/pagecache.c '#include "log/log_private.h"'
expect "log/log_private.h is private to log" "a private header from elsewhere"
append env/env.c '#include "env.h"'
cp "$tree/src/env/env.h" "$tree/include/env.h"
sed -i 's/SCREE_ENV_H/SCREE_INCLUDE_ENV_H/' "$tree/include/env.h"
expect "include by module" "an include without its module"
append log/log.c '#include <urcu/urcu-bp.h>'
expect "only base/rcu.h names the RCU flavor" "the RCU flavor named elsewhere"

append log/log.c '#include <stdatomic.h>' 'static inline int f(_Atomic int *x) { return atomic_load(x); }'
expect "use the _explicit form" "atomic_load without an order"
append log/log.c 'static inline void f(_Atomic int *x) { (*x)++; }'
expect "implicit use of sequentially-consistent" "++ on an _Atomic"
append log/log.c 'static inline void f(_Atomic int *x, int y) { *x = y; }'
expect "implicit use of sequentially-consistent" "= on an _Atomic"
append log/log.c 'static inline int f(int *x) { return __sync_fetch_and_add(x, 1); }'
expect "use C11 atomics" "a __sync builtin"
append log/log.c 'extern volatile int scree__x;'
expect "use C11 atomics" "volatile"

append log/log.c 'static inline int' 'f(void)' '{' "$(yes '    ;' | head -n 66)" '    return 1;' '}'
expect clean "a function of 70 lines"
append log/log.c 'static inline int' 'f(void)' '{' "$(yes '    ;' | head -n 67)" '    return 1;' '}'
expect "f has 71 lines" "a function of 71 lines"

append log/log.h '/* x */ '
expect "trailing whitespace" "trailing whitespace"
append log/log.h "/* $(head -c 107 /dev/zero | tr '\0' x) */"
expect "113 columns" "a line of 113 columns"
append log/log.h "$(printf '\t/* x */')"
expect "a tab" "a tab"
append log/log.c '#include <stdio.h>' 'static inline void f(void) { printf("x"); }'
expect "not in a library" "printf in the library"

sed -i 's/SCREE_LOG_H/LOG_H/' "$tree/src/log/log.h"
expect "include guard 'LOG_H'" "a guard outside the scheme"
cp "$tree/src/log/log.h" "$tree/src/env/log.h"
expect "include guard SCREE_LOG_H is taken" "a guard used twice"

append log/log.c 'int helper(void);' 'int helper(void) { return 1; }'
expect "exports helper" "a global outside scree_ in the archive"
append log/log.c '__attribute__((visibility("default"))) int scree__x(void);' 'int scree__x(void) { return 1; }'
expect "libscree.so:1: exports scree__x" "an internal name in the shared object"
append log/log.c '__attribute__((visibility("default"))) int scree_two(void);' 'int scree_two(void) { return 1; }'
expect "not in scree.h" "a public name that the header does not have"

echo "tidy_test: $failures failed"
[ "$failures" -eq 0 ]
