/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images made by hand; see the header. */
#include "qcow2_make.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include <lunferry/units.h>

#define HEADER_V2 72
#define HEADER_V3 112 /* with the compression type, as today's QEMU writes it */
#define HEADER_V1 48
#define SECTOR    512

/* Where the backing name may be at the latest, so that nobody has to read far for it. */
#define NAME_BEFORE 4096

/* ---- The file's bytes ------------------------------------------------------------------------- */

static void grow(struct qcow2_make *make, size_t len)
{
    if (len <= make->len)
        return;
    if (len > make->capacity) {
        make->capacity = len + len / 2;
        make->bytes = realloc(make->bytes, make->capacity);
        assert_non_null(make->bytes);
    }
    memset(make->bytes + make->len, 0, len - make->len);
    make->len = len;
}

void qcow2_make_put(struct qcow2_make *make, uint64_t offset, const void *bytes, size_t len)
{
    grow(make, (size_t)offset + len);
    if (len > 0)
        memcpy(make->bytes + offset, bytes, len);
}

static void put_number(struct qcow2_make *make, uint64_t offset, uint64_t value, size_t len)
{
    unsigned char bytes[8];

    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(value >> (8 * (len - 1 - i)));
    qcow2_make_put(make, offset, bytes, len);
}

void qcow2_make_put8(struct qcow2_make *make, uint64_t offset, uint8_t value)
{
    put_number(make, offset, value, 1);
}

void qcow2_make_put16(struct qcow2_make *make, uint64_t offset, uint16_t value)
{
    put_number(make, offset, value, 2);
}

void qcow2_make_put32(struct qcow2_make *make, uint64_t offset, uint32_t value)
{
    put_number(make, offset, value, 4);
}

void qcow2_make_put64(struct qcow2_make *make, uint64_t offset, uint64_t value)
{
    put_number(make, offset, value, 8);
}

static uint64_t get_number(const struct qcow2_make *make, uint64_t offset, size_t len)
{
    uint64_t value = 0;

    assert_true(offset + len <= make->len);
    for (size_t i = 0; i < len; i++)
        value = value << 8 | make->bytes[offset + i];
    return value;
}

uint32_t qcow2_make_get32(const struct qcow2_make *make, uint64_t offset)
{
    return (uint32_t)get_number(make, offset, 4);
}

uint64_t qcow2_make_get64(const struct qcow2_make *make, uint64_t offset)
{
    return get_number(make, offset, 8);
}

/* One user more for each cluster that [offset, offset + len) touches. */
static void refer(struct qcow2_make *make, uint64_t offset, uint64_t len)
{
    uint64_t end = round_up(offset + len, make->cluster_size);

    if (make->version == 1)
        return;
    for (uint64_t at = round_down(offset, make->cluster_size); at < end; at += make->cluster_size) {
        uint64_t index = at / make->cluster_size, entry = make->refcount_block + 2 * index;

        if (2 * index < make->cluster_size)
            qcow2_make_put16(make, entry, (uint16_t)(get_number(make, entry, 2) + 1));
    }
}

/* The same, but without counting. */
static uint64_t alloc_silently(struct qcow2_make *make, size_t clusters)
{
    uint64_t offset = round_up(make->len, make->cluster_size);

    grow(make, (size_t)offset + clusters * make->cluster_size);
    return offset;
}

uint64_t qcow2_make_alloc(struct qcow2_make *make, size_t clusters)
{
    uint64_t offset = alloc_silently(make, clusters);

    refer(make, offset, (uint64_t)clusters * make->cluster_size);
    return offset;
}

/* ---- The header ------------------------------------------------------------------------------- */

void qcow2_make_extension(struct qcow2_make *make, uint32_t type, const void *data, size_t len)
{
    qcow2_make_put32(make, make->extensions, type);
    qcow2_make_put32(make, make->extensions + 4, (uint32_t)len);
    qcow2_make_put(make, make->extensions + 8, data, len);
    make->extensions += 8 + (size_t)round_up(len, 8);
    qcow2_make_put64(make, make->extensions, QCOW2_EXT_END);
}

