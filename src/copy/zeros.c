/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "zeros.h"

#include <assert.h>
#include <string.h>

/* ---- Zero or not ------------------------------------------------------------------------------ */

#define BLOCK 512

/* Sixteen bytes of any alignment: a register of x86-64 and of arm64. The type says so to gcc and clang
 * alike; of a loop over bytes or words each makes good instructions in forms that the other does not. */
typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias));

/* Without a way out in the middle, which would cost more than it saves; four at a time, because gcc -O2
 * unrolls nothing. */
static bool block_is_zero(const unsigned char *bytes)
{
    const vector *at = (const void *)bytes, *end = (const void *)(bytes + BLOCK);
    vector any = {0, 0};

    for (; at < end; at += 4)
        any |= (at[0] | at[1]) | (at[2] | at[3]);
    return (any[0] | any[1]) == 0;
}

static bool begins_with_data(const unsigned char *bytes, size_t len)
{
    uint64_t word;

    if (len < sizeof(word))
        return false;
    memcpy(&word, bytes, sizeof(word)); /* of any alignment */
    return word != 0;
}

bool zeros_only(const void *start, size_t len)
{
    const unsigned char *bytes = start, *end = bytes + len;

    /* Data seldom begins with a word of zeros: mostly this is all there is to do. */
    if (begins_with_data(bytes, len))
        return false;
    for (; end - bytes >= BLOCK; bytes += BLOCK) {
        if (!block_is_zero(bytes))
            return false;
    }
    for (; bytes < end; bytes++) {
        if (*bytes != 0)
            return false;
    }
    return true;
}

/* ---- Runs ------------------------------------------------------------------------------------- */

/* With one more there would be more runs than wanted, wherever they lie. */
#define MAX_STRETCHES (ZEROS_MAX_RUNS / 2)

/* Stretches of zeros, in their order. */
struct stretches {
    struct zeros_run list[MAX_STRETCHES + 1];
    unsigned count;
};

/* Of several that are equally short, the first. */
static void drop_shortest(struct stretches *stretches)
{
    struct zeros_run *list = stretches->list;
    unsigned shortest = 0;

    for (unsigned i = 1; i < stretches->count; i++) {
        if (list[i].len < list[shortest].len)
            shortest = i;
    }
    stretches->count--;
    memmove(&list[shortest], &list[shortest + 1], (stretches->count - shortest) * sizeof(list[0]));
}

static void add(struct stretches *stretches, uint32_t offset, uint32_t len)
{
    stretches->list[stretches->count++] = (struct zeros_run){offset, len, true};
    if (stretches->count > MAX_STRETCHES)
        drop_shortest(stretches);
}

static void find_stretches(const unsigned char *bytes, uint32_t len, uint32_t unit, uint32_t least,
                           struct stretches *stretches)
{
    uint32_t begin = 0; /* of the zeros that reach up to `at` */
    uint32_t at = 0, part;

    for (; at < len; at += part) {
        part = len - at < unit ? len - at : unit;
        if (zeros_only(bytes + at, part))
            continue;
        if (at > begin && at - begin >= least)
            add(stretches, begin, at - begin);
        begin = at + part;
    }
    if (at > begin && at - begin >= least)
        add(stretches, begin, at - begin);
}

static unsigned count_runs(const struct stretches *stretches, uint32_t len)
{
    const struct zeros_run *first = stretches->list, *last;

    if (stretches->count == 0)
        return 1;
    last = first + stretches->count - 1;
    return 2 * stretches->count + 1 - (first->offset == 0) - (last->offset + last->len == len);
}

unsigned zeros_find(const void *bytes, uint32_t len, uint32_t unit, uint32_t least,
                    struct zeros_run runs[ZEROS_MAX_RUNS])
{
    struct stretches stretches = {.count = 0};
    uint32_t at = 0;
    unsigned count = 0;

    assert(len > 0 && unit > 0);
    find_stretches(bytes, len, unit, least, &stretches);
    while (count_runs(&stretches, len) > ZEROS_MAX_RUNS)
        drop_shortest(&stretches);
    for (unsigned i = 0; i < stretches.count; i++) {
        const struct zeros_run *zeros = &stretches.list[i];

        if (zeros->offset > at)
            runs[count++] = (struct zeros_run){at, zeros->offset - at, false};
        runs[count++] = *zeros;
        at = zeros->offset + zeros->len;
    }
    if (at < len)
        runs[count++] = (struct zeros_run){at, len - at, false};
    return count;
}
