/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_fill.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COPIED      (UINT64_C(1) << 63)
#define COMPRESSED  (UINT64_C(1) << 62)
#define ZERO        UINT64_C(1)
#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)

#define ALL_ALLOCATED UINT64_C(0x00000000ffffffff)
#define ALL_ZEROS     UINT64_C(0xffffffff00000000)

#define SECTOR 512

/* ---- Entries ---------------------------------------------------------------------------------- */

struct qcow2_word qcow2_word_plain(const struct qcow2_shape *shape, uint64_t host)
{
    return (struct qcow2_word){host | COPIED, shape->words == 2 ? ALL_ALLOCATED : 0};
}

struct qcow2_word qcow2_word_zeros(const struct qcow2_shape *shape)
{
    return shape->words == 2 ? (struct qcow2_word){0, ALL_ZEROS} : (struct qcow2_word){ZERO, 0};
}

static unsigned offset_bits(const struct qcow2_shape *shape)
{
    return 62 - (shape->cluster_bits - 8);
}

struct qcow2_word qcow2_word_compressed(const struct qcow2_shape *shape, uint64_t host,
                                        uint64_t len)
{
    uint64_t more = (host + len - 1) / SECTOR - host / SECTOR;

    assert(len > 0 && host >> offset_bits(shape) == 0);
    return (struct qcow2_word){COMPRESSED | more << offset_bits(shape) | host, 0};
}

uint64_t qcow2_word_host(struct qcow2_word word)
{
    return word.entry & COMPRESSED ? 0 : word.entry & OFFSET_MASK;
}

int qcow2_word_give_back(const struct qcow2_shape *shape, struct qcow2_space *space,
                         struct qcow2_word word, struct blk_error *error)
{
    uint64_t host = qcow2_word_host(word), more;

    if (word.entry & COMPRESSED) {
        host = word.entry & ((UINT64_C(1) << offset_bits(shape)) - 1);
        more = (word.entry & (COMPRESSED - 1)) >> offset_bits(shape);
        return qcow2_space_give_back(space, host, (more + 1) * SECTOR - host % SECTOR, error);
    }
    return host ? qcow2_space_give_back(space, host, 1, error) : 0;
}

/* ---- A table ---------------------------------------------------------------------------------- */

bool qcow2_fill_knows(const struct qcow2_fill *fill, uint64_t index)
{
    return fill->known[index / 64] >> index % 64 & 1;
}

struct qcow2_word qcow2_fill_get(const struct qcow2_shape *shape, const struct qcow2_fill *fill,
                                 uint64_t index)
{
    const uint64_t *at = fill->entries + index * shape->words;

    return (struct qcow2_word){be64toh(at[0]), shape->words == 2 ? be64toh(at[1]) : 0};
}

void qcow2_fill_set(const struct qcow2_shape *shape, struct qcow2_fill *fill, uint64_t index,
                    struct qcow2_word word)
{
    uint64_t *at = fill->entries + index * shape->words;

    at[0] = htobe64(word.entry);
    if (shape->words == 2)
        at[1] = htobe64(word.bitmap);
    fill->known[index / 64] |= UINT64_C(1) << index % 64;
}

/* ---- All of them ------------------------------------------------------------------------------ */

static size_t table_bytes(const struct qcow2_shape *shape)
{
    return (size_t)1 << shape->cluster_bits;
}

static size_t known_bytes(const struct qcow2_shape *shape)
{
    return (((size_t)1 << shape->l2_bits) + 63) / 64 * sizeof(uint64_t);
}

int qcow2_fills_init(struct qcow2_fills *fills, const struct qcow2_shape *shape, uint64_t bytes)
{
    uint64_t buckets = 16;

    *fills = (struct qcow2_fills){.shape = shape};
    fills->limit = (unsigned)(bytes >> shape->cluster_bits);
    if (fills->limit < 2)
        fills->limit = 2;
    while (buckets < fills->limit)
        buckets *= 2;
    fills->bucket_mask = buckets - 1;
    fills->buckets = calloc(buckets, sizeof(struct qcow2_fill *));
    fills->stored = calloc(shape->tables, sizeof(*fills->stored));
    if (fills->buckets && fills->stored)
        return 0;
    qcow2_fills_release(fills);
    return -ENOMEM;
}

static void free_fill(struct qcow2_fill *fill)
{
    free(fill->entries);
    free(fill->known);
    free(fill);
}

static void free_list(struct qcow2_fill *fill)
{
    while (fill) {
        struct qcow2_fill *next = fill->next;

        free_fill(fill);
        fill = next;
    }
}

