/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes, numbers and durations as people write and read them. */
#ifndef LUNFERRY_UNITS_H
#define LUNFERRY_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include <lunferry/error.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* "512", "64k", "1M", "2.5G", "1T", "1P" (powers of 1024; either case; "KiB", "MiB"... too).
 * The result is whole bytes. Returns 0 or -EINVAL with a sentence that quotes `text`. */
int units_parse_size(const char *text, uint64_t *bytes, struct blk_error *error);
/* A whole decimal number in [min, max]. */
int units_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number,
                       struct blk_error *error);
/* Seconds, with a fraction if wanted, as nanoseconds; more than 0, at most a year. */
int units_parse_seconds(const char *text, uint64_t *ns, struct blk_error *error);

/* For people: "512 B", "1.50 GiB". Returns buf. */
#define UNITS_TEXT 32
const char *units_size(char buf[UNITS_TEXT], uint64_t bytes);
/* "7 s", "1:05", "2:03:09" */
const char *units_duration(char buf[UNITS_TEXT], uint64_t seconds);

static inline uint64_t round_down(uint64_t value, uint64_t power_of_two)
{
    return value & ~(power_of_two - 1);
}

/* value + power_of_two must not overflow. */
static inline uint64_t round_up(uint64_t value, uint64_t power_of_two)
{
    return round_down(value + power_of_two - 1, power_of_two);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

#endif
