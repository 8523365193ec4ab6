/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a driver implements. drivers/memory.c is the smallest one and the template.
 *
 * A driver is a const table. It trusts what it is given (the middle has checked ranges, alignment,
 * lengths, depth and writability), and asserts it. It has no policy: no retry, no splitting, no
 * fallback, no throttle. Every hook is called on the device's loop and must not block it; every
 * hook that starts something ends in exactly one call of the function named with it, which may come
 * at any time, from inside the hook too: the middle sees to it that callers never notice.
 */
#ifndef LUNFERRY_DRIVER_H
#define LUNFERRY_DRIVER_H

#include <lunferry/block.h>
#include <lunferry/store.h>
#include <lunferry/url.h>

struct blk_driver {
    const char *name;   /* for people: "iSCSI" */
    const char *scheme; /* "iscsi" */
    const char *syntax; /* "iscsi://[user@]host[:port]/target/lun", for help and usage errors */
    /* Query options that the scheme knows. The middle refuses others, and lists these.
     * Ends with a NULL name. NULL: none. */
    const struct url_option *options;

    size_t dev_size; /* of the driver's device struct, whose first member is a struct blk_dev */
    size_t req_size; /* of the driver's own state per request, see blk_req_state(); 0: none */

    /* A device made of devices: it gets every request whole and with all its flags; the middles of those
     * below split and align it, and make up for what is missing. Its limits and caps are for callers
     * to read. */
    bool relays;

    /* Checks what can be checked without touching anything: the form of the URL. Called before
     * any endpoint is opened. Returns 0 or -errno with the sentence. NULL: nothing to check. */
    int (*check)(const struct url *url, struct blk_error *error);

    /* Sets size, limits, caps (all zero before, `writable` as asked for) -> blk_opened(). */
    void (*open)(struct blk_dev *dev, const struct blk_open_args *args);
    /* Called in the new lane's thread while `origin` is in use in its own: touches only what of
     * the origin is immutable after open, or shared under a named lock -> blk_opened().
     * NULL: such a device can be open only once. */
    void (*clone)(struct blk_dev *dev, const struct blk_dev *origin, unsigned number);
    /*
     * Looks whether the device is still what it was when it was opened, on the session that there
     * is, or, where that is gone, by one attempt at a new one; sets dev->seen -> blk_recovered().
     * Called with no request in flight: after requests have ended with BLK_LOST or BLK_RECHECK, and
     * at the end of a job; and for a clone whose opening has ended with an error that may pass, where it does
     * what clone() would have done.
     * An error is BLK_FATAL only where the thing is known to be another one, or gone for good;
     * whatever may pass (a server that is still starting) is BLK_LOST, and it will be called again.
     * NULL: nothing can be lost.
     */
    void (*recover)(struct blk_dev *dev);
    /* -> blk_task_done(). NULL: there are no reservations. `how` stays valid until then. */
    void (*reserve)(struct blk_dev *dev, const struct blk_reservation *how);
    /* Never with requests in flight; after a failed open too -> blk_closed(). */
    void (*close)(struct blk_dev *dev);

    /* At most limits.max_depth at once -> blk_complete(). The request and its iov array are the
     * driver's to change; the buffers that iov points to are the caller's.
     * ZERO, EXTENTS and DISCARD come only with the capability. Where the device refuses one after all,
     * the driver first lowers dev->caps and limits to what is left (ZERO: another means, or none), then
     * completes it with -ENOTSUP, BLK_FATAL: the middle does it again by what is left, which for ZERO
     * is writing zeros in the end, for EXTENTS one DATA extent. EXTENTS may answer for a prefix only. */
    void (*submit)(struct blk_dev *dev, struct blk_req *req);
    /* What is in flight completes soon, with -ECANCELED where the outcome is unknown; an open or a
     * recovery in progress reports as ever. May be called more than once. */
    void (*cancel_all)(struct blk_dev *dev);

    /* blk_push(). NULL: nothing is ever kept back. */
    void (*push)(struct blk_dev *dev);
    /* blk_hurry() and blk_need(), for devices below. NULL: there are none. */
    void (*hurry)(struct blk_dev *dev, uint64_t ns);
    void (*need)(struct blk_dev *dev, uint64_t size);

