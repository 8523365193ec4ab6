/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "digest_list.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <lunferry/units.h>

#include "zeros.h"

struct digest_list {
    uint64_t size, count;
    uint32_t block;
    /* A byte for each block, not bits: lanes meet in a word of those. */
    uint8_t *marks; /* enum digest_mark */
    uint8_t (*digests)[DIGEST_SIZE];
};

bool digest_block_fits(uint64_t size, uint64_t block)
{
    return size > 0 && block >= DIGEST_MIN_BLOCK && block <= DIGEST_MAX_BLOCK &&
           (block & (block - 1)) == 0 && (size - 1) / block < DIGEST_MAX_BLOCKS;
}

uint32_t digest_block_for(uint64_t size)
{
    for (uint32_t block = DIGEST_DEFAULT_BLOCK; block <= DIGEST_MAX_BLOCK; block *= 2) {
        if (digest_block_fits(size, block))
            return block;
    }
    return 0;
}

/* ---- Life ------------------------------------------------------------------------------------- */

/* Zeros, which become memory where they are written to. */
static void *map(size_t len)
{
    void *bytes =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return bytes == MAP_FAILED ? NULL : bytes;
}

struct digest_list *digest_list_new(uint64_t size, uint32_t block)
{
    struct digest_list *list = calloc(1, sizeof(*list));

    assert(digest_block_fits(size, block));
    if (!list)
        return NULL;
    list->size = size;
    list->block = block;
    list->count = (size - 1) / block + 1;
    list->marks = map(list->count);
    list->digests = map(list->count * DIGEST_SIZE);
    if (!list->marks || !list->digests) {
        digest_list_free(list);
        return NULL;
    }
    return list;
}

void digest_list_free(struct digest_list *list)
{
    if (!list)
        return;
    if (list->marks)
        munmap(list->marks, list->count);
    if (list->digests)
        munmap(list->digests, list->count * DIGEST_SIZE);
    free(list);
}

uint64_t digest_list_size(const struct digest_list *list)
{
    return list->size;
}

uint32_t digest_list_block(const struct digest_list *list)
{
    return list->block;
}

uint64_t digest_list_blocks(const struct digest_list *list)
{
    return list->count;
}

/* ---- Taking ----------------------------------------------------------------------------------- */

static void check_range(const struct digest_list *list, uint64_t offset, uint64_t len)
{
    assert(offset % list->block == 0 && offset < list->size && len <= list->size - offset);
    assert(len % list->block == 0 || offset + len == list->size);
    (void)list;
    (void)offset;
    (void)len;
}

void digest_list_take(struct digest_list *list, struct digest *digest, uint64_t offset,
                      const unsigned char *bytes, uint64_t len)
{
    check_range(list, offset, len);
    for (uint64_t done = 0; done < len; done += list->block) {
        uint64_t index = (offset + done) / list->block, part = min_u64(len - done, list->block);

        if (zeros_only(bytes + done, part)) {
            list->marks[index] = DIGEST_ZEROS;
            continue;
        }
        digest_of(digest, bytes + done, part, list->digests[index]);
        list->marks[index] = DIGEST_DATA;
    }
}

void digest_list_take_zeros(struct digest_list *list, uint64_t offset, uint64_t len)
{
    check_range(list, offset, len);
    if (len > 0)
        memset(list->marks + offset / list->block, DIGEST_ZEROS, (len - 1) / list->block + 1);
}

void digest_list_set(struct digest_list *list, uint64_t index, const uint8_t result[DIGEST_SIZE])
{
    assert(index < list->count);
    memcpy(list->digests[index], result, DIGEST_SIZE);
    list->marks[index] = DIGEST_DATA;
}

/* ---- Looking ---------------------------------------------------------------------------------- */

enum digest_mark digest_list_get(const struct digest_list *list, uint64_t index,
                                 uint8_t result[DIGEST_SIZE])
{
    assert(index < list->count);
    if (list->marks[index] == DIGEST_DATA)
        memcpy(result, list->digests[index], DIGEST_SIZE);
    return list->marks[index];
}

bool digest_list_complete(const struct digest_list *list)
{
    return !memchr(list->marks, DIGEST_UNKNOWN, list->count);
}

static bool is_same(const struct digest_list *a, const struct digest_list *b, uint64_t index)
{
    return a->marks[index] == b->marks[index] &&
           (a->marks[index] != DIGEST_DATA ||
            memcmp(a->digests[index], b->digests[index], DIGEST_SIZE) == 0);
}

bool digest_list_differs(const struct digest_list *a, const struct digest_list *b, uint64_t from,
                         uint64_t *offset, uint64_t *len)
{
    uint64_t first = from / a->block, end;

    assert(a->size == b->size && a->block == b->block && from % a->block == 0);
    while (first < a->count && is_same(a, b, first))
        first++;
    if (first >= a->count)
        return false;
    for (end = first + 1; end < a->count && !is_same(a, b, end);)
        end++;
    *offset = first * a->block;
    *len = min_u64(end * a->block, a->size) - *offset;
    return true;
}

/* ---- As bytes --------------------------------------------------------------------------------- */

size_t digest_list_next(const struct digest_list *list, struct digest_cursor *cursor,
                        uint8_t piece[DIGEST_SIZE])
{
    uint64_t end = cursor->index, word;
    uint8_t kind;

    if (cursor->index < cursor->run_end) {
        memcpy(piece, list->digests[cursor->index++], DIGEST_SIZE);
        return DIGEST_SIZE;
    }
    if (cursor->index == list->count)
        return 0;
    kind = list->marks[cursor->index];
    assert(kind != DIGEST_UNKNOWN);
    while (end < list->count && list->marks[end] == kind)
        end++;
    word = htobe64((end - cursor->index) | (kind == DIGEST_ZEROS ? DIGEST_ZERO_RUN : 0));
    memcpy(piece, &word, sizeof(word));
    cursor->run_end = end;
    if (kind == DIGEST_ZEROS)
        cursor->index = end;
    return sizeof(word);
}

void digest_list_root(const struct digest_list *list, struct digest *digest,
                      uint8_t root[DIGEST_SIZE])
{
    struct digest_cursor cursor = {0};
    uint32_t block = htobe32(list->block);
    uint64_t size = htobe64(list->size);
    uint8_t piece[DIGEST_SIZE];
    size_t len;

    digest_begin(digest);
    digest_add(digest, &block, sizeof(block));
    digest_add(digest, &size, sizeof(size));
    while ((len = digest_list_next(list, &cursor, piece)) > 0)
        digest_add(digest, piece, len);
    digest_end(digest, root);
}
