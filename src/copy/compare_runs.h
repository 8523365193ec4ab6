/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs of differing bytes. Two buffers after the other are looked through in the order of their
 * offsets; bytes that differ and are closer to each other than COMPARE_MERGE make one run, wherever
 * buffers end. At most one run is held back, as the next byte may belong to it.
 */
#ifndef LUNFERRY_COMPARE_RUNS_H
#define LUNFERRY_COMPARE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct runs {
    void (*tell)(struct runs *runs, uint64_t offset, uint64_t len);
    /* private; zero in the beginning */
    bool open;
    uint64_t first, last; /* differing bytes: where the run begins and, so far, ends */
};

/* The first index at or after `from` at which the buffers differ; len: none. */
size_t first_difference(const unsigned char *a, const unsigned char *b, size_t from, size_t len);

/* Looks through what lies at [offset, offset + len). What was not looked at on the way is the same. */
void runs_add(struct runs *runs, uint64_t offset, const unsigned char *a, const unsigned char *b,
              size_t len);
/* All differences before `offset` have been added: a run that cannot go on is told. UINT64_MAX: there
 * are no more. */
void runs_settle(struct runs *runs, uint64_t offset);

#endif