void qcow2_make_feature_name(struct qcow2_make *make, uint8_t bit, const char *name)
{
    unsigned char entry[48] = {0, bit};

    assert_true(strlen(name) <= sizeof(entry) - 2);
    memcpy(entry + 2, name, strlen(name));
    qcow2_make_extension(make, QCOW2_EXT_FEATURE_NAMES, entry, sizeof(entry));
}

static void put_string_extension(struct qcow2_make *make, uint32_t type, const char *text)
{
    if (text != NULL)
        qcow2_make_extension(make, type, text, strlen(text));
}

/* Behind the extensions, at the end of the first cluster or before NAME_BEFORE. */
static void put_backing(struct qcow2_make *make, const char *name)
{
    size_t len = strlen(name);
    uint64_t end = min_u64(make->cluster_size, NAME_BEFORE);
    uint64_t offset = round_down(end - len, 8);

    qcow2_make_put(make, offset, name, len);
    qcow2_make_put64(make, QCOW2_AT_BACKING_OFFSET, offset);
    qcow2_make_put32(make, QCOW2_AT_BACKING_LEN, (uint32_t)len);
}

static void init_header(struct qcow2_make *make, const struct qcow2_make_options *options)
{
    grow(make, make->cluster_size);
    qcow2_make_put32(make, QCOW2_AT_CLUSTER_BITS, make->cluster_bits);
    qcow2_make_put64(make, QCOW2_AT_SIZE, make->size);
    make->extensions = make->version == 2 ? HEADER_V2 : HEADER_V3;
    if (make->version >= 3) {
        qcow2_make_put64(make, QCOW2_AT_INCOMPATIBLE, make->incompatible);
        qcow2_make_put64(make, QCOW2_AT_COMPATIBLE, options->compatible);
        qcow2_make_put64(make, QCOW2_AT_AUTOCLEAR, options->autoclear);
        qcow2_make_put32(make, QCOW2_AT_REFCOUNT_ORDER, 4);
        qcow2_make_put32(make, QCOW2_AT_HEADER_LENGTH, HEADER_V3);
        qcow2_make_put8(make, QCOW2_AT_COMPRESSION, (uint8_t)make->compression);
    }
    put_string_extension(make, QCOW2_EXT_BACKING_FORMAT, options->backing_format);
    put_string_extension(make, QCOW2_EXT_DATA_FILE, options->data_file);
    if (options->backing != NULL)
        put_backing(make, options->backing);
}

static void init_tables(struct qcow2_make *make)
{
    uint64_t table = alloc_silently(make, 1);
    size_t l1_clusters =
        (8 * (size_t)make->l1_entries + make->cluster_size - 1) / make->cluster_size;

    make->refcount_block = alloc_silently(make, 1);
    refer(make, 0, 3 * make->cluster_size);
    qcow2_make_put64(make, table, make->refcount_block);
    qcow2_make_put64(make, QCOW2_AT_REFCOUNT_OFFSET, table);
    qcow2_make_put32(make, QCOW2_AT_REFCOUNT_CLUSTERS, 1);
    make->l1_offset = qcow2_make_alloc(make, l1_clusters);
    qcow2_make_put64(make, QCOW2_AT_L1_OFFSET, make->l1_offset);
    qcow2_make_put32(make, QCOW2_AT_L1_ENTRIES, make->l1_entries);
}

