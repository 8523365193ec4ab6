/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The block device: one interface for everything that holds blocks at offsets.
 *
 * This is the callers' side; include/lunferry/driver.h is the side of those who implement a device.
 * Between the two stands the middle (src/block): it checks every request, splits it to what the
 * driver takes, aligns it, and delivers the results. So callers may ask for any range, and drivers
 * may trust what they are given.
 *
 * Invariants:
 * 1. blk_submit() returns nothing; every outcome comes through req->done, exactly once, from the
 *    loop and never from inside blk_submit().
 * 2. The same holds for a struct blk_task, which is how everything else (open, clone, resize,
 *    finish, close) reports.
 * 3. A device belongs to one loop and its thread.
 * 4. Buffers belong to the caller and stay valid, like the request itself, until done().
 * 5. Requests in flight may complete in any order. Two that overlap, one of them writing, must not
 *    be in flight together: the result would be either.
 *    Two writes that only share a block (limits.align) do not overlap.
 * 6. Lengths and offsets are bytes.
 */
#ifndef LUNFERRY_BLOCK_H
#define LUNFERRY_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <lunferry/error.h>
#include <lunferry/loop.h>

struct blk_dev;
struct blk_driver;
struct store;
struct url;

/* ---- Requests --------------------------------------------------------------------------------- */

enum blk_op {
    BLK_READ,
    BLK_WRITE,
    BLK_ZERO,    /* make the range read as zeros, by the cheapest means the device has */
    BLK_FLUSH,   /* what this device (this clone) acknowledged before is on stable storage after */
    BLK_EXTENTS, /* what lies at [offset, offset + len): fills *extents */
    BLK_DISCARD, /* the range is not needed any more: may free it. What it reads as then is not known
                    until EXTENTS tells. -ENOTSUP where nothing can be freed */
};

enum blk_flags {
    BLK_FUA = 1 << 0,       /* WRITE, ZERO: on stable storage when done. READ: from there, not from
                               a cache, where the device can */
    BLK_MAY_UNMAP = 1 << 1, /* ZERO: may leave the range unallocated, if it then reads as zeros */
};

enum blk_kind {
    BLK_DATA,        /* must be read: whatever is not known to be something else */
    BLK_ZEROS,       /* reads as zeros, and that is certain */
    BLK_UNALLOCATED, /* nothing here: a backing device shows through, or zeros where there is none.
                        For formats; what has no backing device says BLK_ZEROS */
};

struct blk_extent {
    uint64_t offset, len; /* len > 0; extents are ascending and without gaps */
    enum blk_kind kind;
    unsigned depth;       /* 0: this image; 1: its backing image; ... */
    uint64_t host_offset; /* where the bytes lie in the device below; BLK_NO_OFFSET if nowhere */
    bool compressed;
};

#define BLK_NO_OFFSET UINT64_MAX

/* Room for the answer, owned by the caller. The answer covers a prefix of the range that was asked
 * for, at least its first byte; neighbours of one kind may come as several extents. */
struct blk_extents {
    struct blk_extent *list;
    size_t capacity; /* > 0 */
    size_t count;    /* set by the device */
};

/*
 * An epoch is a server's promise that what it acknowledged is still there: NFS's write verifier
 * (RFC 1813 3.3.7), a volatile cache's life on iSCSI. A WRITE is durable when a FLUSH that was
 * submitted to the same clone after the WRITE's completion returns the same epoch. BLK_NO_EPOCH
 * equals nothing, itself included: pieces of one request saw different epochs.
 */
#define BLK_NO_EPOCH UINT64_C(0)

/* Private to src/block/retry.c: what is kept to be repeated. */
struct retry_item {
    struct retry_item *next;
    uint64_t due;   /* ns; not given back before */
    unsigned tries; /* zeroed when the item is new */
};

struct blk_req {
    /* Filled by the caller, never changed by the device. */
    enum blk_op op;
    unsigned flags; /* enum blk_flags */
    uint64_t offset, len;
    struct iovec *iov; /* READ, WRITE: adds up to len */
    int iovcnt;
    struct blk_extents *extents; /* EXTENTS */
    void (*done)(struct blk_req *req);
    void *opaque;

    /* Valid in done(). */
    int status; /* 0 or -errno */
    struct blk_error error;
    uint64_t got;        /* READ: bytes delivered; less than len only at the end of a stream */
    uint64_t bad_offset; /* where on the device the medium failed; BLK_NO_OFFSET if not told */
    uint64_t epoch;      /* WRITE, ZERO, FLUSH */
    bool durable;        /* WRITE, ZERO: needs no FLUSH */

    /* Private to the middle and to the driver. */
    struct blk_dev *dev;
    struct blk_req *parent; /* the caller's request of which this is a piece */
    struct blk_req *next;
    uint64_t resume; /* where the next piece starts */
    unsigned pieces; /* under way */
    unsigned stage;
    unsigned restarts;
};

