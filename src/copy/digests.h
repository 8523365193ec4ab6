/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Digests of the granules of an image, taken while it is copied, to hold against what is read back
 * from the target.
 *
 * A granule's digest is the sum, as numbers of 256 bits, of the SHA-256 digests of its blocks of
 * DIGESTS_BLOCK bytes, each with its place put before it; a block of zeros adds nothing, and so costs
 * nothing where it is known to be one. A sum, because a granule of a large image
 * is more than a chunk, and chunks come in any order: it takes no memory but itself. It finds every
 * accident; who could forge SHA-256 sums could write to the target anyway.
 *
 * Lanes work on disjoint granules, each with a struct digest of its own; there is no lock.
 */
#ifndef LUNFERRY_DIGESTS_H
#define LUNFERRY_DIGESTS_H

#include <stdbool.h>
#include <stdint.h>

#include <lunferry/digest.h>

#define DIGESTS_BLOCK (256u << 10)

struct digests;

/* Of an image of `size` bytes (BLK_SIZE_UNKNOWN: it grows, by digests_reach()) in granules, which are
 * multiples of DIGESTS_BLOCK. NULL: out of memory. */
struct digests *digests_new(uint64_t size, uint64_t granule);
void digests_free(struct digests *digests);
/* The image is at least this long: what follows may be about all of that. Where the size is known, that
 * is so anyway. False: out of memory. */
bool digests_reach(struct digests *digests, uint64_t end);
/* It turns out that the image has only `size` bytes, which it reaches. */
void digests_end(struct digests *digests, uint64_t size);

/* Takes the source's bytes into the sums. The range begins and ends at block borders, or at the end
 * of the image. */
void digests_take(struct digests *digests, struct digest *digest, uint64_t offset,
                  const unsigned char *bytes, uint64_t len);
/* The same for a range of zeros, which nobody needs to hold in memory. */
void digests_take_zeros(struct digests *digests, uint64_t offset, uint64_t len);
/* Does every granule of the range have its whole sum? */
bool digests_known(const struct digests *digests, uint64_t offset, uint64_t len);
/* The granules of the range, which it covers wholly, are copied again. */
void digests_forget(struct digests *digests, uint64_t offset, uint64_t len);

/* Does the same with the target's bytes; calls differs() for each granule that is complete and
 * wrong, with its offset, and whether it was so before. */
void digests_check(struct digests *digests, struct digest *digest, uint64_t offset,
                   const unsigned char *bytes, uint64_t len,
                   void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque);

/* The same for a range that is known to read as zeros. */
void digests_check_zeros(struct digests *digests, uint64_t offset, uint64_t len,
                         void (*differs)(void *opaque, uint64_t offset, bool again), void *opaque);

#endif