static void init_v1(struct qcow2_make *make, const struct qcow2_make_options *options)
{
    size_t len = options->backing ? strlen(options->backing) : 0;

    grow(make, HEADER_V1);
    qcow2_make_put64(make, QCOW2_AT_SIZE, make->size);
    qcow2_make_put8(make, QCOW_AT_CLUSTER_BITS, (uint8_t)make->cluster_bits);
    qcow2_make_put8(make, QCOW_AT_L2_BITS, (uint8_t)make->l2_bits);
    if (len > 0) {
        qcow2_make_put64(make, QCOW2_AT_BACKING_OFFSET, HEADER_V1);
        qcow2_make_put32(make, QCOW2_AT_BACKING_LEN, (uint32_t)len);
        qcow2_make_put(make, HEADER_V1, options->backing, len);
    }
    make->l1_offset = round_up(make->len, 8);
    qcow2_make_put64(make, QCOW_AT_L1_OFFSET, make->l1_offset);
    grow(make, (size_t)make->l1_offset + 8 * (size_t)make->l1_entries);
}

void qcow2_make_init(struct qcow2_make *make, const struct qcow2_make_options *options)
{
    uint64_t per_table;

    memset(make, 0, sizeof(*make));
    make->version = options->version ? options->version : 3;
    make->cluster_bits = options->cluster_bits ? options->cluster_bits : 16;
    make->cluster_size = (size_t)1 << make->cluster_bits;
    make->size = options->size;
    make->compression = options->compression;
    make->incompatible = options->incompatible;
    if (make->compression == QCOW2_ZSTD)
        make->incompatible |= QCOW2_COMPRESSION_TYPE;
    make->entry_size = make->incompatible & QCOW2_EXTENDED_L2 ? 16 : 8;
    make->l2_bits = make->cluster_bits - (make->entry_size == 16 ? 4 : 3);
    if (make->version == 1 && options->l2_bits)
        make->l2_bits = options->l2_bits;
    per_table = (uint64_t)make->cluster_size << make->l2_bits;
    make->l1_entries = options->l1_entries ? options->l1_entries
                                           : (uint32_t)((make->size + per_table - 1) / per_table);
    qcow2_make_put32(make, QCOW2_AT_MAGIC, QCOW2_MAGIC);
    qcow2_make_put32(make, QCOW2_AT_VERSION, make->version);
    if (make->version == 1) {
        init_v1(make, options);
        return;
    }
    init_header(make, options);
    init_tables(make);
}

void qcow2_make_release(struct qcow2_make *make)
{
    free(make->bytes);
    memset(make, 0, sizeof(*make));
}

/* ---- Guest clusters --------------------------------------------------------------------------- */

uint64_t qcow2_make_l1_at(const struct qcow2_make *make, uint64_t guest)
{
    return make->l1_offset + 8 * (guest >> (make->cluster_bits + make->l2_bits));
}

uint64_t qcow2_make_entry_at(struct qcow2_make *make, uint64_t guest)
{
    uint64_t l1_at = qcow2_make_l1_at(make, guest), table = qcow2_make_get64(make, l1_at);
    uint64_t index = guest >> make->cluster_bits & (((uint64_t)1 << make->l2_bits) - 1);

    if (table == 0) {
        size_t len = make->entry_size << make->l2_bits;

        table = qcow2_make_alloc(make, (len + make->cluster_size - 1) / make->cluster_size);
        qcow2_make_put64(make, l1_at, table | (make->version > 1 ? QCOW2_COPIED : 0));
    }
    return (table & ~QCOW2_COPIED) + index * make->entry_size;
}

void qcow2_make_entry(struct qcow2_make *make, uint64_t guest, uint64_t entry)
{
    qcow2_make_put64(make, qcow2_make_entry_at(make, guest), entry);
}

void qcow2_make_bitmap(struct qcow2_make *make, uint64_t guest, uint32_t allocated, uint32_t zero)
{
    assert_int_equal(make->entry_size, 16);
    qcow2_make_put64(make, qcow2_make_entry_at(make, guest) + 8, (uint64_t)zero << 32 | allocated);
}

