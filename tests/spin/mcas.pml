/*
 * mcas.pml - model of multi-word compare-and-swap (src/pagecache/mcas.c): two slots change together, or none.
 *
 * GOAL      show that an operation takes effect at one moment (K3) or not at all, that a slot never keeps an
 *           entry, and that a descriptor is retired only when no slot holds an entry of it and none ever will.
 * MODELLED  every load, CAS and fetch_add on a slot, a status and a count of users as one step; owners, who
 *           help what they find in their slots before they plant; entries that are only checks (next is old);
 *           a single-page updater that helps likewise, and may stop for ever at any step; a reader that only
 *           resolves.
 * ASSERTED  at K3 both slots stand for what the operation expects, so commits in the order of K3 are a serial
 *           order (`now`); who sees the same words in two walks saw a state of that order; nothing is planted
 *           for a retired descriptor; no slot holds an entry when its users are 0 for the first time, nor when
 *           it is retired; at the end both slots hold plain words, those of the serial order (HELPER_STOPS: an
 *           entry may be left of an operation that the one who stopped is still counted in; it stands for the
 *           right word).
 * NOT HERE  weak memory: every edge is release against acquire on one word, or two on `users`. Words that come
 *           back: each is unique here, as I2 says; memory is reused after a grace period only, so a retired
 *           descriptor may be looked at. Trying again after a failure: it is one more operation.
 *
 *   spin -search -O2 mcas.pml                  must pass: two owners, one updater
 *   spin -DHELPER_STOPS -search -O2 mcas.pml   must pass
 *   spin -DREADER -search -O2 mcas.pml         must pass: a reader in place of the updater
 * Seeded bugs, each must be found:
 *   -DPLAIN_PLANT    a helper does not count itself among the users: it plants for the retired (assertion)
 *   -DEARLY          the next word is installed before the decision (assertion)
 *   -DREADER -DEARLY the same, with a reader (assertion)
 */

#define NOPS 2
#define UNDECIDED 0
#define COMMITTED 1
#define FAILED 2

/* Words: FIRST, what operation m writes, what the updater writes; entries of operation m. */
#define FIRST 1
#define WORD(m) (2 + (m))
#define UPDATED 4
#define ENTRY(m) (8 + (m))
#define IS_ENTRY(w) ((w) >= 8)
#define OP(w) ((w) - 8)
#define AT(m, i) (2 * (m) + (i))
#define STANDS(m, i, s) ((s) == COMMITTED -> next[AT(m, i)] : old[AT(m, i)])
#define HOLDS(m) (slot[0] == ENTRY(m) || slot[1] == ENTRY(m))

byte slot[2];
byte old[4];        /* of an operation's entries; set before it plants */
byte next[4];
byte status[NOPS];
byte users[NOPS];
bit unused[NOPS];   /* users was 0 once */
bit retired[NOPS];
byte now[2];        /* not of the protocol: what the slots stand for, by the order of K3 */
#ifdef READER
bit was[16];        /* and what they have stood for together, by CODE */
#endif
byte done;          /* processes that have ended */
bool stopped;       /* the updater goes no further */

#ifdef READER
#define CODE(a, b) (4 * ((a) - 1) + (b) - 1)
#define RECORD was[CODE(now[0], now[1])] = 1
#else
#define RECORD skip
#endif

/* K5: the slot of entry i of m, if it still holds it. */
inline clear_entry(m, i, s)
{
    atomic {
        if
        :: slot[i] == ENTRY(m) -> slot[i] = STANDS(m, i, s)
        :: else
        fi
    }
}

/* K2: `to` becomes FAILED if it cannot be. */
inline plant(m, i)
{
    do
    :: w = slot[i];
        if
        :: w == ENTRY(m) -> break
        :: IS_ENTRY(w) && w != ENTRY(m) ->
            st = status[OP(w)];
            if
            :: st == UNDECIDED -> to = FAILED; break
            :: else -> clear_entry(OP(w), i, st)
            fi
        :: !IS_ENTRY(w) && w != old[AT(m, i)] -> to = FAILED; break
        :: !IS_ENTRY(w) && w == old[AT(m, i)] ->
            if
            :: status[m] != UNDECIDED -> break
            :: else
            fi;
            atomic {
                if
                :: slot[i] == w ->
                    assert(!retired[m]); /* memory that nobody will rid the slot of */
                    slot[i] = ENTRY(m);
                    break
                :: else
                fi
            }
        fi
    od;
    w = 0;
    st = 0
}

