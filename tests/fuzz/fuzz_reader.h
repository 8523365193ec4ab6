/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes as a qcow2 or qcow image, through the whole reader: opened with its chain (fuzz_world.h has the files
 * that it may name), asked for its extents from end to end, read by several requests at once, cloned, closed.
 * What is promised of every outcome is checked, and abort() is called where it is not kept; sanitizers see the rest.
 * Promised is, beside the contracts of block.h: what reads well reads the same at any time, by any requests; what
 * EXTENTS calls zeros reads as zeros, and what it says where it lies reads as the bytes there; and no more requests
 * and no more memory than the range that is asked for can need (fuzz_world.h).
 *
 * The last FUZZ_CONTROL bytes are no part of the image, but say what is done with it: see take_control().
 *
 * Called by tests/unit/test_fuzz_reader.c with the images of tests/fuzz/corpus; and by libFuzzer, whose entry's name
 * it has, in `make fuzz`.
 */
#ifndef LUNFERRY_FUZZ_READER_H
#define LUNFERRY_FUZZ_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_CONTROL 28

/* How far it went, so that a test can see that images still lead to where they were made to lead. Added up. */
struct fuzz_reach {
    unsigned opened, cloned;                                /* images */
    unsigned extents, reads, failed;                        /* requests; failed: of either */
    unsigned data, compressed, zeros, unallocated, backing; /* extents; backing: of any kind */
};

void fuzz_reader(const uint8_t *data, size_t size, struct fuzz_reach *reach);

/* Changes the data; most of the time by fuzz_change.h. Returns its size then. Not to be called without libFuzzer. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
