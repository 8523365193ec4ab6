/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header of an image that was written, as QEMU writes it: field by field, then the extensions, then the name of the
 * backing file. */
#include "qcow2_write.h"

#include <string.h>

#include <lunferry/units.h>

#include "qcow2_header.h"

/* Bytes; of version 3 with the compression type and what fills up to a multiple of 8. */
#define HEADER_V2 72u
#define HEADER_V3 112u

#define EXTENSION_END            0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURE_NAMES  0x6803f857u

#define FEATURE_ENTRY 48u

#define LAZY_REFCOUNTS UINT64_C(1)

enum { INCOMPATIBLE, COMPATIBLE, AUTOCLEAR };

/* For programs that do not know a bit, and say so. */
static const struct {
    unsigned char kind, bit;
    const char *name;
} features[] = {
    {INCOMPATIBLE, 0, "dirty bit"},
    {INCOMPATIBLE, 1, "corrupt bit"},
    {INCOMPATIBLE, 2, "external data file"},
    {INCOMPATIBLE, 3, "compression type"},
    {INCOMPATIBLE, 4, "extended L2 entries"},
    {COMPATIBLE, 0, "lazy refcounts"},
    {AUTOCLEAR, 0, "bitmaps"},
    {AUTOCLEAR, 1, "raw external data"},
};

#define FEATURES (sizeof(features) / sizeof(*features))

static void put32(unsigned char *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
}

static void put64(unsigned char *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof(value));
}

static void put_fields(const struct image_layout *layout, const struct qcow2_shape *shape,
                       const struct qcow2_places *places, unsigned char *bytes)
{
    put32(bytes, QCOW2_MAGIC);
    put32(bytes + FIELD_VERSION, layout->version);
    put32(bytes + FIELD_CLUSTER_BITS, shape->cluster_bits);
    put64(bytes + FIELD_SIZE, shape->size);
    put32(bytes + FIELD_L1_ENTRIES, (uint32_t)shape->tables);
    put64(bytes + FIELD_L1_OFFSET, places->l1);
    put64(bytes + FIELD_REFCOUNT_OFFSET, places->reftable);
    put32(bytes + FIELD_REFCOUNT_CLUSTERS, (uint32_t)places->reftable_clusters);
}

static void put_fields_v3(const struct image_layout *layout, const struct qcow2_shape *shape,
                          unsigned char *bytes)
{
    bool zstd = layout->compression == IMAGE_ZSTD;
    uint64_t incompatible =
        (layout->extended_l2 ? QCOW2_EXTENDED_L2 : 0) | (zstd ? QCOW2_COMPRESSION_TYPE : 0);

    put64(bytes + FIELD_INCOMPATIBLE, incompatible);
    put64(bytes + FIELD_COMPATIBLE, layout->lazy_refcounts ? LAZY_REFCOUNTS : 0);
    put32(bytes + FIELD_REFCOUNT_ORDER, (uint32_t)__builtin_ctz(shape->refcount_bits));
    put32(bytes + FIELD_HEADER_LEN, HEADER_V3);
    bytes[FIELD_COMPRESSION] = zstd ? QCOW2_ZSTD : QCOW2_ZLIB;
}

static size_t put_extension(unsigned char *at, uint32_t type, const void *data, size_t len)
{
    put32(at, type);
    put32(at + 4, (uint32_t)len);
    memcpy(at + 8, data, len);
    return 8 + round_up(len, 8);
}

static size_t put_feature_names(unsigned char *at)
{
    unsigned char table[FEATURES * FEATURE_ENTRY] = {0};

    for (size_t i = 0; i < FEATURES; i++) {
        unsigned char *entry = table + i * FEATURE_ENTRY;

        entry[0] = features[i].kind;
        entry[1] = features[i].bit;
        memcpy(entry + 2, features[i].name, strlen(features[i].name));
    }
    return put_extension(at, EXTENSION_FEATURE_NAMES, table, sizeof(table));
}

size_t qcow2_write_header(const struct image_layout *layout, const struct qcow2_shape *shape,
                          const struct qcow2_places *places, unsigned char *bytes, size_t room)
{
    size_t fixed = layout->version == 2 ? HEADER_V2 : HEADER_V3;
    size_t format = layout->backing_format ? strlen(layout->backing_format) : 0;
    size_t name = layout->backing ? strlen(layout->backing) : 0;
    size_t names = layout->version == 2 ? 0 : 8 + FEATURES * FEATURE_ENTRY;
    size_t at = fixed, needed = fixed + (format ? 8 + round_up(format, 8) : 0) + 8 + name;

    if (needed > room)
        return 0;
    put_fields(layout, shape, places, bytes);
    if (layout->version > 2)
        put_fields_v3(layout, shape, bytes);
    if (format)
        at += put_extension(bytes + at, EXTENSION_BACKING_FORMAT, layout->backing_format, format);
    if (names && needed + names <= room) /* which are of use, but no more */
        at += put_feature_names(bytes + at);
    put32(bytes + at, EXTENSION_END);
    put32(bytes + at + 4, 0);
    at += 8;
    if (name) {
        put64(bytes + FIELD_BACKING_OFFSET, at);
        put32(bytes + FIELD_BACKING_LEN, (uint32_t)name);
        memcpy(bytes + at, layout->backing, name);
    }
    return at + name;
}
