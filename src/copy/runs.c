/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "runs.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "zeros.h"

/* Stretches that are no data, in their order; with one more there are more runs than wanted, wherever
 * they lie. */
struct stretches {
    struct chunk_run list[RUNS_MAX + 1];
    unsigned count;
};

/* Up to `end`, with the data between the stretches. */
static unsigned count_runs(const struct stretches *stretches, uint32_t end)
{
    uint32_t at = 0;
    unsigned count = stretches->count;

    for (unsigned i = 0; i < stretches->count; i++) {
        const struct chunk_run *stretch = &stretches->list[i];

        count += stretch->offset > at;
        at = stretch->offset + stretch->len;
    }
    return count + (end > at);
}

/* Of several that are equally short, the first. */
static void drop_shortest(struct stretches *stretches)
{
    struct chunk_run *list = stretches->list;
    unsigned shortest = 0;

    for (unsigned i = 1; i < stretches->count; i++) {
        if (list[i].len < list[shortest].len)
            shortest = i;
    }
    stretches->count--;
    memmove(&list[shortest], &list[shortest + 1], (stretches->count - shortest) * sizeof(list[0]));
}

static void add(struct stretches *stretches, const struct chunk_run *stretch, uint32_t least)
{
    if (stretch->len == 0 || stretch->kind == RUN_DATA ||
        (stretch->kind == RUN_ZEROS && stretch->len < least))
        return;
    stretches->list[stretches->count++] = *stretch;
    while (count_runs(stretches, 0) > RUNS_MAX)
        drop_shortest(stretches);
}

static enum run_kind kind_of(const unsigned char *bytes, const unsigned char *reference,
                             uint32_t len)
{
    if (reference && memcmp(bytes, reference, len) == 0)
        return RUN_SAME;
    return zeros_only(bytes, len) ? RUN_ZEROS : RUN_DATA;
}

static void find_stretches(const unsigned char *bytes, const unsigned char *reference, uint32_t len,
                           uint32_t unit, uint32_t least, struct stretches *stretches)
{
    struct chunk_run here = {0, 0, RUN_DATA};
    uint32_t part;

    for (uint32_t at = 0; at < len; at += part) {
        enum run_kind kind;

        part = len - at < unit ? len - at : unit;
        kind = kind_of(bytes + at, reference ? reference + at : NULL, part);
        if (kind != here.kind) {
            add(stretches, &here, least);
            here = (struct chunk_run){at, 0, kind};
        }
        here.len += part;
    }
    add(stretches, &here, least);
}

unsigned runs_find(const void *bytes, const void *reference, uint32_t len, uint32_t unit,
                   uint32_t least, struct chunk_run runs[RUNS_MAX])
{
    struct stretches stretches = {.count = 0};
    uint32_t at = 0;
    unsigned count = 0;

    assert(len > 0 && unit > 0);
    find_stretches(bytes, reference, len, unit, least, &stretches);
    while (count_runs(&stretches, len) > RUNS_MAX)
        drop_shortest(&stretches);
    for (unsigned i = 0; i < stretches.count; i++) {
        const struct chunk_run *stretch = &stretches.list[i];

        if (stretch->offset > at)
            runs[count++] = (struct chunk_run){at, stretch->offset - at, RUN_DATA};
        runs[count++] = *stretch;
        at = stretch->offset + stretch->len;
    }
    if (at < len)
        runs[count++] = (struct chunk_run){at, len - at, RUN_DATA};
    return count;
}
