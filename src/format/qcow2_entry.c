/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one L2 entry says, and whether it may say that: every bit of it comes from a stranger. */
#include "qcow2_map.h"

#include <errno.h>
#include <inttypes.h>

#include <lunferry/units.h>

#define COPIED      (UINT64_C(1) << 63) /* refcount 1; of interest to writers only */
#define COMPRESSED  (UINT64_C(1) << 62)
#define ZERO        UINT64_C(1)
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define RESERVED    UINT64_C(0x3f000000000001fe)

#define V1_COMPRESSED (UINT64_C(1) << 63)

#define SECTOR      512
#define SUBCLUSTERS 32

static uint64_t cluster_size(const struct qcow2_bounds *bounds)
{
    return UINT64_C(1) << bounds->header->cluster_bits;
}

/* From the offset to the end of its cluster. */
static void whole(const struct qcow2_bounds *bounds, enum qcow2_kind kind, struct qcow2_run *run)
{
    run->kind = kind;
    run->len = cluster_size(bounds) - run->offset % cluster_size(bounds);
}

/* ---- Compressed ------------------------------------------------------------------------------- */

static int check_stream(const struct qcow2_bounds *bounds, uint64_t entry, uint64_t len,
                        struct qcow2_run *run, struct blk_error *error)
{
    if (len == 0)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": a compressed cluster of no bytes", entry);
    if (run->host == 0 || run->host >= bounds->file_size)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": compressed data at host offset %" PRIu64
                             ", where the file, of %" PRIu64 " bytes, can have none",
                             entry, run->host, bounds->file_size);
    /* The last sector is counted whole, though the file may end within it. */
    run->host_len = (uint32_t)min_u64(len, bounds->file_size - run->host);
    return 0;
}

static int decode_compressed(const struct qcow2_bounds *bounds, uint64_t entry, uint64_t bitmap,
                             struct qcow2_run *run, struct blk_error *error)
{
    unsigned offset_bits = 62 - (bounds->header->cluster_bits - 8);
    uint64_t sectors = (entry & (COMPRESSED - 1)) >> offset_bits;

    run->host = entry & ((UINT64_C(1) << offset_bits) - 1);
    if (bounds->header->incompatible & QCOW2_DATA_FILE)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64
                             ": a compressed cluster, which an image with a data file cannot have",
                             entry);
    if (bitmap != 0)
        return blk_error_set(
            error, EINVAL,
            "L2 entry 0x%016" PRIx64
            ": a compressed cluster has no subclusters, but the bitmap 0x%016" PRIx64,
            entry, bitmap);
    if (run->host >> 56 != 0)
        return blk_error_set(
            error, EINVAL,
            "L2 entry 0x%016" PRIx64
            ": the offset of compressed data has bits above 55, which are reserved",
            entry);
    whole(bounds, QCOW2_RUN_COMPRESSED, run);
    return check_stream(bounds, entry, (sectors + 1) * SECTOR - run->host % SECTOR, run, error);
}

/* ---- Plain and zeros -------------------------------------------------------------------------- */

static int check_host(const struct qcow2_bounds *bounds, uint64_t entry, uint64_t host,
                      uint64_t alignment, uint64_t guest, struct blk_error *error)
{
    if (host % alignment != 0)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": host offset %" PRIu64
                             " is not a multiple of %" PRIu64,
                             entry, host, alignment);
    if ((bounds->header->incompatible & QCOW2_DATA_FILE) && host != guest)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": offset %" PRIu64
                             " of the data file, where only %" PRIu64
                             ", that of the guest, would be right",
                             entry, host, guest);
    if (host >= bounds->data_size)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": host offset %" PRIu64
                             " is beyond the end of the file, which has %" PRIu64 " bytes",
                             entry, host, bounds->data_size);
    return 0;
}

/* How many bits from `first` on are like that one. */
static unsigned same_bits(uint32_t bits, unsigned first)
{
    unsigned last = first;

    while (last + 1 < SUBCLUSTERS && (bits >> (last + 1) & 1) == (bits >> first & 1))
        last++;
    return last - first + 1;
}

