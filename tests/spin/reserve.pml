/*
 * reserve.pml - model of the log's reservation and flush protocol (DESIGN: log, reserve, runs and seals).
 *
 * GOAL      show that the flusher never writes a byte that is not filled, that its bound never goes back,
 *           that nobody waits for ever, and that whoever waits for stable is served.
 * MODELLED  the tail and its fetch_add; one slot a writer; the position published before the fetch_add (the
 *           end of the writer's last record) and again behind it; the flusher's scan (tail first, then each slot once);
 *           streaming of whole blocks; seals by CAS on the tail; syncs; poison; completed and aborted
 *           records (both fill what was reserved: the flusher cannot tell them apart).
 * NOT HERE  weak memory: every edge is store-release then RMW against RMW/load-acquire then
 *           load-acquire, which is message passing, so interleavings are enough. Futexes: a wait is a
 *           guard here, and `changed` stands for the flusher's wake-up word.
 *
 * Positions are bytes of an endless log and never wrap here; RING bytes of them are in memory.
 *
 *   spin -DNW=3 -search -O2 reserve.pml              must pass
 *   spin -DNW=3 -DPOISON -search -O2 reserve.pml     must pass: a write fails at some point
 * Seeded bugs, each must be found:
 *   -DSLOTS_BEFORE_TAIL     the scan loads the slots, then the tail: bytes go out unfilled (assertion)
 *   -DSTALE_WHILE_WAITING   a writer waits for room at the position it started from (deadlock)
 *   -DBOUND_IS_LAST_MIN     the bound is the last minimum, not the largest one: it goes back (assertion)
 *   -DSEAL_WITHOUT_ROOM     a seal is claimed past flushed + RING: it overwrites bytes (assertion)
 *   -DCOMPLETE_BEFORE_FILL  a slot is cleared before the bytes are there (assertion)
 *   -DPOISON -DPOISON_WAKES_NOBODY  waiters do not look at poison (deadlock)
 */

#ifndef NW
#define NW 3 /* writers */
#endif
#ifndef NOPS
#define NOPS 2 /* operations of each */
#endif
#ifndef RING
#define RING 4 /* bytes in memory; at least BLOCK + the longest record */
#endif
#ifndef BLOCK
#define BLOCK 2 /* bytes; streaming writes whole ones, a sync ends on a boundary */
#endif

#define START BLOCK /* position 0 is never a record */
#define IDLE 255 /* slot: this writer works on nothing */
/* Which operations wait for stable: every writer's last, and every second before. */
#define COMMITS(me, op) ((op) == NOPS || ((me) + (op)) % 2)
#define UP(p) ((((p) + BLOCK - 1) / BLOCK) * BLOCK)
#define DOWN(p) (((p) / BLOCK) * BLOCK)
#define ROOM(end) ((end) <= flushed + RING)

#ifdef POISON_WAKES_NOBODY
#define GIVEN_UP false
#else
#define GIVEN_UP poisoned
#endif

byte tail;          /* the next free position: writers fetch_add, the flusher CAS */
byte slot[NW];      /* position worked from, IDLE if none: its writer stores, the flusher loads */
bit filled[RING];   /* ring byte holds what its position should: set by the writer, cleared when written */
byte flushed;       /* below it all is written: room in the ring */
byte stable;        /* below it all is synced */
byte want;          /* committers ask for a sync up to here */
bool poisoned;      /* a write failed: writing is over */
bool changed;       /* something a scan could see has changed since the last one began */
byte done;          /* writers that have ended */