void blk_submit(struct blk_dev *dev, struct blk_req *req);

/* ---- Tasks ------------------------------------------------------------------------------------ */

/* How a single operation reports. Owned by the caller until done(). */
struct blk_task {
    void (*done)(struct blk_task *task);
    void *opaque;
    int status; /* 0 or -errno */
    struct blk_error error;
};

/* ---- Devices ---------------------------------------------------------------------------------- */

#define BLK_SIZE_UNKNOWN UINT64_MAX

struct blk_limits {
    uint32_t align;       /* offset and len of what the driver gets are multiples of it (its block
                           size), but for the end of the device; a power of two, >= 1 */
    uint32_t mem_align;   /* of every iov_base; a power of two, >= 1 */
    uint32_t max_read;    /* longest READ in bytes that the driver wants; multiple of align, > 0 */
    uint32_t max_write;   /* longest WRITE likewise */
    uint64_t max_zero;    /* longest ZERO likewise; unused without BLK_CAN_ZERO */
    uint64_t max_discard; /* longest DISCARD likewise; unused without BLK_CAN_DISCARD */
    /* Bytes that are freed together, a multiple of align; the first such unit begins at unmap_phase,
     * < unmap_granule. 0: not known, any. ZERO with BLK_MAY_UNMAP and DISCARD are cut there: a driver
     * gets the flag for whole units only, and DISCARD of a part of one does nothing. */
    uint64_t unmap_granule, unmap_phase;
    uint32_t max_depth; /* requests the driver holds at once; the rest waits in the middle; > 0 */
};

enum blk_caps {
    BLK_CAN_ZERO = 1 << 0,    /* has a ZERO that is cheaper than writing zeros */
    BLK_CAN_EXTENTS = 1 << 1, /* knows its extents; otherwise the middle answers DATA */
    BLK_CAN_FUA = 1 << 2,     /* otherwise the middle follows a FUA write with a FLUSH */
    BLK_BARE = 1 << 3,        /* persistent, and has no name that could be switched once all is
                                 written: a LUN, a block device. What is written shows at once. */
    BLK_CAN_UNMAP = 1 << 4,   /* ZERO with BLK_MAY_UNMAP leaves ranges unallocated; with CAN_ZERO */
    BLK_CAN_DISCARD = 1 << 5, /* has a DISCARD */
};

/* What shows that a thing has changed: compared between two looks at it. */
struct blk_stamp {
    uint64_t size;              /* bytes */
    int64_t mtime_ns, ctime_ns; /* since the epoch of the thing's own clock; 0: it has no times */
};

/* What callers may read of a device once it is open. Only the middle and the driver write it. */
struct blk_dev {
    const struct blk_driver *driver;
    struct loop *loop;
    char *name;    /* the endpoint as the user wrote it, secrets redacted */
    uint64_t size; /* bytes, of any multiple; BLK_SIZE_UNKNOWN: a stream */
    /* Probed once at open. A driver whose device refuses ZERO, EXTENTS or DISCARD after all takes the
     * capability back, once and for good, so that a caller who asks again sees less. */
    struct blk_limits limits;
    unsigned caps; /* enum blk_caps */
    bool writable;
    uint64_t round_trip; /* ns, the shortest seen while opening; 0: nothing to go through */
    char *identity; /* equal for two devices that are the same thing, whatever the way to it (LUN
                       identification, file handle, device and inode number); NULL: not known.
                       The driver allocates it at open, the middle frees it */
    struct blk_stamp opened, seen; /* when it was opened, and at the last look since */
    uint64_t session_id;           /* under which the server knows us (iSCSI: the ISID), for a later
                            blk_open_args.session_id; 0: it does not */
    struct blk_middle *middle;     /* private to src/block */
};

/* What the owner of a job is told of its devices and stores while it runs. */
enum blk_event {
    BLK_AWAY,     /* the session is lost; text: why. Requests are kept meanwhile */
    BLK_BACK,     /* a new session stands, and it is the same thing; text: how long that took */
    BLK_WAITING,  /* nothing has been answered for long, though the session lives; text: for what */
    BLK_REPEATED, /* a request is repeated; text: why */
    BLK_WARNING,  /* text: what the server said that is no error yet */
};

/* Owned by whoever opens; outlives the device and its clones, which all tell the same one: called in
 * each device's own thread. */
struct blk_watcher {
    void (*event)(struct blk_watcher *watcher, enum blk_event event, const char *name,
                  const char *text);
};

/* What every session of a job shares; it outlives all devices. */
struct blk_settings {
    uint64_t timeout; /* ns of silence after which a session is dead; > 0 */
    uint64_t give_up; /* ns without progress after which requests are not repeated any more; 0:
                         nothing is repeated; LOOP_NEVER */
    const char *initiator_name; /* for iSCSI; NULL: found by the rule in drivers/iscsi */
    const char *password_file;  /* for endpoints with a user name; its first line. NULL: none */
};

