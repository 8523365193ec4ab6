/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The retry clock by itself: the owner is the test, the items are numbers, and time passes when it is
 * told to. */
#ifndef LUNFERRY_TEST_BENCH_H
#define LUNFERRY_TEST_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/block/retry.h"

#define MS      LOOP_MSECOND
#define SECOND  LOOP_SECOND
#define TIMEOUT (60 * SECOND)
#define GIVE_UP (600 * SECOND)
#define ITEMS   8

struct bench {
    struct loop *loop;
    struct blk_settings settings;
    struct blk_watcher watcher;
    struct retry retry;
    struct retry_item items[ITEMS];
    char log[4096]; /* what the owner and the watcher were called with */
};

void bench_init(struct bench *bench, uint64_t give_up);
void bench_release(struct bench *bench);
/* Time passes, and what is due happens. */
void bench_pass(struct bench *bench, uint64_t ns);
/* Just these were called since the last time. */
void bench_check_log(struct bench *bench, const char *expected);
/* How long until something is logged, to the millisecond; that much time passes. */
uint64_t bench_wait(struct bench *bench);

/* Something is wanted done, and handed to the driver. */
void bench_begin(struct bench *bench);
/* The driver answers: no. True: it is kept. */
bool bench_answer(struct bench *bench, unsigned item, enum blk_retry kind);
void bench_succeed(struct bench *bench);
/* A recovery fails. */
void bench_recovered(struct bench *bench, enum blk_retry kind);

#endif