/* One writer, NOPS operations. */
proctype writer(byte me)
{
    byte op, p, n, i;
    byte last = START; /* end of what was reserved last */

    do
    :: atomic { op < NOPS && !poisoned -> n = 1 + (me + op) % 2 }; /* lengths 1 and 2 */
        atomic { slot[me] = last; changed = true };  /* publish, before the fetch_add */
        atomic { p = tail; tail = tail + n; last = tail; changed = true };
#ifndef STALE_WHILE_WAITING
        atomic { slot[me] = p; changed = true };               /* publish again, before any wait */
#endif
#ifdef COMPLETE_BEFORE_FILL
        atomic { slot[me] = IDLE; changed = true };
#endif
        /* Wait for room, fill (the record, or an aborted one of the same length) and complete. */
        atomic {
            if
            :: ROOM(p + n) ->
                do
                :: i < n ->
                    assert(p + i >= flushed);        /* never fills what is on disk already */
                    assert(!filled[(p + i) % RING]); /* never runs over what is not */
                    filled[(p + i) % RING] = 1;
                    i++
                :: else -> i = 0; break
                od
            :: GIVEN_UP
            fi;
            slot[me] = IDLE;
            changed = true;
            op++;
            if
            :: !COMMITS(me, op) -> n = 0; p = 0
            :: else
            fi
        };
        if
        :: n > 0 -> /* commit */
            atomic {
                if
                :: want < p + n -> want = p + n
                :: else
                fi;
                changed = true
            };
            atomic {
                if
                :: stable >= p + n -> assert(flushed >= p + n)
                :: GIVEN_UP
                fi;
                n = 0;
                p = 0
            }
        :: else
        fi
    :: atomic { op == NOPS || poisoned -> done++; break }
    od
}

proctype flusher()
{
    byte bound = START;  /* everything below is filled */
    byte sealed = START; /* the run being synced ends here; == stable when there is none */
    byte m, i, to;

end:
    do
    :: atomic { changed -> changed = false };
        /* Scan: the tail, then each slot once. */
#ifdef SLOTS_BEFORE_TAIL
        m = IDLE;
#else
        m = tail;
#endif
        do
        :: atomic { i < NW ->
                if
                :: slot[i] < m -> m = slot[i]
                :: else
                fi;
                i++
            }
        :: atomic { i == NW -> i = 0; break }
        od;
#ifdef SLOTS_BEFORE_TAIL
        atomic {
            if
            :: tail < m -> m = tail
            :: else
            fi
        };
#endif
        atomic {
#ifdef BOUND_IS_LAST_MIN
            bound = m;
#else
            if
            :: m > bound -> bound = m
            :: else
            fi;
#endif
            m = 0;
            assert(bound >= flushed); /* it never goes back behind what was written on its word */
            assert(bound <= tail)
        };
        /* A sync is wanted and no run is closed for it: close one, if the ring has room. */
        atomic {
            if
            :: want > stable && sealed == stable ->
                if
                :: DOWN(bound) >= want -> sealed = DOWN(bound) /* whole blocks cover it: no seal */
                :: else -> m = tail
                fi
            :: else
            fi
        };
        atomic {
            if
            :: m > 0 && m == tail && UP(m) == m -> sealed = m; changed = true
#ifdef SEAL_WITHOUT_ROOM
            :: m > 0 && m == tail && UP(m) != m ->
#else
            :: m > 0 && m == tail && UP(m) != m && ROOM(UP(m)) ->
#endif
                sealed = UP(m); /* the CAS, won; and the seal's own bytes */
                tail = sealed;
                do
                :: m < sealed ->
                    assert(!filled[m % RING]);
                    filled[m % RING] = 1;
                    m++
                :: else -> break
                od;
                changed = true
            :: m > 0 && m != tail -> changed = true /* lost: again */
            :: else /* no room: stream first */
            fi;
            m = 0
        };
        /* Write: to the end of the run if all below is filled, else whole blocks. */
        atomic {
            to = DOWN(bound);
            if
            :: sealed > stable && bound >= sealed -> to = sealed
            :: else
            fi
        };
#ifdef POISON
        if
        :: atomic { to > flushed -> poisoned = true; break } /* the write, or its sync, fails */
        :: true
        fi;
#endif
        atomic {
            if
            :: to > flushed ->
                i = flushed;
                do
                :: i < to ->
                    assert(filled[i % RING]); /* never writes an unfilled byte */
                    filled[i % RING] = 0;
                    i++
                :: else -> break
                od;
                i = 0;
                flushed = to; /* the room is published */
                changed = true
            :: else
            fi;
            to = 0
        };
        atomic {
            if
            :: sealed > stable && flushed >= sealed -> stable = sealed; changed = true /* synced */
            :: else
            fi
        }
    :: done == NW && !changed && want <= stable -> break
    od
}

init
{
    atomic {
        byte w;
        tail = START;
        flushed = START;
        stable = START;
        for (w : 0 .. NW - 1) {
            slot[w] = IDLE;
            run writer(w)
        };
        w = 0;
        run flusher()
    }
}
