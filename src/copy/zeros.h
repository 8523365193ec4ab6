/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeros in what was read: found at the speed of memory, in units, and merged into few runs. */
#ifndef LUNFERRY_ZEROS_H
#define LUNFERRY_ZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Are all of these bytes zero? Any alignment; len > 0. */
bool zeros_only(const void *bytes, size_t len);

struct zeros_run {
    uint32_t offset, len; /* in the chunk */
    bool zeros;
};

/* A chunk is cut into at most so many runs: were every hole of 4 KiB left out, a chunk of 512 KiB could
 * shatter into 64 writes. The shortest stretches of zeros are written as data until so few are left. */
#define ZEROS_MAX_RUNS 16

/*
 * Cuts a chunk into runs of data and of zeros, which alternate and cover it; returns how many, 1 to
 * ZEROS_MAX_RUNS. A stretch is zeros only where whole units of `unit` bytes are (counted from the
 * chunk's start; the last one may be short), and only if it has `least` bytes or more. unit > 0, of any size;
 * len > 0.
 */
unsigned zeros_find(const void *bytes, uint32_t len, uint32_t unit, uint32_t least,
                    struct zeros_run runs[ZEROS_MAX_RUNS]);

#endif
