/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "zeros.h"

#include <string.h>

#define BLOCK 512

/* Sixteen bytes of any alignment: a register of x86-64 and of arm64. The type says so to gcc and clang
 * alike; of a loop over bytes or words each makes good instructions in forms that the other does not. */
typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias));

/* Without a way out in the middle, which would cost more than it saves; four at a time, because gcc -O2
 * unrolls nothing. */
static bool block_is_zero(const unsigned char *bytes)
{
    const vector *at = (const void *)bytes, *end = (const void *)(bytes + BLOCK);
    vector any = {0, 0};

    for (; at < end; at += 4)
        any |= (at[0] | at[1]) | (at[2] | at[3]);
    return (any[0] | any[1]) == 0;
}

static bool begins_with_data(const unsigned char *bytes, size_t len)
{
    uint64_t word;

    if (len < sizeof(word))
        return false;
    memcpy(&word, bytes, sizeof(word)); /* of any alignment */
    return word != 0;
}

bool zeros_only(const void *start, size_t len)
{
    const unsigned char *bytes = start, *end = bytes + len;

    /* Data seldom begins with a word of zeros: mostly this is all there is to do. */
    if (begins_with_data(bytes, len))
        return false;
    for (; end - bytes >= BLOCK; bytes += BLOCK) {
        if (!block_is_zero(bytes))
            return false;
    }
    for (; bytes < end; bytes++) {
        if (*bytes != 0)
            return false;
    }
    return true;
}
