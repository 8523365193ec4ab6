/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A world of disks and directories without any server, in which the test decides what happens when.
 *
 * Whatever a device or a directory is asked to do (open, a piece of a request, a store operation,
 * resize, close) becomes a pending operation. Nothing moves until the test completes one of them, any
 * one, with fake_complete(); the operation takes effect at that moment. Faults are given by number:
 * operations count up from 1 in the order in which they were submitted.
 *
 * A disk has what was written and what is durable. A FLUSH makes durable what the same device (the
 * same clone) was told to be written before the FLUSH was submitted; a restart throws the rest away
 * and begins a new epoch. A disk may be thin: only some bytes of each `stride` exist, so that jobs of
 * many megabytes run in microseconds.
 *
 * Devices and directories have sessions. When one is lost, what is pending on it ends with BLK_LOST,
 * in any order, and with or without having taken effect; and so does all that is asked of it later,
 * without effect, until a recovery has succeeded (FAKE_RECOVER, an operation like the others).
 * A fault with BLK_LOST loses the session of whatever it hits.
 *
 * The drivers check what they are promised (alignment, limits, ranges, depth, no overlapping writes,
 * nothing after a cancel, nothing beside a recovery), and fail the test. Of a request that they give
 * back they leave the iov array in shreds, which is theirs to change.
 *
 * A disk knows what lies where (EXTENTS): data all over, until the test says otherwise with
 * fake_disk_set(). WRITE makes data; ZERO makes data too, which are zeros, and with BLK_MAY_UNMAP what
 * reads as zeros and is none; so does DISCARD. A file that is made longer grows zeros. What of this a device
 * is capable of say `caps` and `limits`, and what it turns out not to be capable of `refuses`.
 *
 * Schemes: "fake" (a disk; no resize), "single" (the same, cannot be cloned), "full" (a disk that
 * can be resized, finished and reserved), "stream" (a disk that is read as a stream: in order, one READ
 * pending at a time, and short at its end), "fakefs" (a directory of files). fake_dev.c stands in for src/block/registry.c and knows the real drivers too.
 */
#ifndef LUNFERRY_TEST_FAKE_H
#define LUNFERRY_TEST_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <lunferry/driver.h>

#define FAKE_MAX_PENDING 256
#define FAKE_WIDTH       16
#define FAKE_MAX_FILES   8
#define FAKE_TEXT        1024
#define FAKE_FIRST_EPOCH UINT64_C(100)

enum fake_kind {
    FAKE_OPEN, /* or clone */
    FAKE_CLOSE,
    FAKE_RESIZE,
    FAKE_FINISH,
    FAKE_RESERVE,
    FAKE_RECOVER,
    FAKE_REQ,
    FAKE_STORE_OPEN,
    FAKE_STORE_CLOSE,
    FAKE_STORE_RECOVER,
    FAKE_STORE,
};

struct fake_op {
    enum fake_kind kind;
    unsigned number;
    struct fake_dev *dev; /* OPEN to REQ */
    struct blk_req *req;
    uint64_t size;            /* RESIZE */
    uint64_t key;             /* RESERVE */
    uint64_t covers;          /* FLUSH: how many of the device's writes had completed */
    unsigned refusals;        /* ZERO: how many there had been */
    struct fake_store *store; /* the others */
    struct store_req *store_req;
    bool cancelled;
    bool lost, lost_applies; /* its session was, after it was submitted */
};

struct fake_extent {
    uint64_t offset, len;
    enum blk_kind kind;
};

/* What a driver was given. */
struct fake_command {
    enum blk_op op;
    unsigned flags;
    uint64_t offset, len;
};

