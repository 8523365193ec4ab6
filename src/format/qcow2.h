/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2, and its older brother qcow, for reading; the specification is QEMU's docs/interop/qcow2.
 *
 *   qcow2_header*.c   bytes become a struct qcow2_header, or a refusal. Pure functions: what is hostile
 *                     ends here
 *   qcow2_snapshot.c  the same for the snapshot table, and L1 tables
 *   qcow2_checks.c    what both check alike
 *   qcow2_open.c      the header, the L1 table and the snapshot table are read
 *   qcow2_entry.c     what an L2 entry says, or its refusal; pure, too
 *   qcow2_map.c       where a guest offset lies: L2 tables as they are needed
 *   qcow2_read.c      READ: host runs; qcow2_compressed.c: clusters that are compressed, by
 *   qcow2_inflate.c
 *   qcow2_extents.c   EXTENTS
 *   qcow2.c           the blk_driver
 *
 * One that is written is a device of its own: qcow2_write.h.
 */
#ifndef LUNFERRY_QCOW2_H
#define LUNFERRY_QCOW2_H

#include <lunferry/driver.h>

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

#define QCOW2_MAX_L1       (32u << 20) /* bytes; QEMU's limit, as those that follow */
#define QCOW2_MAX_REFTABLE (8u << 20)
#define QCOW2_MAX_NAME     1023 /* bytes of the backing and the data file's name */

enum qcow2_incompatible {
    QCOW2_DIRTY = 1 << 0,   /* refcounts are not to be trusted; nobody does, who only reads */
    QCOW2_CORRUPT = 1 << 1, /* read with a warning */
    QCOW2_DATA_FILE = 1 << 2,
    QCOW2_COMPRESSION_TYPE = 1 << 3,
    QCOW2_EXTENDED_L2 = 1 << 4,
};

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD }; /* header byte 104 */

/* All that a header says, checked. */
struct qcow2_header {
    unsigned version;      /* 1 (qcow), 2 or 3 */
    unsigned cluster_bits; /* 9 to 21 */
    unsigned l2_bits;      /* entries in an L2 table, as a power of two */
    uint64_t size;         /* bytes, virtual */
    uint64_t l1_offset;    /* in the file */
    uint32_t l1_entries;   /* at least as many as `size` needs */
    uint64_t incompatible, compatible, autoclear;
    enum qcow2_compression compression;
    uint32_t snapshot_count;
    uint64_t snapshot_offset;
    uint64_t refcount_offset; /* of the table; bytes */
    uint32_t refcount_clusters;
    unsigned refcount_bits;
    char *backing;        /* name; NULL: none. Freed by qcow2_header_free(), like what follows */
    char *backing_format; /* "qcow2"; NULL: not said */
    char *data_file;      /* name; NULL: not said */
    bool data_file_raw;   /* autoclear bit 1 */
};

/* How much of a file's start has to be read for it: the first cluster is enough, or this. */
#define QCOW2_HEADER_READ (64u << 10)

/*
 * Parses the first `len` bytes of a file of `file_size` bytes (at least 24 of them, and, where the file
 * has so much, QCOW2_HEADER_READ; names may lie behind: then -ERANGE, and *need is how many bytes to
 * read). 0, or -errno with a sentence that says what is wrong (-EINVAL, -ENOTSUP), and nothing to free.
 * The sentence does not name the file: the caller does. `qcow`: version 1 is wanted, and nothing else.
 */
int qcow2_header_parse(struct qcow2_header *header, const unsigned char *bytes, size_t len,
                       uint64_t file_size, bool qcow, uint64_t *need, struct blk_error *error);
void qcow2_header_free(struct qcow2_header *header);

/* Finds a snapshot, by id first and then by name, in the snapshot table, and puts its L1 table and size into the
 * header. `table` are `len` bytes of the file from header->snapshot_offset on: the whole table, and any number behind
 * it, for only the table itself says how long it is. -ENOENT with a sentence that lists those there are;
 * -EINVAL. An error leaves the header as it was. */
int qcow2_snapshot_select(struct qcow2_header *header, const unsigned char *table, size_t len,
                          uint64_t file_size, const char *wanted, struct blk_error *error);

/* Are all L1 entries sound: aligned, inside the file, no reserved bits? Big-endian, as in the file. */
int qcow2_l1_check(const struct qcow2_header *header, const unsigned char *table,
                   uint64_t file_size, struct blk_error *error);

struct qcow2_parts {
    const char *name;           /* of the image, for messages; copied */
    struct qcow2_header header; /* its strings go over to the device */
    uint64_t *l1; /* header.l1_entries, in the machine's order, checked; goes over, free() */
    struct blk_dev *file;    /* open */
    struct blk_dev *data;    /* where guest clusters are; NULL: in `file` */
    struct blk_dev *backing; /* NULL: none; may be shorter or longer */
};

/* A device over them, which it takes over as join_open() does. NULL: out of memory. */
struct blk_dev *qcow2_open(struct loop *loop, const struct qcow2_parts *parts,
                           struct blk_task *task);

#endif
