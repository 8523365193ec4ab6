/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz_change.h"

#include <string.h>

#include <lunferry/units.h>

uint64_t fuzz_chance(uint64_t *state, uint64_t below)
{
    /* xorshift64*, Vigna 2016 */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * UINT64_C(2685821657736338717) >> 11) % below;
}

/* Of something that is not zero, if there is much of that; or of an entry behind it. */
static size_t place(uint64_t *state, const uint8_t *bytes, size_t size)
{
    size_t at = fuzz_chance(state, size);

    for (unsigned tries = 0; tries < 1000 && bytes[at] == 0; tries++)
        at = fuzz_chance(state, size);
    if (fuzz_chance(state, 4) == 0)
        at += 8 * fuzz_chance(state, 4);
    return at < size ? at : size - 1;
}

void fuzz_change(uint64_t *state, uint8_t *bytes, size_t size, size_t control)
{
    size_t image = size - control, at = place(state, bytes, image), from, len;

    switch (fuzz_chance(state, 8)) {
    case 0:
        bytes[image + fuzz_chance(state, control)] = (uint8_t)fuzz_chance(state, 256);
        break;
    case 1: /* in the header */
        at = fuzz_chance(state, min_u64(image, 128));
        bytes[at] = (uint8_t)fuzz_chance(state, 256);
        break;
    case 2:
    case 3:
        bytes[at] ^= (uint8_t)(1 << fuzz_chance(state, 8));
        break;
    case 4:
        bytes[at] = (uint8_t)fuzz_chance(state, 256);
        break;
    case 5:
    case 6: /* one entry over another */
        from = round_down(place(state, bytes, image), 8);
        at = round_down(at, 8);
        len = min_u64(8, image - (at > from ? at : from));
        memmove(bytes + at, bytes + from, len);
        break;
    default:
        len = min_u64(1 + fuzz_chance(state, 8), image - at);
        memset(bytes + at, fuzz_chance(state, 2) ? 0xff : 0, len);
        break;
    }
}
