/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "compare_runs.h"

#include <assert.h>
#include <string.h>

#include <lunferry/compare.h>
#include <lunferry/units.h>

size_t first_difference(const unsigned char *a, const unsigned char *b, size_t from, size_t len)
{
    size_t block = 4096;

    /* memcmp() is several times as fast as any loop of ours, but does not say where. */
    while (len - from > block && memcmp(a + from, b + from, block) == 0)
        from += block;
    while (from < len && a[from] == b[from])
        from++;
    return from;
}

/* The last differing byte that is linked to the one at `at` by gaps shorter than COMPARE_MERGE. It is
 * looked for backwards, so that data that is all different is passed in strides. */
static size_t last_of_run(const unsigned char *a, const unsigned char *b, size_t at, size_t len)
{
    for (;;) {
        size_t look = min_u64(at + COMPARE_MERGE - 1, len - 1);

        while (look > at && a[look] == b[look])
            look--;
        if (look == at)
            return at;
        at = look;
    }
}

static void tell(struct runs *runs)
{
    runs->open = false;
    runs->tell(runs, runs->first, runs->last - runs->first + 1);
}

void runs_settle(struct runs *runs, uint64_t offset)
{
    if (runs->open && offset > runs->last && offset - runs->last >= COMPARE_MERGE)
        tell(runs);
}

void runs_add(struct runs *runs, uint64_t offset, const unsigned char *a, const unsigned char *b,
              size_t len)
{
    size_t at = first_difference(a, b, 0, len);

    assert(!runs->open || offset > runs->last);
    while (at < len) {
        runs_settle(runs, offset + at);
        if (!runs->open) {
            runs->open = true;
            runs->first = offset + at;
        }
        at = last_of_run(a, b, at, len);
        runs->last = offset + at;
        at = first_difference(a, b, at + 1, len);
    }
}
