/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Headers: what all versions share, and versions 2 and 3. Every field may be a lie: it is looked at once, here,
 * before anything is made of it. Where the specification leaves something open, what QEMU takes is taken.
 */
#include "qcow2_header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <lunferry/units.h>

/* Bytes of the fixed part. */
#define HEADER_V2 72u
#define HEADER_V3 104u

#define MIN_CLUSTER_BITS          9u
#define MAX_CLUSTER_BITS          21u
#define MIN_CLUSTER_BITS_EXTENDED 14u /* a subcluster has 512 bytes at least */

#define MAX_REFCOUNT_ORDER 6u
#define MAX_SNAPSHOTS      65536u

#define KNOWN_INCOMPATIBLE                                                                         \
    (UINT64_C(0) | QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION_TYPE |        \
     QCOW2_EXTENDED_L2)
#define AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)

/* ---- Features --------------------------------------------------------------------------------- */

/* A sentence with the first of them: one is enough to know that it cannot be read. */
static int refuse_features(const struct qcow2_parser *parser, uint64_t unknown)
{
    unsigned bit = (unsigned)__builtin_ctzll(unknown);
    int others = __builtin_popcountll(unknown) - 1;
    char name[QCOW2_QUOTE], more[40] = "";
    int status = qcow2_feature_name(parser, bit, name);

    if (status < 0)
        return status;
    if (others > 0)
        snprintf(more, sizeof(more), ", and %d more", others);
    if (status == 0)
        return blk_error_set(
            parser->error, ENOTSUP,
            "to read it takes a feature that is not known here: incompatible bit %u, for "
            "which the image has no name%s",
            bit, more);
    return blk_error_set(
        parser->error, ENOTSUP,
        "to read it takes a feature that is not known here: \"%s\" (incompatible bit %u)%s", name,
        bit, more);
}

static int check_compression(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;
    bool other = (header->incompatible & QCOW2_COMPRESSION_TYPE) != 0;
    unsigned type = parser->header_len > HEADER_V3 ? parser->bytes[FIELD_COMPRESSION] : QCOW2_ZLIB;

    if (type > QCOW2_ZSTD)
        return blk_error_set(
            parser->error, ENOTSUP,
            "its clusters are compressed in a way that is not known here: type %u, where 0 is "
            "zlib and 1 is zstd",
            type);
    if (other && type == QCOW2_ZLIB)
        return blk_error_set(
            parser->error, EINVAL,
            "its incompatible bit 3 says that its compression is not zlib, and its compression "
            "type says that it is");
    if (!other && type != QCOW2_ZLIB)
        return blk_error_set(
            parser->error, EINVAL,
            "its compression type says that it is zstd, and its incompatible bit 3 that it is "
            "zlib");
    header->compression = (enum qcow2_compression)type;
    return 0;
}

static int check_features(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;

    if (header->version < 3)
        return 0;
    header->incompatible = qcow2_get64(parser->bytes + FIELD_INCOMPATIBLE);
    header->compatible = qcow2_get64(parser->bytes + FIELD_COMPATIBLE);
    header->autoclear = qcow2_get64(parser->bytes + FIELD_AUTOCLEAR);
    if (header->incompatible & ~KNOWN_INCOMPATIBLE)
        return refuse_features(parser, header->incompatible & ~KNOWN_INCOMPATIBLE);
    if ((header->incompatible & QCOW2_EXTENDED_L2) &&
        header->cluster_bits < MIN_CLUSTER_BITS_EXTENDED)
        return blk_error_set(
            parser->error, EINVAL,
            "it has subclusters (extended L2 entries), and clusters of 2^%u bytes, which are "
            "too small for them: 2^%u is the least",
            header->cluster_bits, MIN_CLUSTER_BITS_EXTENDED);
    header->data_file_raw = (header->autoclear & AUTOCLEAR_DATA_FILE_RAW) != 0;
    if (header->data_file_raw && !(header->incompatible & QCOW2_DATA_FILE))
        return blk_error_set(
            parser->error, EINVAL,
            "it says that its data file is raw (autoclear bit 1), and that it has none "
            "(incompatible bit 2)");
    return check_compression(parser);
}

int qcow2_check_encryption(const struct qcow2_parser *parser, uint32_t method)
{
    if (method == 0)
        return 0;
    if (method <= 2)
        return blk_error_set(
            parser->error, ENOTSUP,
            "it is encrypted (%s), and encrypted images cannot be read here; qemu-img convert "
            "makes one of it that is not",
            method == 1 ? "AES" : "LUKS");
    return blk_error_set(
        parser->error, EINVAL,
        "its encryption method is %" PRIu32 "; there are 0 (none), 1 (AES) and 2 (LUKS)", method);
}