static uint64_t put_plain(struct qcow2_make *make, uint64_t guest, const void *cluster)
{
    uint64_t at = qcow2_make_entry_at(make, guest), offset = guest;

    if (!(make->incompatible & QCOW2_DATA_FILE)) {
        offset = qcow2_make_alloc(make, 1);
        qcow2_make_put(make, offset, cluster, make->cluster_size);
    }
    qcow2_make_put64(make, at, offset | (make->version > 1 ? QCOW2_COPIED : 0));
    return offset;
}

uint64_t qcow2_make_data(struct qcow2_make *make, uint64_t guest, const void *cluster)
{
    uint64_t offset = put_plain(make, guest, cluster);

    if (make->entry_size == 16)
        qcow2_make_bitmap(make, guest, UINT32_MAX, 0);
    return offset;
}

uint64_t qcow2_make_subclusters(struct qcow2_make *make, uint64_t guest, const void *cluster,
                                uint32_t allocated, uint32_t zero)
{
    uint64_t offset = put_plain(make, guest, cluster);

    qcow2_make_bitmap(make, guest, allocated, zero);
    return offset;
}

void qcow2_make_zero(struct qcow2_make *make, uint64_t guest, bool allocated)
{
    uint64_t at = qcow2_make_entry_at(make, guest), entry = 0;

    assert_true(make->version >= 3);
    if (allocated) {
        unsigned char *junk = malloc(make->cluster_size);

        assert_non_null(junk);
        memset(junk, 0x5a, make->cluster_size);
        put_plain(make, guest, junk);
        free(junk);
        entry = qcow2_make_get64(make, at);
    }
    if (make->entry_size == 16)
        qcow2_make_bitmap(make, guest, 0, UINT32_MAX);
    else
        qcow2_make_put64(make, at, entry | QCOW2_ZERO);
}

void qcow2_make_stream(struct qcow2_make *make, uint64_t guest, const void *stream, size_t len)
{
    uint64_t at = qcow2_make_entry_at(make, guest), offset = make->len;
    uint64_t sectors = (offset % SECTOR + len + SECTOR - 1) / SECTOR - 1;

    qcow2_make_put(make, offset, stream, len);
    refer(make, offset, len);
    if (make->version == 1) {
        assert_true(len < make->cluster_size);
        qcow2_make_put64(make, at,
                         QCOW_V1_COMPRESSED | (uint64_t)len << (63 - make->cluster_bits) | offset);
        return;
    }
    assert_true(sectors < (uint64_t)1 << (make->cluster_bits - 8));
    qcow2_make_put64(make, at, QCOW2_COMPRESSED | sectors << (70 - make->cluster_bits) | offset);
}

unsigned char *qcow2_make_deflate(const void *data, size_t len, int window_bits, size_t *out_len)
{
    z_stream stream = {0};
    unsigned char *out;
    uLong most;

    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, -window_bits, 9, Z_DEFAULT_STRATEGY),
                     Z_OK);
    most = deflateBound(&stream, len);
    out = malloc(most);
    assert_non_null(out);
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)len;
    stream.next_out = out;
    stream.avail_out = (uInt)most;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *out_len = stream.total_out;
    deflateEnd(&stream);
    return out;
}

unsigned char *qcow2_make_zstd(const void *data, size_t len, size_t *out_len)
{
    size_t most = ZSTD_compressBound(len);
    unsigned char *out = malloc(most);

    assert_non_null(out);
    *out_len = ZSTD_compress(out, most, data, len, 3);
    assert_false(ZSTD_isError(*out_len));
    return out;
}

size_t qcow2_make_compressed(struct qcow2_make *make, uint64_t guest, const void *cluster)
{
    unsigned char *stream;
    size_t len;

    if (make->compression == QCOW2_ZSTD)
        stream = qcow2_make_zstd(cluster, make->cluster_size, &len);
    else
        stream = qcow2_make_deflate(cluster, make->cluster_size, 12, &len);
    qcow2_make_stream(make, guest, stream, len);
    free(stream);
    return len;
}