/* K2 for both, K3 */
inline decide(m)
{
    to = COMMITTED;
    plant(m, 0);
#ifdef EARLY
    clear_entry(m, 0, COMMITTED);
#endif
    if
    :: to == COMMITTED ->
        plant(m, 1)
#ifdef EARLY
        ; clear_entry(m, 1, COMMITTED)
#endif
    :: else
    fi;
    atomic {
        if
        :: status[m] == UNDECIDED -> /* LP */
            status[m] = to;
            if
            :: to == COMMITTED ->
                assert(now[0] == old[AT(m, 0)] && now[1] == old[AT(m, 1)]);
#ifndef EARLY
                assert(slot[0] == ENTRY(m) && slot[1] == ENTRY(m));
#endif
                now[0] = next[AT(m, 0)];
                now[1] = next[AT(m, 1)];
                RECORD
            :: else
            fi
        :: else
        fi;
        to = 0
    }
}

inline clear(m)
{
    st = status[m];
    assert(st != UNDECIDED);
    if
    :: slot[0] == ENTRY(m) -> clear_entry(m, 0, st)
    :: else
    fi;
    if
    :: slot[1] == ENTRY(m) -> clear_entry(m, 1, st)
    :: else
    fi;
    st = 0
}

/* K6 */
inline release(m)
{
    atomic {
        users[m]--;
        if
        :: users[m] == 0 -> assert(unused[m] || !HOLDS(m)); unused[m] = 1; w = 1
        :: else
        fi
    };
    if
    :: w == 1 ->
        atomic {
            if
            :: users[m] == 0 && !retired[m] -> assert(!HOLDS(m)); retired[m] = 1
            :: else
            fi;
            w = 0
        }
    :: else
    fi
}

/* Leaves in `word` what slot i holds when it is no entry. */
inline help(i)
{
    do
    :: word = slot[i];
        if
        :: !IS_ENTRY(word) -> break
        :: else
        fi;
        h = OP(word);
#ifndef PLAIN_PLANT
        users[h]++; /* K1 */
#endif
        if
        :: status[h] == UNDECIDED -> decide(h)
        :: else
        fi;
        clear(h);
#ifndef PLAIN_PLANT
        release(h);
#endif
        h = 0
    od
}

/* One operation: load both slots, then change both, or one and only check the other. */
proctype owner(byte me)
{
    byte w, st, to, word, h;

    help(0);
    old[AT(me, 0)] = word;
    help(1);
    atomic {
        old[AT(me, 1)] = word;
        word = 0;
        next[AT(me, 0)] = WORD(me);
        next[AT(me, 1)] = WORD(me);
        if
        :: next[AT(me, 0)] = old[AT(me, 0)]
        :: next[AT(me, 1)] = old[AT(me, 1)]
        :: true
        fi
    };
    decide(me);
    clear(me);
    release(me);
    done++
}

/* One update of a slot by itself. */
proctype updater()
{
    byte w, st, to, word, h;
    bit i;

    {
        if
        :: i = 0
        :: i = 1
        fi;
        help(i);
        atomic {
            if
            :: slot[i] == word -> /* U1, LP */
                assert(now[i] == word);
                slot[i] = UPDATED;
                now[i] = UPDATED;
                RECORD
            :: else
            fi;
            word = 0;
            i = 0
        }
    } unless {
        atomic { stopped -> w = 0; st = 0; to = 0; word = 0; h = 0; i = 0 }
    };
    done++
}

inline resolve(i, into)
{
    into = slot[i];
    if
    :: IS_ENTRY(into) -> into = STANDS(OP(into), i, status[OP(into)]) /* K4 */
    :: else
    fi
}

#ifdef READER
/* Two walks that see the same saw what was there between them. */
proctype reader()
{
    byte a, b, c, d;

    resolve(0, a);
    resolve(1, b);
    resolve(0, c);
    resolve(1, d);
    assert(a != c || b != d || was[CODE(a, b)]);
    done++
}
#endif

init
{
    atomic {
        slot[0] = FIRST;
        slot[1] = FIRST;
        now[0] = FIRST;
        now[1] = FIRST;
        RECORD;
        users[0] = 1;
        users[1] = 1;
        run owner(0);
        run owner(1);
#ifdef READER
        run reader()
#else
        run updater()
#endif
    };
#ifdef HELPER_STOPS
    stopped = true;
#endif
    atomic {
        done == 3 ->
#ifdef HELPER_STOPS
        assert(!IS_ENTRY(slot[0]) || users[OP(slot[0])] > 0);
        assert(!IS_ENTRY(slot[1]) || users[OP(slot[1])] > 0);
        if
        :: IS_ENTRY(slot[0]) -> slot[0] = STANDS(OP(slot[0]), 0, status[OP(slot[0])])
        :: else
        fi;
        if
        :: IS_ENTRY(slot[1]) -> slot[1] = STANDS(OP(slot[1]), 1, status[OP(slot[1])])
        :: else
        fi;
#else
        assert(retired[0] && retired[1]);
#endif
        assert(slot[0] == now[0] && slot[1] == now[1])
    }
}