/* A disk's own bytes, or a file's. Limits and caps are those of the devices that open it. */
struct fake_disk {
    struct fake *fake;
    uint64_t size;
    uint64_t stride, width; /* of each `stride` bytes the first `width` exist */
    unsigned char *written, *durable;
    atomic_ullong epoch;
    struct blk_limits limits;
    unsigned caps;
    bool write_through; /* every write is durable when done */
    bool zero_between;  /* READs of a thin disk make zeros of bytes that do not exist: for those who
                           compare what they read; it takes its time */
    const char *identity;
    uint64_t round_trip;
    atomic_uint open;         /* devices */
    atomic_uint session;      /* devices of an earlier one are away */
    bool epoch_of_session;    /* an epoch ends with the session, as a volatile cache's on iSCSI */
    atomic_uint recover_lost; /* so many attempts at a new one find nobody */
    bool other;               /* recoveries find another thing */
    int64_t mtime_ns;
    uint64_t bad_from, bad_to; /* READs of any of it fail, and name where */
    unsigned finished;         /* so many times */
    uint64_t reserved;         /* the key */
    /* For jobs that write in order: the chunk's size. 0: not checked. */
    uint32_t in_order;
    /* WRITEs at or after this offset have to be submitted in the order of their offsets.
     * UINT64_MAX: not checked. */
    uint64_t ascending_from;
    uint64_t next_write;   /* where the last of these ended */
    uint64_t bytes_asked;  /* for by READs, added up */
    uint64_t bytes_landed; /* by WRITEs, added up */
    /* How EXTENTS answers: in extents that end at multiples of `extents_cut`, although the next is of
     * the same kind; for `extents_reach` bytes at most; with `extents_most` extents at most. 0: no
     * such limit. The answer has always the first byte. */
    uint64_t extents_cut, extents_reach;
    size_t extents_most;
    bool zero_durable;      /* every ZERO is durable when done */
    bool discard_scrambles; /* what was discarded reads as other bytes, and is data */
    /* The capabilities of these that turn out not to be there when they are made use of (each device finds out
     * for itself): CAN_ZERO by a ZERO, CAN_UNMAP by one with BLK_MAY_UNMAP, CAN_EXTENTS, CAN_DISCARD.
     * The first `refuse_after` requests that make use of one are served. */
    unsigned refuses, refuse_after;
    uint64_t
        zero_left; /* where ZERO is refused: there is another means, which is not refused and has
                           this max_zero; 0: there is none */
    pthread_mutex_t lock;        /* what follows; in automatic worlds lanes share it */
    struct fake_extent *extents; /* ascending, all of the disk; neighbours differ. NULL: data */
    size_t extent_count;
    struct fake_command *commands; /* while logging: what the drivers were given, in that order */
    size_t command_count, command_capacity;
    bool logging;
    char log[8192]; /* "WRITE 0+4096 FUA\n"...: what the drivers were given, in that order */
};

struct fake_file {
    char name[256]; /* "": free */
    struct fake_disk *disk;
    struct store_attr attr;
    char text[FAKE_TEXT]; /* what READ and WRITE see: apart from the disk, and of one name only */
    size_t text_len;
    uint64_t token; /* of the CREATE that made it */
};

struct fake_fs {
    struct fake *fake;
    struct fake_file files[FAKE_MAX_FILES];
    struct fake_disk like;      /* new files get its limits, caps, identity and mtime */
    uint64_t thin;              /* the stride of new files; 0: every byte exists */
    int refuse[STORE_LIST + 1]; /* an errno with which this operation always fails; 0: it works */
    unsigned open;              /* stores */
    atomic_uint session, recover_lost; /* as those of a disk */
    bool other;
    uint64_t tokens; /* so many were given */
    char log[4096];  /* "RENAME (temporary) image\n"... */
};

/* An endpoint. Drivers find it through the address of its URL. */
struct fake_end {
    struct url url;
    char scheme[16], path[320], text[340];
    struct fake_disk *disk;
    struct fake_fs *fs;
};

struct fake_fault {
    unsigned number; /* the operation that fails; 0: none */
    int code;        /* errno; 0: a READ that comes short by a byte instead */
    enum blk_retry retry;
    bool applies;        /* it takes effect although it fails */
    uint64_t bad_offset; /* told with the failure; 0: not told */
};

struct fake {
    struct loop *loop;
    bool automatic; /* everything completes at once, in any thread; faults work, orders do not */
    struct fake_op pending[FAKE_MAX_PENDING]; /* in the order of submission */
    unsigned pending_count;
    atomic_uint submitted;
    struct fake_fault fault;
    atomic_bool fault_hit;
    int faulted_store_op;     /* which enum store_op was hit; -1: something else was */
    atomic_uint failed_opens; /* so many, clones aside */
    bool cancel_applies;      /* what is cancelled takes effect all the same */
    /* Called before an operation is completed; may be NULL. */
    void (*before)(struct fake *fake, const struct fake_op *op);
    /* Prints what led to a failure; may be NULL. */
    void (*explain)(void *opaque);
    void *opaque;
};

