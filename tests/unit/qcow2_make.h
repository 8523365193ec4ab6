/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes qcow and qcow2 images by hand, in memory: sound ones piece by piece, and then whatever is to be wrong
 * with them, a field at a time. Nothing of src/ has a part in it but the numbers in qcow2.h.
 *
 *   struct qcow2_make make;
 *
 *   qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 12, .size = 1 << 20});
 *   qcow2_make_data(&make, 0, data);                      the first cluster: plain
 *   qcow2_make_compressed(&make, 4096, data + 4096);      the second: compressed
 *   qcow2_make_zero(&make, 8192, false);                  the third: zeros, whatever is behind
 *   qcow2_make_put32(&make, QCOW2_AT_L1_ENTRIES, 0);      and a lie
 *   qcow2_make_to_disk(&make, &disk, &fake);              make.bytes, make.len: the file
 *   qcow2_make_release(&make);
 *
 * Versions 2 and 3: header, refcount table, its only block, L1 table, and then what is asked for, in that order.
 * Version 1: header, backing name, L1 table, ... Refcounts are right as far as that block reaches, but for what
 * snapshots share.
 */
#ifndef LUNFERRY_TEST_QCOW2_MAKE_H
#define LUNFERRY_TEST_QCOW2_MAKE_H

#include "fake.h"

#include "src/format/qcow2.h"

/* Where the fields of a header are. */
enum qcow2_at {
    QCOW2_AT_MAGIC = 0,
    QCOW2_AT_VERSION = 4,
    QCOW2_AT_BACKING_OFFSET = 8, /* 64 bits */
    QCOW2_AT_BACKING_LEN = 16,
    QCOW2_AT_CLUSTER_BITS = 20,
    QCOW2_AT_SIZE = 24, /* 64 */
    QCOW2_AT_CRYPT = 32,
    QCOW2_AT_L1_ENTRIES = 36,
    QCOW2_AT_L1_OFFSET = 40,       /* 64 */
    QCOW2_AT_REFCOUNT_OFFSET = 48, /* 64 */
    QCOW2_AT_REFCOUNT_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOT_COUNT = 60,
    QCOW2_AT_SNAPSHOT_OFFSET = 64, /* 64 */
    QCOW2_AT_INCOMPATIBLE = 72,    /* 64, as the next two */
    QCOW2_AT_COMPATIBLE = 80,
    QCOW2_AT_AUTOCLEAR = 88,
    QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_LENGTH = 100,
    QCOW2_AT_COMPRESSION = 104, /* 8 */

    /* Version 1, where it is another place. */
    QCOW_AT_CLUSTER_BITS = 32, /* 8 */
    QCOW_AT_L2_BITS = 33,      /* 8 */
    QCOW_AT_CRYPT = 36,
    QCOW_AT_L1_OFFSET = 40, /* 64 */
};

enum qcow2_extension {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792acau,
    QCOW2_EXT_FEATURE_NAMES = 0x6803f857u,
    QCOW2_EXT_BITMAPS = 0x23852875u,
    QCOW2_EXT_DATA_FILE = 0x44415441u,
};

/* Bits of L1 and L2 entries; of version 1 only the last. */
#define QCOW2_COPIED       (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED   (UINT64_C(1) << 62)
#define QCOW2_ZERO         (UINT64_C(1) << 0)
#define QCOW_V1_COMPRESSED (UINT64_C(1) << 63)

struct qcow2_make_options {
    unsigned version;      /* 0: 3 */
    unsigned cluster_bits; /* 0: 16 */
    unsigned l2_bits;      /* of version 1 only; 0: an L2 table is one cluster */
    uint64_t size;
    uint32_t l1_entries; /* 0: as many as `size` needs */
    /* QCOW2_EXTENDED_L2 makes L2 entries long ones; QCOW2_DATA_FILE puts data elsewhere. */
    uint64_t incompatible;
    uint64_t compatible, autoclear;
    enum qcow2_compression compression; /* QCOW2_ZSTD sets its incompatible bit too */
    const char *backing;                /* NULL: none */
    const char *backing_format;         /* NULL: no such extension */
    const char *data_file;              /* NULL: no such extension */
};

struct qcow2_make {
    unsigned char *bytes; /* the file */
    size_t len;
    /* private, but to be looked at */
    size_t capacity;
    unsigned version, cluster_bits, l2_bits;
    size_t cluster_size, entry_size; /* bytes */
    uint64_t size, incompatible;
    enum qcow2_compression compression;
    uint64_t l1_offset;
    uint32_t l1_entries;
    size_t extensions; /* where the end marker is */
    uint64_t refcount_block;
    uint64_t snapshot_offset; /* of the table that there is now */
    size_t snapshot_len;
    uint32_t snapshot_count;
};

