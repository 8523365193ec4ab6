/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store: a directory and the small operations on the names in it, on NFS and on local disks.
 * Publishing uses it, and whatever else needs names: locks, journals, digest files.
 *
 * Bulk data does not pass here: blk_open() with args.store opens a name of the store as a device on
 * the store's own session.
 *
 * Invariants: as for requests in block.h: done() exactly once, from the loop, never from inside
 * store_submit(). Operations may overlap and complete in any order. Names are single components,
 * never "", ".", ".." or with a '/'. Every success is durable when it is reported (NFS servers
 * promise that of namespace operations, RFC 1813 4.8; the local store syncs the directory).
 */
#ifndef LUNFERRY_STORE_H
#define LUNFERRY_STORE_H

#include <lunferry/block.h>

enum store_op {
    STORE_STAT,   /* fills attr; does not follow a symbolic link, but one to a block device: those
                      are the names that such devices go by (/dev/disk/by-id, /dev/mapper) */
    STORE_CREATE, /* a new empty regular file, attr.mode; EEXIST if the name is taken */
    STORE_READ,   /* buf, len at offset; got: less than len at the end of the file */
    STORE_WRITE,  /* buf, len at offset, durable */
    STORE_APPEND, /* the same, at the end as it is when this is first tried: what is repeated goes to
                      the same place, so a file has one that appends to it at a time */
    STORE_SYNC,   /* all of the file's data, by whomever written on this machine's session */
    STORE_LINK,   /* name also becomes new_name; EEXIST if that is taken */
    STORE_RENAME,  /* name becomes new_name, replacing what was there */
    STORE_REMOVE,  /* ENOENT if there is no such name */
    STORE_SETATTR, /* attr.mode only */
    STORE_LIST,    /* entry() for each name but "." and "..", once, when all of them are known */
};

enum store_type { STORE_FILE, STORE_DIRECTORY, STORE_SYMLINK, STORE_OTHER };

struct store_attr {
    enum store_type type;
    unsigned mode;       /* permission bits, 07777 */
    uint64_t size, used; /* bytes; used: on disk */
    uint64_t file_id;    /* inode number, NFS fileid3 */
    int64_t mtime_ns, ctime_ns;
};

struct store_req {
    /* Filled by the caller; all stays valid until done(). */
    enum store_op op;
    const char *name, *new_name;
    struct store_attr attr; /* CREATE, SETATTR: mode. Set by STAT, CREATE */
    uint64_t offset;
    void *buf;
    size_t len;
    void (*entry)(struct store_req *req, const char *name); /* LIST */
    void (*done)(struct store_req *req);
    void *opaque;

    /* Valid in done(). */
    int status; /* 0 or -errno */
    struct blk_error error;
    bool unsure; /* with an error: the operation may have been carried out all the same */
    size_t got;  /* READ */

    /* Private to the middle and to the driver. */
    struct store *store;
    struct loop_call call;
    struct loop_work work;
    void *state;
    unsigned stage;
    bool repeated;  /* an answer was lost: the operation may have been carried out already */
    uint64_t token; /* the driver's, kept from the first try on, when it is 0 */
    bool at_driver;
    struct retry_item item;
};

struct store {
    const struct store_driver *driver;
    struct loop *loop;
    char *name; /* the directory as the user wrote it, secrets redacted */
    /* private to the middle */
    struct retry *retry;
    unsigned in_flight;
    bool opening, closing, close_begun, closed;
    struct blk_task *task;
    struct loop_call call;
};

/* What a driver implements; the hooks follow the rules of driver.h. */
struct store_driver {
    size_t store_size; /* of the driver's struct, whose first member is a struct store */
    void (*open)(struct store *store, const struct blk_open_args *args); /* -> store_opened() */
    void (*close)(struct store *store);                                  /* -> store_closed() */
    void (*submit)(struct store *store, struct store_req *req);          /* -> store_complete() */
    void (*cancel_all)(struct store *store); /* also of an open or a recovery in progress */
    /* As in driver.h, for the directory -> store_recovered(). NULL: nothing can be lost. */
    void (*recover)(struct store *store);
};

/* Does what the URL names have a name that could be switched, or is it a bare device? */
bool store_exists_for(const struct url *url);

/* Opens the directory that holds what the URL names. The store is returned at once, NULL only when
 * out of memory (task is not called then). Whatever task->done() reports, the caller ends the store
 * with store_close(): after that report, and after every device that was opened on it is closed.
 * store_cancel_all() makes the report come soon. */
struct store *store_open(struct loop *loop, const struct blk_open_args *args,
                         struct blk_task *task);
void store_submit(struct store *store, struct store_req *req);
/* What is in flight reports -ECANCELED soon, where its outcome is unknown. Later requests are served,
 * if the session has survived: a temporary file is to be removed. */
void store_cancel_all(struct store *store);
/* From now on nothing is repeated for longer than `ns`; 0: what waits to be repeated is cancelled. */
void store_hurry(struct store *store, uint64_t ns);
void store_close(struct store *store, struct blk_task *task);

/* For drivers. The error's sentence holds what the server said; the middle adds operation and name. */
void store_opened(struct store *store, int status, const struct blk_error *error);
void store_recovered(struct store *store, int status, const struct blk_error *error);
void store_closed(struct store *store);
void store_complete(struct store_req *req, int status);

#endif
