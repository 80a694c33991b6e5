/*
 * claims.h - cr_assert of Criterion's new assertions, spelt the same, made of functions. Criterion's own puts
 * so much code in the place of each one that compiling the unit tests took as long as all the rest: 54 s of
 * 147 (gcc, -O2).
 *
 *   cr_assert(condition); cr_assert(eq(int, a, b)); either also with a format and what it prints
 *   eq ne lt le gt ge (type, a, b); zero (type, a); not (condition); epsilon_eq (dbl, a, b, epsilon)
 *
 * Both sides are printed when one fails. To be included in place of <criterion/new/assert.h>.
 */
#ifndef SCREE_TEST_CLAIMS_H
#define SCREE_TEST_CLAIMS_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CLAIM_FUNCTION __attribute__((noinline, unused)) static

/* What was compared last, in words. */
static _Thread_local char claim_sides[512];

/* order: of the two sides, -1, 0 or 1 */
CLAIM_FUNCTION bool
claim_holds(const char *op, int order)
{
    switch (op[0]) {
    case '=':
        return order == 0;
    case '!':
        return order != 0;
    case '<':
        return op[1] == '=' ? order <= 0 : order < 0;
    default:
        return op[1] == '=' ? order >= 0 : order > 0;
    }
}

CLAIM_FUNCTION bool
claim_signed(const char *op, intmax_t a, intmax_t b)
{
    snprintf(claim_sides, sizeof(claim_sides), "%jd %s %jd", a, op, b);
    return claim_holds(op, (a > b) - (a < b));
}

CLAIM_FUNCTION bool
claim_unsigned(const char *op, uintmax_t a, uintmax_t b)
{
    snprintf(claim_sides, sizeof(claim_sides), "%ju %s %ju", a, op, b);
    return claim_holds(op, (a > b) - (a < b));
}

CLAIM_FUNCTION bool
claim_pointer(const char *op, uintptr_t a, uintptr_t b) /* numbers: what a points to may be unset */
{
    snprintf(claim_sides, sizeof(claim_sides), "%#jx %s %#jx", (uintmax_t)a, op, (uintmax_t)b);
    return claim_holds(op, a != b);
}

CLAIM_FUNCTION bool
claim_string(const char *op, const char *a, const char *b)
{
    snprintf(claim_sides, sizeof(claim_sides), "\"%.200s\" %s \"%.200s\"", a, op, b);
    return claim_holds(op, strcmp(a, b));
}

CLAIM_FUNCTION bool
claim_near(double a, double b, double epsilon)
{
    snprintf(claim_sides, sizeof(claim_sides), "%g is %g within %g", a, b, epsilon);
    return fabs(a - b) <= epsilon;
}

CLAIM_FUNCTION void
claim_failed(const char *file, int line, const char *what, const char *format, ...)
{
    char message[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    cr_fail(CR_FAIL_ABORT_, "%s:%d: not so: %s (%s) %s", file, line, what, claim_sides, message);
}

/* The type names of Criterion's, where each belongs; its parameter converts, and warns where it narrows. */
#define CLAIM_int(op, a, b) claim_signed(op, (int)(a), (int)(b))
#define CLAIM_long(op, a, b) claim_signed(op, (long)(a), (long)(b))
#define CLAIM_chr(op, a, b) claim_signed(op, (char)(a), (char)(b))
#define CLAIM_i64(op, a, b) claim_signed(op, (int64_t)(a), (int64_t)(b))
#define CLAIM_u8(op, a, b) claim_unsigned(op, (uint8_t)(a), (uint8_t)(b))
#define CLAIM_u32(op, a, b) claim_unsigned(op, (uint32_t)(a), (uint32_t)(b))
#define CLAIM_u64(op, a, b) claim_unsigned(op, (uint64_t)(a), (uint64_t)(b))
#define CLAIM_uint(op, a, b) claim_unsigned(op, (unsigned)(a), (unsigned)(b))
#define CLAIM_sz(op, a, b) claim_unsigned(op, (size_t)(a), (size_t)(b))
#define CLAIM_ptr(op, a, b) claim_pointer(op, (uintptr_t)(a), (uintptr_t)(b))
#define CLAIM_str(op, a, b) claim_string(op, (a), (b))

#define eq(type, a, b) CLAIM_##type("==", a, b)
#define ne(type, a, b) CLAIM_##type("!=", a, b)
#define lt(type, a, b) CLAIM_##type("<", a, b)
#define le(type, a, b) CLAIM_##type("<=", a, b)
#define gt(type, a, b) CLAIM_##type(">", a, b)
#define ge(type, a, b) CLAIM_##type(">=", a, b)
#define zero(type, a) CLAIM_##type("==", a, 0)
#define not(condition) (!(condition))
#define epsilon_eq(type, a, b, epsilon) claim_near(a, b, epsilon)

/* The "" behind is the format where there is none, and one argument too many where there is. */
#define CLAIM_FIRST(condition, ...) (condition)
#define CLAIM_REST(condition, ...) __VA_ARGS__
#undef cr_assert
#define cr_assert(...)                                                                   \
    do {                                                                                 \
        claim_sides[0] = 0;                                                              \
        if (!CLAIM_FIRST(__VA_ARGS__, ""))                                               \
            claim_failed(__FILE__, __LINE__, #__VA_ARGS__, CLAIM_REST(__VA_ARGS__, "")); \
    } while (0)

#endif