/* ---- What versions 2 and 3 have ----------------------------------------------------------------- */

static int check_clusters(struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;
    uint32_t bits = qcow2_get32(parser->bytes + FIELD_CLUSTER_BITS);

    if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS)
        return blk_error_set(parser->error, EINVAL,
                             "its clusters have 2^%" PRIu32 " bytes; right are 2^%u to 2^%u", bits,
                             MIN_CLUSTER_BITS, MAX_CLUSTER_BITS);
    header->cluster_bits = bits;
    parser->most = UINT64_C(1) << bits;
    if (parser->file_size < parser->most)
        return blk_error_set(parser->error, EINVAL,
                             "the file ends after %" PRIu64
                             " bytes, inside its first cluster, which has %" PRIu64
                             "; it has been cut off",
                             parser->file_size, parser->most);
    return 0;
}

static int check_header_len(struct qcow2_parser *parser)
{
    uint32_t len = HEADER_V2;

    if (parser->header->version >= 3) {
        len = qcow2_get32(parser->bytes + FIELD_HEADER_LEN);
        if (len < HEADER_V3 || len % 8 != 0)
            return blk_error_set(parser->error, EINVAL,
                                 "its header length is %" PRIu32
                                 "; right is a multiple of 8 from %u on",
                                 len, HEADER_V3);
        if (len > parser->most)
            return blk_error_set(parser->error, EINVAL,
                                 "its header has %" PRIu32
                                 " bytes, more than its first cluster, which has "
                                 "%" PRIu64,
                                 len, parser->most);
    }
    parser->header_len = len;
    return qcow2_want(parser, len);
}

static int check_refcounts(const struct qcow2_parser *parser, struct qcow2_table *table)
{
    struct qcow2_header *header = parser->header;
    uint32_t order = header->version < 3 ? 4 : qcow2_get32(parser->bytes + FIELD_REFCOUNT_ORDER);
    int status;

    if (order > MAX_REFCOUNT_ORDER)
        return blk_error_set(parser->error, EINVAL,
                             "its refcounts have 2^%" PRIu32 " bits; the most is 2^%u", order,
                             MAX_REFCOUNT_ORDER);
    header->refcount_bits = 1u << order;
    header->refcount_offset = qcow2_get64(parser->bytes + FIELD_REFCOUNT_OFFSET);
    header->refcount_clusters = qcow2_get32(parser->bytes + FIELD_REFCOUNT_CLUSTERS);
    *table = (struct qcow2_table){"refcount table", header->refcount_offset,
                                  (uint64_t)header->refcount_clusters << header->cluster_bits};
    if (table->len == 0)
        return blk_error_set(
            parser->error, EINVAL,
            "it has no refcount table; every image has one, of at least a cluster");
    if (table->len > QCOW2_MAX_REFTABLE)
        return blk_error_set(parser->error, EINVAL,
                             "its refcount table has %" PRIu64 " bytes; the most is %u", table->len,
                             QCOW2_MAX_REFTABLE);
    status = qcow2_table_check_start(header, table, parser->error);
    return status < 0 ? status : qcow2_table_check_end(table, parser->file_size, parser->error);
}

/* Only entries can tell how long they are; so this is the least. */
static int check_snapshots(const struct qcow2_parser *parser, struct qcow2_table *table)
{
    struct qcow2_header *header = parser->header;
    int status;

    header->snapshot_count = qcow2_get32(parser->bytes + FIELD_SNAPSHOT_COUNT);
    header->snapshot_offset = qcow2_get64(parser->bytes + FIELD_SNAPSHOT_OFFSET);
    *table = (struct qcow2_table){"snapshot table", header->snapshot_offset,
                                  (uint64_t)header->snapshot_count * QCOW2_SNAPSHOT_ENTRY};
    if (header->snapshot_count > MAX_SNAPSHOTS)
        return blk_error_set(parser->error, EINVAL, "it has %" PRIu32 " snapshots; the most is %u",
                             header->snapshot_count, MAX_SNAPSHOTS);
    status = qcow2_table_check_start(header, table, parser->error);
    return status < 0 ? status : qcow2_table_check_end(table, parser->file_size, parser->error);
}

int qcow2_check_size(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;

    header->size = qcow2_get64(parser->bytes + FIELD_SIZE);
    if (header->size <= INT64_MAX)
        return 0;
    return blk_error_set(parser->error, EINVAL,
                         "its disk has %" PRIu64 " bytes; the most is %" PRId64, header->size,
                         INT64_MAX);
}