void qcow2_make_init(struct qcow2_make *make, const struct qcow2_make_options *options);
void qcow2_make_release(struct qcow2_make *make);

/* Any bytes of the file, big-endian; it grows where it has to. */
void qcow2_make_put(struct qcow2_make *make, uint64_t offset, const void *bytes, size_t len);
void qcow2_make_put8(struct qcow2_make *make, uint64_t offset, uint8_t value);
void qcow2_make_put16(struct qcow2_make *make, uint64_t offset, uint16_t value);
void qcow2_make_put32(struct qcow2_make *make, uint64_t offset, uint32_t value);
void qcow2_make_put64(struct qcow2_make *make, uint64_t offset, uint64_t value);
uint32_t qcow2_make_get32(const struct qcow2_make *make, uint64_t offset);
uint64_t qcow2_make_get64(const struct qcow2_make *make, uint64_t offset);

/* One more header extension, before the end marker. */
void qcow2_make_extension(struct qcow2_make *make, uint32_t type, const void *data, size_t len);
/* A name (at most 46 bytes) for a bit of the incompatible features, as an extension with one entry. */
void qcow2_make_feature_name(struct qcow2_make *make, uint8_t bit, const char *name);

/* So many clusters of zeros at the end of the file. Returns their offset. */
uint64_t qcow2_make_alloc(struct qcow2_make *make, size_t clusters);

/* ---- Guest clusters: `guest` is the offset of one ---------------------------------------------- */

/* Where the L2 entry is; its table is made if need be. */
uint64_t qcow2_make_entry_at(struct qcow2_make *make, uint64_t guest);
/* Where the L1 entry is. */
uint64_t qcow2_make_l1_at(const struct qcow2_make *make, uint64_t guest);
/* Any L2 entry; and the bitmap behind it, of an extended one. */
void qcow2_make_entry(struct qcow2_make *make, uint64_t guest, uint64_t entry);
void qcow2_make_bitmap(struct qcow2_make *make, uint64_t guest, uint32_t allocated, uint32_t zero);

/* A plain cluster at the end of the file; with a data file it is there, at the same offset, and the test sees to
 * its bytes. Returns the host offset. */
uint64_t qcow2_make_data(struct qcow2_make *make, uint64_t guest, const void *cluster);
/* Reads as zeros; `allocated`: with a host cluster, which holds bytes 0x5a. Version 3. */
void qcow2_make_zero(struct qcow2_make *make, uint64_t guest, bool allocated);
/* Extended L2: a host cluster with those bytes, of whose 32 parts only some are there, others zeros. */
uint64_t qcow2_make_subclusters(struct qcow2_make *make, uint64_t guest, const void *cluster,
                                uint32_t allocated, uint32_t zero);
/* Compressed by the image's means (raw deflate with a window of 4 KiB, or zstd), behind the last byte of
 * the file, wherever that is. Returns how many bytes it became. */
size_t qcow2_make_compressed(struct qcow2_make *make, uint64_t guest, const void *cluster);
/* The same with any stream; its L2 entry says `len` bytes. */
void qcow2_make_stream(struct qcow2_make *make, uint64_t guest, const void *stream, size_t len);
/* Raw deflate with a window of 2^window_bits bytes, up to 15. A new buffer. */
unsigned char *qcow2_make_deflate(const void *data, size_t len, int window_bits, size_t *out_len);
unsigned char *qcow2_make_zstd(const void *data, size_t len, size_t *out_len);

/* ---- Snapshots (versions 2 and 3) -------------------------------------------------------------- */

struct qcow2_make_snapshot {
    const char *id, *name;
    uint64_t size;       /* in the extra data; 0: the image's */
    uint64_t vm_state;   /* bytes, as a number only */
    uint32_t l1_entries; /* 0: as the image; more: entries that are zero */
    uint32_t extra;      /* bytes of extra data; 0: 16. NO_EXTRA: none */
};

#define QCOW2_NO_EXTRA UINT32_MAX

/* The image as it is now: tables of its own, data that is shared. The snapshot table moves to the end of the
 * file. Returns the offset of the snapshot's L1 table. */
uint64_t qcow2_make_snapshot(struct qcow2_make *make, const struct qcow2_make_snapshot *snapshot);

/* ---- What tests need around it ----------------------------------------------------------------- */

/* Bytes that compress by half or so, are never zero, and differ from place to place and from seed to seed. */
void qcow2_make_pattern(void *buf, size_t len, uint32_t seed);
/* A disk with the file's bytes, durable; to be released. */
void qcow2_make_to_disk(const struct qcow2_make *make, struct fake_disk *disk, struct fake *fake);

#endif