    void (*resize)(struct blk_dev *dev, uint64_t size); /* -> blk_task_done(). NULL: fixed size */
    void (*finish)(struct blk_dev *dev); /* -> blk_task_done(). NULL: nothing to do */
    void (*describe)(struct blk_dev *dev, struct blk_report *report); /* NULL: nothing to add */

    const struct store_driver *store; /* NULL: what this scheme names has no names */
};

/* A device that no URL names, of a driver that has no open(): in the state of being opened, which
 * blk_opened() ends as ever. `name` is copied. NULL: out of memory. */
struct blk_dev *blk_new(struct loop *loop, const struct blk_driver *driver, const char *name,
                        bool writable, struct blk_task *task);

/* How hooks report. status is 0 or -errno; with an error, *error says why (NULL only for success
 * and for -ECANCELED). The sentence holds what the driver alone knows; the middle adds operation,
 * endpoint and offset. */
void blk_opened(struct blk_dev *dev, int status, const struct blk_error *error);
void blk_recovered(struct blk_dev *dev, int status, const struct blk_error *error);
void blk_closed(struct blk_dev *dev);
void blk_task_done(struct blk_dev *dev, int status, const struct blk_error *error);

/* A request is done. The driver has set req->got (READ; already set to len by the middle, to be
 * changed only where less came), bad_offset, epoch and durable where they apply, and, with an error,
 * req->error. */
void blk_complete(struct blk_req *req, int status);

/* Tells the owner something that is no error. */
void blk_warn(struct blk_dev *dev, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The driver's own state for a request: driver->req_size bytes, zeroed when the request is made and
 * kept as they are between uses, so that an iov array can be cached there. Freed without a call. */
void *blk_req_state(struct blk_req *req);

/* ---- Help that drivers share ------------------------------------------------------------------ */

/* Copies between a flat buffer and a request's iov, `offset` bytes into it. */
void blk_iov_from(const struct blk_req *req, uint64_t offset, const void *buf, size_t len);
void blk_iov_to(const struct blk_req *req, uint64_t offset, void *buf, size_t len);

/*
 * The dead-session rule, the same for every protocol over TCP: a session is dead when for `timeout`
 * the server has sent no byte, acknowledged no byte (TCP_INFO: a ping queues behind the data on a
 * slow link) and answered no ping. A request that is merely slow on a live session is waited for.
 *
 * The owner starts it when a connection is begun (a connect that is not answered is silence too) and
 * stops it before dropping the session. While `busy()` says that something is awaited, silence is
 * counted; after a third of the timeout `ping()` is called, once per third; after all of it `dead()`,
 * once, with the watch already stopped. Only the loop's time is used.
 */
struct liveness {
    struct loop *loop;
    uint64_t timeout;
    int (*fd)(struct liveness *live);    /* the connection's descriptor now, or -1 */
    bool (*busy)(struct liveness *live); /* is an answer awaited? */
    void (*ping)(struct liveness *live); /* may do nothing while an earlier ping is unanswered */
    void (*dead)(struct liveness *live);
    /* private */
    struct loop_timer timer;
    uint64_t quiet_since;
    uint64_t acked, received;
};

void liveness_start(struct liveness *live);
void liveness_stop(struct liveness *live);

/*
 * Names are resolved in a helper thread, anew for each session (a failover changes addresses); the
 * libraries get numeric addresses. Addresses come in the order in which to try them.
 */
struct resolve {
    void (*done)(struct resolve *resolve);
    int status; /* 0 or -errno */
    struct blk_error error;
    char (
        *addresses)[64]; /* numeric, IPv6 without brackets; owned by *resolve until resolve_free */
    size_t count;
    /* private */
    struct loop *loop;
    struct loop_work work;
    struct loop_call call;
    char *host;
    int gai_error;
};

/* `host` is copied. A numeric host is answered without a thread. done() is called from the loop. */
void resolve_start(struct loop *loop, struct resolve *resolve, const char *host);
void resolve_free(struct resolve *resolve);

#endif
