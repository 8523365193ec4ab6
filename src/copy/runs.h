/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a chunk that was read becomes on the target: a few runs, by what has to be done with them. */
#ifndef LUNFERRY_RUNS_H
#define LUNFERRY_RUNS_H

#include <stddef.h>
#include <stdint.h>

enum run_kind {
    RUN_DATA,
    RUN_ZEROS,
    RUN_SAME, /* it is there already */
};

struct chunk_run {
    uint32_t offset, len; /* in the chunk */
    enum run_kind kind;
};

/* A chunk is cut into at most so many runs: were every hole of 4 KiB left out, a chunk of 512 KiB could
 * shatter into 64 writes. The shortest runs that are no data become data until so few are left. */
#define RUNS_MAX 16

/*
 * Cuts a chunk into runs that cover it, neighbours being of different kinds; returns how many, 1 to
 * RUNS_MAX. Whole units of `unit` bytes are looked at (counted from the chunk's start; the last one may be
 * short). One that equals the same bytes of `reference` (NULL: there is none) is SAME; one of zeros
 * is ZEROS, if there are `least` bytes or more in a row of them. unit > 0, of any size; len > 0.
 */
unsigned runs_find(const void *bytes, const void *reference, uint32_t len, uint32_t unit,
                   uint32_t least, struct chunk_run runs[RUNS_MAX]);

#endif
