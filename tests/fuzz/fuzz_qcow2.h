/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any bytes as a qcow2 image, and as a qcow one: header, L1 table, snapshots. What is promised of every
 * outcome is checked, and abort() is called where it is not kept; sanitizers see the rest. fuzz_reader.h has the
 * whole reader; this is much faster, and tries headers that no other part would let pass.
 *
 * Called by tests/unit/test_fuzz_qcow2.c, which changes sound images, so many times in every `make check`; and by
 * libFuzzer, whose entry's name it has, in `make fuzz`.
 */
#ifndef LUNFERRY_FUZZ_QCOW2_H
#define LUNFERRY_FUZZ_QCOW2_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
