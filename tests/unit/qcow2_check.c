/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_check.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <lunferry/units.h>

#define OFFSET UINT64_C(0x00fffffffffffe00)

/* What the header says. */
struct found {
    struct qcow2_check *check;
    unsigned version, bits, words, count_bits;
    bool zstd;
    uint64_t cluster, entries, l1, l1_entries, reftable, reftable_clusters, clusters;
    uint64_t *uses;         /* of each cluster of the file */
    unsigned char *content; /* of one cluster */
    ZSTD_DCtx *zstd_context;
};

static uint64_t get(const struct found *found, uint64_t at, unsigned len)
{
    uint64_t value = 0;

    if (at + len > found->check->len)
        return 0;
    for (unsigned i = 0; i < len; i++)
        value = value << 8 | found->check->bytes[at + i];
    return value;
}

static bool wrong(const struct found *found, const char *what, uint64_t number)
{
    snprintf(found->check->error, sizeof(found->check->error), "%s: %" PRIu64, what, number);
    return false;
}

bool qcow2_check_magic(const unsigned char *bytes)
{
    return memcmp(bytes, "QFI\xfb", 4) == 0;
}

/* [at, at + len) is used once more; the file has it all. */
static bool use(struct found *found, uint64_t at, uint64_t len)
{
    if (len == 0 || at + len > found->check->len || at < found->cluster)
        return wrong(found, "outside of the file", at);
    for (uint64_t i = at >> found->bits; i <= (at + len - 1) >> found->bits; i++)
        found->uses[i]++;
    return true;
}

static bool read_header(struct found *found)
{
    uint64_t incompatible = 0;

    if (!qcow2_check_magic(found->check->bytes))
        return wrong(found, "no magic", 0);
    found->version = (unsigned)get(found, QCOW2_AT_VERSION, 4);
    found->bits = (unsigned)get(found, QCOW2_AT_CLUSTER_BITS, 4);
    found->count_bits = 16;
    if (found->version == 3) {
        incompatible = get(found, QCOW2_AT_INCOMPATIBLE, 8);
        found->count_bits = 1u << get(found, QCOW2_AT_REFCOUNT_ORDER, 4);
        found->zstd = get(found, QCOW2_AT_COMPRESSION, 1) == 1;
        if (found->zstd != ((incompatible & QCOW2_COMPRESSION_TYPE) != 0))
            return wrong(found, "compression type", incompatible);
    }
    found->words = incompatible & QCOW2_EXTENDED_L2 ? 2 : 1;
    found->cluster = UINT64_C(1) << found->bits;
    found->entries = found->cluster / 8 / found->words;
    found->l1 = get(found, QCOW2_AT_L1_OFFSET, 8);
    found->l1_entries = get(found, QCOW2_AT_L1_ENTRIES, 4);
    found->reftable = get(found, QCOW2_AT_REFCOUNT_OFFSET, 8);
    found->reftable_clusters = get(found, QCOW2_AT_REFCOUNT_CLUSTERS, 4);
    found->clusters = found->check->len >> found->bits;
    if (get(found, QCOW2_AT_SIZE, 8) != round_up(found->check->size, 512))
        return wrong(found, "size", get(found, QCOW2_AT_SIZE, 8));
    return true;
}

/* ---- Content ---------------------------------------------------------------------------------- */

static bool inflate_raw(struct found *found, const unsigned char *in, size_t len)
{
    z_stream stream = {0};
    int status;

    if (inflateInit2(&stream, -12) != Z_OK)
        return false;
    stream.next_in = (unsigned char *)(uintptr_t)in;
    stream.avail_in = (unsigned)len;
    stream.next_out = found->content;
    stream.avail_out = (unsigned)found->cluster;
    status = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    return stream.avail_out == 0 && (status == Z_STREAM_END || status == Z_BUF_ERROR);
}

static bool inflate_zstd(struct found *found, const unsigned char *in, size_t len)
{
    ZSTD_inBuffer from = {in, len, 0};
    ZSTD_outBuffer to = {found->content, found->cluster, 0};

    ZSTD_DCtx_reset(found->zstd_context, ZSTD_reset_session_only);
    while (to.pos < to.size) {
        size_t before = to.pos + from.pos;

        if (ZSTD_isError(ZSTD_decompressStream(found->zstd_context, &to, &from)) ||
            to.pos + from.pos == before)
            break;
    }
    return to.pos == to.size;
}

static bool decompress(struct found *found, uint64_t entry)
{
    unsigned shift = 62 - (found->bits - 8);
    uint64_t host = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & ~(UINT64_C(3) << 62)) >> shift) + 1;
    uint64_t len = sectors * 512 - host % 512;

    found->check->compressed++;
    if (entry & QCOW2_COPIED)
        return wrong(found, "compressed and copied", host);
    if (!use(found, host, len))
        return false;
    return found->zstd ? inflate_zstd(found, found->check->bytes + host, len)
                       : inflate_raw(found, found->check->bytes + host, len);
}