static int check_tables(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;
    struct qcow2_table tables[3];
    int status = qcow2_check_size(parser);

    header->l2_bits = header->cluster_bits - (header->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
    header->l1_entries = qcow2_get32(parser->bytes + FIELD_L1_ENTRIES);
    header->l1_offset = qcow2_get64(parser->bytes + FIELD_L1_OFFSET);
    tables[0] =
        (struct qcow2_table){"L1 table", header->l1_offset, UINT64_C(8) * header->l1_entries};
    if (status == 0)
        status = qcow2_l1_check_place(header, tables[0].what, parser->file_size, parser->error);
    if (status == 0)
        status = check_refcounts(parser, &tables[1]);
    if (status == 0)
        status = check_snapshots(parser, &tables[2]);
    return status < 0 ? status : qcow2_tables_check_apart(tables, 3, parser->error);
}

static int parse_v2(struct qcow2_parser *parser)
{
    int status = check_clusters(parser);

    if (status == 0)
        status = check_header_len(parser);
    if (status == 0)
        status = qcow2_find_backing(parser, parser->header_len, parser->most, "the first cluster");
    parser->extensions_end = parser->name_offset ? parser->name_offset : parser->most;
    if (status == 0)
        status = check_features(parser);
    if (status == 0)
        status = qcow2_check_encryption(parser, qcow2_get32(parser->bytes + FIELD_CRYPT));
    if (status == 0)
        status = check_tables(parser);
    if (status == 0)
        status = qcow2_take_extensions(parser);
    return status < 0 ? status : qcow2_take_backing(parser);
}

/* ---- Either ----------------------------------------------------------------------------------- */

static int check_version(const struct qcow2_parser *parser, bool qcow)
{
    unsigned version = parser->header->version;

    if (qcow && version == 1)
        return 0;
    if (qcow && (version == 2 || version == 3))
        return blk_error_set(
            parser->error, EINVAL,
            "it is a qcow2 image (version %u), and qcow (version 1) was asked for: its format "
            "is \"qcow2\"",
            version);
    if (qcow)
        return blk_error_set(
            parser->error, ENOTSUP,
            "it is version %u of the format, which is not known here; qcow is version 1", version);
    if (version == 1)
        return blk_error_set(
            parser->error, EINVAL,
            "it is a qcow image (version 1), and qcow2 (version 2 or 3) was asked for: its "
            "format is \"qcow\"");
    if (version < 2 || version > 3)
        return blk_error_set(
            parser->error, ENOTSUP,
            "it is version %u of the format, which is not known here; qcow2 is version 2 or 3",
            version);
    return 0;
}

/* Magic and version, and all of the fixed part of that version. */
static int parse_start(struct qcow2_parser *parser, bool qcow)
{
    struct qcow2_header *header = parser->header;
    const unsigned char *bytes = parser->bytes;
    uint64_t least;
    int status;

    if (parser->file_size < QCOW2_HEADER_V1)
        return blk_error_set(parser->error, EINVAL,
                             "the file has %" PRIu64 " bytes, fewer than any header",
                             parser->file_size);
    status = qcow2_want(parser, QCOW2_HEADER_V1);
    if (status < 0)
        return status;
    if (qcow2_get32(bytes) != QCOW2_MAGIC)
        return blk_error_set(
            parser->error, EINVAL,
            "it is no %s image: it begins with the bytes %02x %02x %02x %02x, and not with "
            "51 46 49 fb",
            qcow ? "qcow" : "qcow2", bytes[0], bytes[1], bytes[2], bytes[3]);
    header->version = qcow2_get32(bytes + FIELD_VERSION);
    status = check_version(parser, qcow);
    if (status < 0)
        return status;
    least = header->version == 1 ? QCOW2_HEADER_V1 : header->version == 2 ? HEADER_V2 : HEADER_V3;
    if (parser->file_size < least)
        return blk_error_set(parser->error, EINVAL,
                             "the file has %" PRIu64
                             " bytes, and the header of version %u %" PRIu64,
                             parser->file_size, header->version, least);
    return qcow2_want(parser, least);
}

int qcow2_header_parse(struct qcow2_header *header, const unsigned char *bytes, size_t len,
                       uint64_t file_size, bool qcow, uint64_t *need, struct blk_error *error)
{
    struct qcow2_parser parser = {
        .header = header,
        .bytes = bytes,
        .len = len,
        .file_size = file_size,
        .most = min_u64(file_size, QCOW2_HEADER_READ),
        .need = need,
        .error = error,
    };
    int status;

    memset(header, 0, sizeof(*header));
    status = parse_start(&parser, qcow);
    if (status == 0)
        status = header->version == 1 ? qcow2_parse_v1(&parser) : parse_v2(&parser);
    if (status < 0)
        qcow2_header_free(header);
    return status;
}

void qcow2_header_free(struct qcow2_header *header)
{
    free(header->backing);
    free(header->backing_format);
    free(header->data_file);
    header->backing = header->backing_format = header->data_file = NULL;
}
