/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes of an image by chance, of the kinds that matter to a reader: most bytes of an image are zeros that nobody
 * looks at, and what libFuzzer changes by itself mostly lies there. */
#ifndef LUNFERRY_FUZZ_CHANGE_H
#define LUNFERRY_FUZZ_CHANGE_H

#include <stddef.h>
#include <stdint.h>

/* The next number below `below` of the stream that *state stands in, which is never 0. */
uint64_t fuzz_chance(uint64_t *state, uint64_t below);

/* One change: of a bit, a byte or an entry of a table, or of the last `control` bytes. size > control > 0. */
void fuzz_change(uint64_t *state, uint8_t *bytes, size_t size, size_t control);

#endif