struct blk_open_args {
    const struct url *url; /* with its scheme's driver; outlives the device */
    struct store *store; /* NULL, or: open the file `name` in this store, on the store's session */
    const char *name;    /* with store; copied */
    bool writable;
    uint64_t session_id; /* of an earlier session that this one replaces; 0: a new one */
    const struct blk_settings *settings; /* outlives the device */
    struct blk_watcher *watcher;         /* NULL: nobody wants to know */
};

/* Checks all of a URL that can be checked without touching anything: scheme, options, form. Call it
 * for every endpoint before the first is opened. Returns 0 or -EINVAL with the sentence. */
int blk_check_url(const struct url *url, struct blk_error *error);

/*
 * Opens what the URL names, which blk_check_url() has accepted. The device is returned at once, in the state of being opened; it may be
 * used when task->done() reports 0. Whatever that reports, and also before it, the caller owns the
 * device and ends it with blk_close(). NULL only when out of memory (task is not called then).
 */
struct blk_dev *blk_open(struct loop *loop, const struct blk_open_args *args,
                         struct blk_task *task);

/* Opens the same thing again, for another lane: its own session, on that lane's loop. Called in that
 * lane's thread; the origin is open and stays so. -ENOTSUP where a device can be open only once.
 * `number`, > 0, is another one for each clone of an origin: sessions are told apart by it, and a
 * job that is resumed gives its clones the numbers that they had. */
struct blk_dev *blk_clone(struct loop *loop, const struct blk_dev *origin, unsigned number,
                          struct blk_task *task);

/* The job needs this many bytes of the device: one that is found smaller, when its session is built
 * anew, is an error at once. Until it is called: all that it had when it was opened. */
void blk_need(struct blk_dev *dev, uint64_t size);

/* From now on the driver gets no READ and no WRITE that is longer: bytes, cut down to whole blocks, but one
 * at least. Zeros that are written because there is no other means are WRITEs too. 0: as it is. With
 * nothing in flight; clones are not told. */
void blk_cap(struct blk_dev *dev, uint32_t max_read, uint32_t max_write);

/* From now on nothing is repeated for longer than `ns`; 0: what waits to be repeated is cancelled. */
void blk_hurry(struct blk_dev *dev, uint64_t ns);

/* Whoever asks has nothing else to give for now: requests that the device has kept back, so that others go
 * with them, go now. */
void blk_push(struct blk_dev *dev);

/* Looks at the thing again: is it still the same? Sets dev->seen. With nothing in flight. */
void blk_recheck(struct blk_dev *dev, struct blk_task *task);

/* A persistent reservation (SPC-4 5.13) that keeps other initiators from writing. */
struct blk_reservation {
    uint64_t key;       /* ours, > 0; a reservation that is held under it already is taken over */
    uint64_t break_key; /* whoever holds one under this key loses it; 0: nobody */
};

/* Reserves the device; its clones are registered with it, and so is every new session. Released by
 * blk_close(). -EBUSY with a sentence that names holder and key; -ENOTSUP. */
void blk_reserve(struct blk_dev *dev, const struct blk_reservation *how, struct blk_task *task);

/* Called once per image, when every clone is idle and all data is durable: a format writes the
 * metadata that makes it an image. Reports 0 at once where there is nothing to do. */
void blk_finish(struct blk_dev *dev, struct blk_task *task);

/* How much will be written is not known yet: from now on WRITE and ZERO may go anywhere, and make the
 * device longer, until blk_resize() sets its size. For devices whose size can be set, with align 1. */
void blk_open_end(struct blk_dev *dev);

/* Sets the size in bytes, durably. -ENOTSUP where it is fixed. */
void blk_resize(struct blk_dev *dev, uint64_t size, struct blk_task *task);

/* Everything in flight, an open included, reports -ECANCELED soon. The device is only good for
 * blk_close() afterwards. */
void blk_cancel_all(struct blk_dev *dev);

/* Frees the device, which must have nothing in flight except an open (which is cancelled and then
 * reports -ECANCELED before this does). task may be NULL. */
void blk_close(struct blk_dev *dev, struct blk_task *task);

/* Requests that the device has been given and not reported yet, in pieces as the driver sees them. */
unsigned blk_in_flight(const struct blk_dev *dev);

/* ---- Descriptions ----------------------------------------------------------------------------- */

/* For `lunferry info`: one call per fact, in reading order. `key` is a stable word for programs
 * (lower case, '-'), label the words for people. */
struct blk_report {
    void (*fact)(struct blk_report *report, const char *key, const char *label, const char *value);
};

void blk_describe(struct blk_dev *dev, struct blk_report *report);
void blk_report_fact(struct blk_report *report, const char *key, const char *label,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ---- The registry ----------------------------------------------------------------------------- */

/* The driver for a scheme ("nfs"), or NULL; and all of them, for help and error texts. */
const struct blk_driver *blk_driver_find(const char *scheme);
const struct blk_driver *const *blk_drivers(size_t *count);

#endif