void qcow2_fills_release(struct qcow2_fills *fills)
{
    for (uint64_t i = 0; fills->buckets && i <= fills->bucket_mask; i++)
        free_list(fills->buckets[i]);
    free_list(fills->free);
    free(fills->buckets);
    free(fills->stored);
    fills->buckets = NULL;
    fills->stored = NULL;
    fills->free = NULL;
}

struct qcow2_fill *qcow2_fills_borrow(struct qcow2_fills *fills)
{
    struct qcow2_fill *fill = fills->free;

    if (fill) {
        fills->free = fill->next;
        return fill;
    }
    fill = calloc(1, sizeof(*fill));
    if (!fill)
        return NULL;
    fill->entries =
        aligned_alloc(min_u64(table_bytes(fills->shape), 4096), table_bytes(fills->shape));
    fill->known = malloc(known_bytes(fills->shape));
    if (fill->entries && fill->known)
        return fill;
    free_fill(fill);
    return NULL;
}

void qcow2_fills_return(struct qcow2_fills *fills, struct qcow2_fill *fill)
{
    fill->next = fills->free;
    fills->free = fill;
}

static struct qcow2_fill **bucket_of(const struct qcow2_fills *fills, uint64_t number)
{
    return &fills->buckets[number & fills->bucket_mask];
}

struct qcow2_fill *qcow2_fills_find(const struct qcow2_fills *fills, uint64_t number, bool leaving)
{
    struct qcow2_fill *fill = *bucket_of(fills, number);

    while (fill && (fill->number != number || fill->leaving != leaving))
        fill = fill->next;
    return fill;
}

static void take_out(struct qcow2_fills *fills, struct qcow2_fill *fill)
{
    *(fill->newer ? &fill->newer->older : &fills->newest) = fill->older;
    *(fill->older ? &fill->older->newer : &fills->oldest) = fill->newer;
}

static void put_first(struct qcow2_fills *fills, struct qcow2_fill *fill)
{
    fill->newer = NULL;
    fill->older = fills->newest;
    *(fill->older ? &fill->older->newer : &fills->oldest) = fill;
    fills->newest = fill;
}

struct qcow2_fill *qcow2_fills_get(struct qcow2_fills *fills, uint64_t number)
{
    struct qcow2_fill *fill = qcow2_fills_find(fills, number, false);

    if (fill && fill == fills->newest)
        return fill;
    if (fill) {
        take_out(fills, fill);
        put_first(fills, fill);
        return fill;
    }
    fill = qcow2_fills_borrow(fills);
    if (!fill)
        return NULL;
    memset(fill->entries, 0, table_bytes(fills->shape));
    memset(fill->known, 0, known_bytes(fills->shape));
    fill->number = number;
    fill->leaving = false;
    fill->next = *bucket_of(fills, number);
    *bucket_of(fills, number) = fill;
    put_first(fills, fill);
    fills->filling++;
    return fill;
}

void qcow2_fills_leave(struct qcow2_fills *fills, struct qcow2_fill *fill)
{
    assert(!fill->leaving && !qcow2_fills_find(fills, fill->number, true));
    take_out(fills, fill);
    fill->leaving = true;
    fills->filling--;
    fills->leaving++;
}

void qcow2_fills_left(struct qcow2_fills *fills, struct qcow2_fill *fill)
{
    struct qcow2_fill **at = bucket_of(fills, fill->number);

    assert(fill->leaving);
    while (*at != fill)
        at = &(*at)->next;
    *at = fill->next;
    fills->leaving--;
    qcow2_fills_return(fills, fill);
}

/* ---- One entry -------------------------------------------------------------------------------- */

static uint64_t index_of(const struct qcow2_shape *shape, uint64_t cluster)
{
    return cluster & ((UINT64_C(1) << shape->l2_bits) - 1);
}

int qcow2_fills_note(struct qcow2_fills *fills, struct qcow2_space *space, uint64_t cluster,
                     struct qcow2_word word, struct blk_error *error)
{
    const struct qcow2_shape *shape = fills->shape;
    struct qcow2_fill *fill = qcow2_fills_get(fills, cluster >> shape->l2_bits);
    uint64_t index = index_of(shape, cluster);
    struct qcow2_word old;
    int status = 0;

    if (!fill)
        return blk_error_set(error, ENOMEM, "out of memory");
    old = qcow2_fill_get(shape, fill, index);
    if (old.entry != word.entry)
        status = qcow2_word_give_back(shape, space, old, error);
    qcow2_fill_set(shape, fill, index, word);
    return status;
}

uint64_t qcow2_fills_host(const struct qcow2_fills *fills, uint64_t cluster)
{
    const struct qcow2_fill *fill =
        qcow2_fills_find(fills, cluster >> fills->shape->l2_bits, false);

    return fill ? qcow2_word_host(
                      qcow2_fill_get(fills->shape, fill, index_of(fills->shape, cluster)))
                : 0;
}
