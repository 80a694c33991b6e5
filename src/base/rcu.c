/*
 * rcu.c - the token by which ThreadSanitizer learns of grace periods (rcu.h). No other build refers
 * to it.
 */
#include "base/rcu.h"

#ifdef SCREE_TSAN
char scree__rcu_token;
#endif
