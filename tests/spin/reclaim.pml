/*
 * reclaim.pml - model of what may be given back, and when (src/log/collect.c, src/pagecache/checkpoint.c,
 * src/pagecache/space.c, feed.c): dead records go, and nothing that anybody still needs.
 *
 * GOAL      show that a record goes only when no recovery, from either generation, at any moment, needs it, no
 *           replay meets its place, no reader who found it still wants it, and no follower of the log has it
 *           before him.
 * MODELLED  one page; writers who load the slot, reserve, install by CAS or give up, charge what they superseded as dead, and
 *           complete; the flusher, to whom stable belongs; a checkpointer (C1 to C5 of checkpoint.c) that keeps
 *           two generations; a collector (C1 to C3 of collect.c) with a grace period; a reader in read sections;
 *           FEED: a follower that reads the stable log from a position on.
 * ASSERTED  at any moment, were there a crash, for both generations: what its table names is durable and there;
 *           no record from its S up to the stable end is gone; table and replay together give the newest record
 *           that is stable. What a reader finds is there for as long as he is inside. What a follower reads is.
 * NOT HERE  granules: a record stands for its granule, which is what I3 of log/space.c is for. Weak memory:
 *           a death is charged before the charging thread completes (release), which settling and stable wait
 *           for (acquire); the slot and the grace period are liburcu's matter.
 *
 *   spin -DNW=3 -search -O2 reclaim.pml         must pass
 *   spin -DNW=2 -DFEED -search -O2 reclaim.pml  must pass
 * Seeded bugs, each must be found (assertion):
 *   -DNO_FLOOR      what is dead goes, whatever snapshots say
 *   -DNEWER_FLOOR   the floor is that of the newest generation: the older one cannot be fallen back to
 *   -DNO_GRACE      dropped as soon as it is picked
 *   -DNO_SETTLE     the table is walked while reservations below S are open
 *   -DNO_STABLE     a snapshot is published before what it names is durable
 *   -DFEED -DFEED_NO_PIN  the collector does not look at the follower's position
 */

#ifndef NW
#define NW 3
#endif
#ifndef NOPS
#define NOPS 1
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 2
#endif
#define LAST (1 + NW * NOPS) /* at most 5, see PICK */
#define MOST 6

byte tail = 1;   /* positions are records: 1 was there before */
byte head = 1;   /* the page's slot */
byte stable = 1;
bit completed[MOST];
bit given_up[MOST];
bit dead[MOST];
byte death[MOST];
bit gone[MOST];

/* Generations, the newer one first: where replay starts, and what the table says of the page. */
byte start[2] = 1;
byte table[2];

bit inside; /* the reader, his section; it is his only one */
byte pin = 255;  /* the follower's position */
byte given;      /* below it the collector may have been */

proctype writer()
{
    byte seen, own, before, op;

    do
    :: op < NOPS ->
        seen = head;
        atomic {
            tail++;
            own = tail
        }
        do
        :: atomic {
            head == seen && seen < own ->
            before = seen;
            head = own
           }
           /* The death and the dead bytes are one word: log/space.c I3. */
           atomic {
            death[before] = own;
            dead[before] = 1;
            before = 0
           }
           break
        :: atomic {
            head != seen ->
            seen = head
           }
           if
           :: atomic {
               seen > own ->
               given_up[own] = 1;
               death[own] = own;
               dead[own] = 1
              }
              break
           :: else
           fi
        od;
        atomic {
            completed[own] = 1;
            own = 0;
            seen = 0;
            op++
        }
    :: else -> break
    od
}

proctype flusher()
{
    do
    :: atomic {
        stable < LAST && completed[stable + 1] ->
        stable++
       }
    :: stable == LAST -> break
    od
}

proctype checkpointer()
{
    byte s, end, found, n;

    do
    :: n < SNAPSHOTS ->
        s = tail + 1;
#ifndef NO_SETTLE
        end = 1; /* C1 */
        do
        :: end < s -> completed[end] -> end++
        :: else -> break
        od;
#endif
        found = head; /* C2 */
        end = tail;   /* C3 */
#ifndef NO_STABLE
        stable >= end;
#endif
        atomic {      /* C5 */
            start[1] = start[0];
            table[1] = table[0];
            start[0] = s;
            table[0] = found;
            s = 0;
            end = 0;
            found = 0;
            n++
        }
    :: else -> break
    od
}

#ifdef NEWER_FLOOR
#define OLDEST start[0]
#else
#define OLDEST start[1]
#endif
#ifdef FEED_NO_PIN
#define FLOOR OLDEST
#else
#define FLOOR (pin < OLDEST -> pin : OLDEST)
#endif
#ifdef NO_FLOOR
#define MAY_GO(r) (dead[r] && !gone[r])
#else
#define MAY_GO(r) (dead[r] && !gone[r] && death[r] < FLOOR)
#endif
/* C1. The floor is chosen, and `given` set, under the mutex that a follower begins under. */
#define PICK(r)                                        \
    atomic {                                           \
        r <= LAST && MAY_GO(r) ->                      \
        given = (FLOOR > given -> FLOOR : given);      \
        picked = r                                     \
    }

proctype collector()
{
    byte picked;
    bit grace;

end_idle:
    do
    :: if
       :: PICK(1)
       :: PICK(2)
       :: PICK(3)
       :: PICK(4)
       :: PICK(5)
       fi;
#ifndef NO_GRACE
       grace = inside; /* C2 */
       !grace || !inside;
#endif
       atomic {
        gone[picked] = 1; /* C3 */
        picked = 0;
        grace = 0
       }
    od
}

proctype reader()
{
    byte found;

    atomic {
        inside = 1;
        found = head
    }
    assert(!gone[found]);
    inside = 0
}

#ifdef FEED
proctype follower()
{
    byte at;
    bit open;

    atomic {
        at = 2;
        if
        :: at >= given ->
            open = 1;
            pin = at
        :: else
        fi
    }
    do
    :: open && at <= LAST ->
        stable >= at;
        assert(!gone[at]);
        at++;
        pin = at
    :: else -> break
    od;
    pin = 255
}
#endif

/* Power fails now: what would be found, by way of this generation? */
inline recover(g)
{
    assert(table[g] <= stable);
    found = table[g];
    k = start[g];
    do
    :: k <= stable ->
        assert(!gone[k]);
        if
        :: !given_up[k] && k > found -> found = k
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = stable;
    do
    :: given_up[k] -> k--
    :: else -> break
    od;
    assert(found == k);
    assert(!gone[found])
}

proctype crash()
{
    byte k, found;

    atomic {
        recover(0);
        recover(1)
    }
}

init
{
    byte w;

    atomic {
        completed[1] = 1;
        do
        :: w < NW ->
            run writer();
            w++
        :: else -> break
        od;
        run flusher();
        run checkpointer();
        run collector();
        run reader();
#ifdef FEED
        run follower();
#endif
        run crash()
    }
}