/* ---- Snapshots -------------------------------------------------------------------------------- */

/* L1 and all L2 tables, as they are. */
static uint64_t copy_tables(struct qcow2_make *make, uint32_t entries)
{
    size_t l1_clusters = (8 * (size_t)entries + make->cluster_size - 1) / make->cluster_size;
    uint64_t l1_offset = qcow2_make_alloc(make, l1_clusters);

    for (uint32_t i = 0; i < entries && i < make->l1_entries; i++) {
        uint64_t table = qcow2_make_get64(make, make->l1_offset + 8 * i) & ~QCOW2_COPIED, copy;

        if (table == 0)
            continue;
        copy = qcow2_make_alloc(make, 1);
        memcpy(make->bytes + copy, make->bytes + table, make->cluster_size);
        qcow2_make_put64(make, l1_offset + 8 * i, copy);
    }
    return l1_offset;
}

uint64_t qcow2_make_snapshot(struct qcow2_make *make, const struct qcow2_make_snapshot *snapshot)
{
    uint32_t entries = snapshot->l1_entries ? snapshot->l1_entries : make->l1_entries;
    uint32_t extra = snapshot->extra ? snapshot->extra : 16;
    uint64_t l1_offset = copy_tables(make, entries), table, at;
    size_t id_len = strlen(snapshot->id), name_len = strlen(snapshot->name);

    if (extra == QCOW2_NO_EXTRA)
        extra = 0;
    table = alloc_silently(make, 0);
    at = table + make->snapshot_len;
    grow(make, (size_t)at + 40);
    memcpy(make->bytes + table, make->bytes + make->snapshot_offset, make->snapshot_len);
    qcow2_make_put64(make, at, l1_offset);
    qcow2_make_put32(make, at + 8, entries);
    qcow2_make_put16(make, at + 12, (uint16_t)id_len);
    qcow2_make_put16(make, at + 14, (uint16_t)name_len);
    qcow2_make_put32(make, at + 32, extra ? 0 : (uint32_t)snapshot->vm_state);
    qcow2_make_put32(make, at + 36, extra);
    grow(make, (size_t)at + 40 + extra);
    if (extra >= 8)
        qcow2_make_put64(make, at + 40, snapshot->vm_state);
    if (extra >= 16)
        qcow2_make_put64(make, at + 48, snapshot->size ? snapshot->size : make->size);
    at += 40 + extra;
    qcow2_make_put(make, at, snapshot->id, id_len);
    qcow2_make_put(make, at + id_len, snapshot->name, name_len);
    grow(make, (size_t)round_up(at + id_len + name_len, 8));
    make->snapshot_offset = table;
    make->snapshot_len = make->len - (size_t)table;
    make->snapshot_count++;
    refer(make, table, make->snapshot_len);
    qcow2_make_put64(make, QCOW2_AT_SNAPSHOT_OFFSET, table);
    qcow2_make_put32(make, QCOW2_AT_SNAPSHOT_COUNT, make->snapshot_count);
    return l1_offset;
}

/* ---- What tests need around it ---------------------------------------------------------------- */

void qcow2_make_pattern(void *buf, size_t len, uint32_t seed)
{
    unsigned char *bytes = buf;
    uint32_t state = seed * 2654435761u + 1;

    /* Every other run of 16 bytes is one byte again and again. */
    for (size_t i = 0; i < len; i++) {
        if (i / 16 % 2 == 0 || i % 16 == 0)
            state = state * 1664525 + 1013904223;
        bytes[i] = (unsigned char)((state >> 24) | 1);
    }
}

void qcow2_make_to_disk(const struct qcow2_make *make, struct fake_disk *disk, struct fake *fake)
{
    fake_disk_init(disk, fake, make->len, 0);
    memcpy(disk->written, make->bytes, make->len);
    memcpy(disk->durable, make->bytes, make->len);
}