static bool read_plain(struct found *found, uint64_t entry)
{
    uint64_t host = entry & OFFSET;

    found->check->plain++;
    if (host % found->cluster != 0 || !(entry & QCOW2_COPIED))
        return wrong(found, "plain entry", entry);
    if (!use(found, host, found->cluster))
        return false;
    memcpy(found->content, found->check->bytes + host, found->cluster);
    return true;
}

/* What the cluster at `guest` holds, in content. */
static bool read_cluster(struct found *found, uint64_t guest, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_check *check = found->check;
    uint64_t len = min_u64(found->cluster, check->size - guest);
    bool extended = found->words == 2;

    memset(found->content, 0, found->cluster);
    if (entry & QCOW2_COMPRESSED)
        return bitmap == 0 && decompress(found, entry);
    if (entry & OFFSET)
        return (!extended || bitmap == UINT32_MAX) && !(entry & 1) && read_plain(found, entry);
    if (extended ? bitmap == UINT64_C(0xffffffff) << 32 && entry == 0 : entry == 1) {
        check->zeros++;
        return extended || found->version == 3;
    }
    check->nothing++;
    if (check->backing)
        memcpy(found->content, check->backing + guest, len);
    return entry == 0 && bitmap == 0;
}

static bool check_cluster(struct found *found, uint64_t guest, uint64_t table, uint64_t index)
{
    struct qcow2_check *check = found->check;
    uint64_t at = table + index * 8 * found->words, len;
    uint64_t entry = table ? get(found, at, 8) : 0;
    uint64_t bitmap = table && found->words == 2 ? get(found, at + 8, 8) : 0;

    if (guest >= check->size)
        return entry == 0 ? true : wrong(found, "beyond the end", guest);
    len = min_u64(found->cluster, check->size - guest);
    if (!read_cluster(found, guest, entry, bitmap))
        return *check->error ? false : wrong(found, "cannot be read", guest);
    if (memcmp(found->content, check->disk + guest, len) != 0)
        return wrong(found, "holds something else", guest);
    for (uint64_t i = len; i < found->cluster; i++) {
        if (found->content[i] != 0)
            return wrong(found, "not zero behind the end", guest + i);
    }
    return true;
}

static bool check_tables(struct found *found)
{
    uint64_t guest = 0;

    if (found->l1_entries * found->entries * found->cluster < found->check->size)
        return wrong(found, "short L1 table", found->l1_entries);
    if (!use(found, found->l1, found->l1_entries * 8))
        return false;
    for (uint64_t i = 0; i < found->l1_entries; i++) {
        uint64_t entry = get(found, found->l1 + 8 * i, 8), table = entry & OFFSET;

        if (entry && (entry != (table | QCOW2_COPIED) || !use(found, table, found->cluster)))
            return wrong(found, "L1 entry", entry);
        for (uint64_t k = 0; k < found->entries; k++) {
            if (!check_cluster(found, guest, table, k))
                return false;
            guest += found->cluster;
        }
    }
    return true;
}

/* ---- Refcounts -------------------------------------------------------------------------------- */

static uint64_t refcount(const struct found *found, uint64_t cluster)
{
    uint64_t in_block = found->cluster * 8 / found->count_bits, index = cluster % in_block;
    uint64_t block = get(found, found->reftable + cluster / in_block * 8, 8);

    if (cluster / in_block >= found->reftable_clusters * found->cluster / 8 || block == 0)
        return 0;
    if (found->count_bits >= 8)
        return get(found, block + index * found->count_bits / 8, found->count_bits / 8);
    return get(found, block + index * found->count_bits / 8, 1) >> index * found->count_bits % 8 &
           ((1u << found->count_bits) - 1);
}

static bool check_refcounts(struct found *found)
{
    uint64_t blocks = found->reftable_clusters * found->cluster / 8;

    found->uses[0]++;
    if (!use(found, found->reftable, found->reftable_clusters * found->cluster))
        return false;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t block = get(found, found->reftable + 8 * i, 8);

        if (block && (block % found->cluster != 0 || !use(found, block, found->cluster)))
            return wrong(found, "refcount block", block);
    }
    for (uint64_t i = 0; i < found->clusters; i++) {
        if (refcount(found, i) != found->uses[i]) {
            snprintf(found->check->error, sizeof(found->check->error),
                     "cluster %" PRIu64 " has the refcount %" PRIu64 " and %" PRIu64 " uses", i,
                     refcount(found, i), found->uses[i]);
            return false;
        }
        if (found->uses[i] > 0)
            found->check->used = (i + 1) << found->bits;
    }
    return true;
}

bool qcow2_check(struct qcow2_check *check)
{
    struct found found = {.check = check};
    bool good;

    *check->error = '\0';
    check->plain = check->compressed = check->zeros = check->nothing = 0;
    if (!read_header(&found))
        return false;
    found.uses = calloc(found.clusters + 1, sizeof(*found.uses));
    found.content = malloc(found.cluster);
    found.zstd_context = found.zstd ? ZSTD_createDCtx() : NULL;
    assert_non_null(found.uses);
    assert_non_null(found.content);
    good = check_tables(&found) && check_refcounts(&found);
    free(found.uses);
    free(found.content);
    ZSTD_freeDCtx(found.zstd_context);
    return good;
}