#define must(fake, condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fake_broken(fake, #condition, __FILE__, __LINE__);                                     \
    } while (0)

void fake_broken(struct fake *fake, const char *condition, const char *file, int line);

/* A manual loop and nothing in it. */
void fake_init(struct fake *fake);
/* Nothing may be pending. */
void fake_release(struct fake *fake);

/* Turns the loop until nothing happens any more. */
void fake_settle(struct fake *fake);
/* Completes pending[index]; the loop is not turned. */
void fake_complete(struct fake *fake, unsigned index);
/* The same, but it fails. */
void fake_fail(struct fake *fake, unsigned index, int code, enum blk_retry retry, bool applies);
/* Completes everything, oldest first, until nothing is pending. */
void fake_finish(struct fake *fake);
/* Where nothing is pending: lets time pass until something is, or `enough` says so (which may be
 * NULL); fails the test when nothing comes in an hour. */
void fake_pass_time(struct fake *fake, bool (*enough)(void *opaque), void *opaque);

/* ---- Disks ------------------------------------------------------------------------------------ */

/* Zeros; limits that never split, capable of nothing. With a stride that is not 0 the disk is thin:
 * only FAKE_WIDTH bytes at every multiple of the stride exist. */
void fake_disk_init(struct fake_disk *disk, struct fake *fake, uint64_t size, uint64_t stride);
void fake_disk_release(struct fake_disk *disk);
/* Bytes that are never zero and differ from place to place and from seed to seed; durable. */
void fake_disk_fill(struct fake_disk *disk, uint32_t seed);
/* The same bytes as a disk of the same size; durable. */
void fake_disk_copy(struct fake_disk *disk, const struct fake_disk *from);
void fake_disk_restart(struct fake_disk *disk);
/* The sessions of all devices on it are lost; `applies`: what is pending takes effect. */
void fake_disk_lose(struct fake_disk *disk, bool applies);
/* Of this device alone. */
void fake_dev_lose(struct blk_dev *dev, bool applies);
/* Does this disk have in [from, to), durably, what `source` has? */
bool fake_disk_holds(const struct fake_disk *disk, const struct fake_disk *source, uint64_t from,
                     uint64_t to);
/* Is there any place in [from, to) where this disk, durably or not, has what `source` has? */
bool fake_disk_resembles(const struct fake_disk *disk, const struct fake_disk *source,
                         uint64_t from, uint64_t to);
/* From now on [offset, offset + len) is of that kind. What is not data becomes zeros, durably. */
void fake_disk_set(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind);
/* Is all of [offset, offset + len) of that kind? */
bool fake_disk_is(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind);
/* While disk->logging: what the drivers were given since the last call, on one line, as
 * "READ 0+512k; ZERO 1M+64k unmap; WRITE 3+5 fua; FLUSH; EXTENTS 0+1G; DISCARD 64k+4k". Fails the test
 * where it is anything else. */
void fake_disk_check_commands(struct fake_disk *disk, const char *expected);
/* The compact index of a byte that exists, for looking into written and durable. */
uint64_t fake_disk_index(const struct fake_disk *disk, uint64_t offset);

void fake_end_disk(struct fake_end *end, struct fake_disk *disk, const char *scheme,
                   const char *name);

/* ---- Directories ------------------------------------------------------------------------------ */

void fake_fs_init(struct fake_fs *fs, struct fake *fake);
void fake_fs_release(struct fake_fs *fs);
/* The sessions of the directory's stores, and of all devices on its files, are lost. */
void fake_fs_lose(struct fake_fs *fs, bool applies);
/* Without any operation: somebody else did it. */
struct fake_file *fake_fs_find(struct fake_fs *fs, const char *name);
struct fake_file *fake_fs_make(struct fake_fs *fs, const char *name, uint64_t size);
/* The file whose name is made up: a temporary one. NULL: none. */
struct fake_file *fake_fs_temporary(struct fake_fs *fs);

void fake_end_file(struct fake_end *end, struct fake_fs *fs, const char *name);

#endif
