/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The SHA-256 digests of an image, block by block: taken while it is read, kept in a digest file
 * (digest_format.h), compared with those of another time.
 *
 * A block is not known yet, or zeros, or data with its digest. Zeros are known by themselves: a block
 * of zeros that was read like data is zeros all the same. So two lists of the same bytes, in blocks of
 * the same size, are equal, however they were made.
 *
 * It takes 32 bytes for each block of data and one for each block, and of that only the pages that were
 * written to.
 *
 * Lanes take disjoint blocks, each with a struct digest of its own; there is no lock. Whoever reads has
 * waited for them.
 */
#ifndef LUNFERRY_DIGEST_LIST_H
#define LUNFERRY_DIGEST_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lunferry/digest.h>

/* Bytes of a block: a power of two between these. */
#define DIGEST_MIN_BLOCK     (64u << 10)
#define DIGEST_MAX_BLOCK     (16u << 20)
#define DIGEST_DEFAULT_BLOCK (256u << 10)
#define DIGEST_MAX_BLOCKS    (UINT64_C(1) << 28) /* of one list: up to 4 PiB of image */

enum digest_mark { DIGEST_UNKNOWN, DIGEST_ZEROS, DIGEST_DATA };

struct digest_list;

/* The blocks that an image of `size` bytes should have: DIGEST_DEFAULT_BLOCK, or as much more as keeps
 * the list in its bounds. 0: there are none that would. */
uint32_t digest_block_for(uint64_t size);
/* May an image of `size` bytes have a list with such blocks? */
bool digest_block_fits(uint64_t size, uint64_t block);

/* Of `size` > 0 bytes; digest_block_fits(). Nothing is known. NULL: out of memory. */
struct digest_list *digest_list_new(uint64_t size, uint32_t block);
/* NULL is fine. */
void digest_list_free(struct digest_list *list);

uint64_t digest_list_size(const struct digest_list *list);   /* bytes of the image */
uint32_t digest_list_block(const struct digest_list *list);  /* bytes */
uint64_t digest_list_blocks(const struct digest_list *list); /* how many; the last may be short */

/* Takes what lies at `offset`. The range begins and ends at block borders, or at the end of the image.
 * What was known of it is forgotten. */
void digest_list_take(struct digest_list *list, struct digest *digest, uint64_t offset,
                      const unsigned char *bytes, uint64_t len);
/* The same for a range of zeros, which nobody needs to hold in memory. */
void digest_list_take_zeros(struct digest_list *list, uint64_t offset, uint64_t len);

/* Block `index`; `result` is set where it is data. */
enum digest_mark digest_list_get(const struct digest_list *list, uint64_t index,
                                 uint8_t result[DIGEST_SIZE]);
/* It is data, with this digest. */
void digest_list_set(struct digest_list *list, uint64_t index, const uint8_t result[DIGEST_SIZE]);
/* Are all blocks known? */
bool digest_list_complete(const struct digest_list *list);

/* The next range at or after `from` in which all blocks differ: of two lists of the same size and
 * blocks. Bytes, from a block's border to one or to the end of the image. False: there is none. */
bool digest_list_differs(const struct digest_list *a, const struct digest_list *b, uint64_t from,
                         uint64_t *offset, uint64_t *len);

/*
 * The list as bytes, which are the same for equal lists: runs of blocks of one kind, each a word of 64
 * bits, big-endian, with its number of blocks and, of zeros, DIGEST_ZERO_RUN; of data the digests follow.
 * No run is empty, and no two neighbours are of one kind.
 */
#define DIGEST_ZERO_RUN (UINT64_C(1) << 63)

/* Where a walk over these bytes is; zeroed at first. */
struct digest_cursor {
    uint64_t index, run_end;
};

/* The next piece, 8 or DIGEST_SIZE bytes; returns how many, 0 at the end. All blocks are known. */
size_t digest_list_next(const struct digest_list *list, struct digest_cursor *cursor,
                        uint8_t piece[DIGEST_SIZE]);

/* The digest of block size (32 bits), image size (64 bits; both big-endian) and these bytes: one for
 * the whole image. All blocks are known. */
void digest_list_root(const struct digest_list *list, struct digest *digest,
                      uint8_t root[DIGEST_SIZE]);

#endif
