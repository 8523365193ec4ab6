/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading around medium errors.
 *
 * A READ of a whole chunk that fails says that something in it cannot be read, and little more. A
 * salvage reads the same range once more by smaller requests, one at a time (a failing disk answers
 * each after seconds), until it knows for each block whether it can be read. What cannot is zeros in
 * the buffer, and is told in ranges.
 *
 * Blocks are the device's own (limits.align, at least 512 bytes; 4096 where the device has none, as
 * files on NFS). Requests are at most SALVAGE_PIECE. One that fails goes straight to the block that
 * the device names (blk_req.bad_offset), as long as it is right about that, and is halved otherwise.
 * After a bad block single blocks are read, then twice as much with each success: bad blocks come in
 * runs. So each run of bad blocks costs one READ a block, and at most SALVAGE_OVERHEAD beside it.
 * A block is given up only when a READ of nothing else has failed.
 *
 * The caller owns the struct, the buffer and the device until done(), which is called once, from the
 * loop, never from inside salvage_start().
 */
#ifndef LUNFERRY_SALVAGE_H
#define LUNFERRY_SALVAGE_H

#include <lunferry/block.h>

#define SALVAGE_PIECE    (64u << 10)
#define SALVAGE_OVERHEAD 16 /* READs: 64 KiB has 2^7 blocks, to be halved into and doubled out of */

struct salvage {
    /* Set by the caller. */
    struct blk_dev *dev;
    uint64_t offset, len; /* of the READ that failed; len > 0 */
    unsigned char *buffer;
    /* Bad bytes, already zero in the buffer. Ranges come in ascending order and do not touch, but
     * one may touch the end of the range before this salvage's, or the start of the next one's. */
    void (*found)(void *opaque, uint64_t offset, uint64_t len);
    void (*done)(struct salvage *salvage);
    void *opaque;

    /* Valid in done(). */
    int status;             /* 0 (the buffer holds what there is) or -errno: not a medium error */
    struct blk_error error; /* as the middle made it: the side is to be added */
    uint64_t bad;           /* bytes */

    /* private */
    enum { SALVAGE_IDLE, SALVAGE_READING, SALVAGE_STOPPING } state;
    struct blk_req req;
    struct iovec iov;
    uint64_t at;         /* all before it is settled; where the READ in flight starts */
    uint64_t suspect;    /* something in [at, suspect) is bad; at or before `at`: nothing known */
    uint64_t named;      /* the block that the device calls bad; BLK_NO_OFFSET: none */
    uint64_t step;       /* bytes to read where nothing is known */
    uint64_t run, count; /* bad bytes before `at`, not yet told */
    bool names_wrongly;  /* the device named a block that was not the first bad one */
};

/* May what failed so be salvaged? The medium's own errors, which stay: not what a session, a server
 * or a right is the reason of (EROFS, ENOSPC, ESTALE, EACCES, ...), nor what may pass. */
bool salvage_applies(const struct blk_error *error);

/* The fields above "Valid in done()" are set, all others are not looked at. */
void salvage_start(struct salvage *salvage);
/* Nothing more is read: done() follows the READ in flight, with -ECANCELED. */
void salvage_stop(struct salvage *salvage);

#endif
