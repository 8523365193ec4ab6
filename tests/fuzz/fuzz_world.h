/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A world for fuzz_reader.c: one directory on one server, nfs://host/dir, whose files are made of the bytes that
 * are tried. fuzz_world.c has a driver for it, which stands in for the real one, and a registry that knows no
 * other: whatever an image names, nothing outside of this world is opened.
 *
 *   image        the bytes
 *   again.qcow2  the same without a backing file: bytes 8 to 19 are zeros
 *   gone         cannot be opened
 *   others       OTHER_SIZE bytes, of which every second KiB is zeros
 *
 * Everything completes from the loop, in the order that the world says, or at once. Nothing here may fail but what
 * the world says.
 */
#ifndef LUNFERRY_FUZZ_WORLD_H
#define LUNFERRY_FUZZ_WORLD_H

#include <stdio.h>
#include <stdlib.h>

#include <lunferry/driver.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not kept: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define FUZZ_URL        "nfs://host/dir/image"
#define FUZZ_OTHER_SIZE UINT64_C(70001)
/* Bytes that may be allocated at any time, beside what was before. */
#define FUZZ_MEMORY (UINT64_C(64) << 20)

enum fuzz_order { FUZZ_AT_ONCE, FUZZ_OLDEST_FIRST, FUZZ_NEWEST_FIRST };

struct fuzz_request;

struct fuzz_world {
    /* Set by the owner, beside `loop`, when fuzz_world_init() has been called. */
    const uint8_t *bytes;
    size_t size;
    enum fuzz_order order;
    uint32_t align;   /* of all devices */
    unsigned fail_at; /* the request with this number fails, from 1; 0: none */
    bool cut;         /* ...and what fails is a READ that comes short, without an error */
    uint64_t budget;  /* so many requests may still come; one more is an endless loop */

    struct loop *loop;
    struct blk_settings settings; /* how devices find their world: for whoever opens one */
    unsigned open;                /* devices */
    unsigned requests;            /* that came so far */

    /* private */
    uint64_t allocated; /* at first */
    struct fuzz_request *first, *last;
    struct loop_call call;
};

void fuzz_world_init(struct fuzz_world *world);
/* All is closed. */
void fuzz_world_release(struct fuzz_world *world);

/* Aborts if more than FUZZ_MEMORY bytes are allocated. */
void fuzz_world_check_memory(const struct fuzz_world *world);

#endif