static unsigned min_unsigned(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static int decode_subclusters(const struct qcow2_bounds *bounds, uint64_t entry, uint64_t bitmap,
                              bool has_host, struct qcow2_run *run, struct blk_error *error)
{
    uint64_t size = cluster_size(bounds) / SUBCLUSTERS;
    uint32_t allocated = (uint32_t)bitmap, zeros = (uint32_t)(bitmap >> 32);
    unsigned first = (unsigned)(run->offset % cluster_size(bounds) / size);
    unsigned count = min_unsigned(same_bits(allocated, first), same_bits(zeros, first));

    if (allocated & zeros)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": its bitmap 0x%016" PRIx64
                             " has subclusters that are both allocated and zeros",
                             entry, bitmap);
    if (allocated && !has_host)
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": its bitmap 0x%016" PRIx64
                             " has allocated subclusters, but it names no host offset",
                             entry, bitmap);
    if (allocated >> first & 1)
        run->kind = QCOW2_RUN_PLAIN;
    else
        run->kind = zeros >> first & 1 ? QCOW2_RUN_ZEROS : QCOW2_RUN_NOTHING;
    run->len = count * size - run->offset % size;
    return 0;
}

static int decode_standard(const struct qcow2_bounds *bounds, uint64_t entry, uint64_t bitmap,
                           struct qcow2_run *run, struct blk_error *error)
{
    const struct qcow2_header *header = bounds->header;
    bool extended = header->incompatible & QCOW2_EXTENDED_L2;
    bool data_file = header->incompatible & QCOW2_DATA_FILE;
    uint64_t host = entry & OFFSET_MASK, within = run->offset % cluster_size(bounds);
    bool has_host = host != 0 || (data_file && (entry & COPIED));
    int status;

    if (entry & RESERVED)
        return blk_error_set(
            error, EINVAL, "L2 entry 0x%016" PRIx64 ": the reserved bits 0x%016" PRIx64 " are set",
            entry, entry & RESERVED);
    if ((entry & ZERO) && (header->version < 3 || extended))
        return blk_error_set(error, EINVAL,
                             "L2 entry 0x%016" PRIx64 ": bit 0 is set, which %s has not", entry,
                             extended ? "an extended entry" : "version 2");
    if (host == 0 && (entry & COPIED) && !data_file)
        return blk_error_set(
            error, EINVAL,
            "L2 entry 0x%016" PRIx64 ": a cluster at host offset 0, where the header is", entry);
    whole(bounds, entry & ZERO ? QCOW2_RUN_ZEROS : QCOW2_RUN_NOTHING, run);
    if (extended)
        status = decode_subclusters(bounds, entry, bitmap, has_host, run, error);
    else
        status = 0;
    if (status == 0 && !extended && has_host && !(entry & ZERO))
        run->kind = QCOW2_RUN_PLAIN;
    if (status == 0 && has_host && host % cluster_size(bounds) != 0)
        status = check_host(bounds, entry, host, cluster_size(bounds), host, error);
    if (status == 0 && run->kind == QCOW2_RUN_PLAIN)
        status = check_host(bounds, entry, host, cluster_size(bounds), run->offset - within, error);
    run->host = host + within;
    return status;
}

/* Version 1: offsets are multiples of a sector, the length of compressed data is in bytes. */
static int decode_v1(const struct qcow2_bounds *bounds, uint64_t entry, struct qcow2_run *run,
                     struct blk_error *error)
{
    unsigned offset_bits = 63 - bounds->header->cluster_bits;
    uint64_t within = run->offset % cluster_size(bounds);
    int status;

    if (entry & V1_COMPRESSED) {
        whole(bounds, QCOW2_RUN_COMPRESSED, run);
        run->host = entry & ((UINT64_C(1) << offset_bits) - 1);
        return check_stream(bounds, entry, entry >> offset_bits & (cluster_size(bounds) - 1), run,
                            error);
    }
    whole(bounds, entry ? QCOW2_RUN_PLAIN : QCOW2_RUN_NOTHING, run);
    status = entry ? check_host(bounds, entry, entry, SECTOR, run->offset - within, error) : 0;
    run->host = entry + within;
    return status;
}

int qcow2_entry_decode(const struct qcow2_bounds *bounds, uint64_t offset, uint64_t entry,
                       uint64_t bitmap, struct qcow2_run *run, struct blk_error *error)
{
    *run = (struct qcow2_run){.offset = offset};
    if (bounds->header->version == 1)
        return decode_v1(bounds, entry, run, error);
    if (entry & COMPRESSED)
        return decode_compressed(bounds, entry, bitmap, run, error);
    return decode_standard(bounds, entry, bitmap, run, error);
}
