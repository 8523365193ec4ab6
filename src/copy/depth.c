/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "depth.h"

#include <lunferry/loop.h>

/*
 * Enough chunks in flight to fill the path, and not many more: beyond that they only wait in queues
 * of the libraries and the kernel, and cost CPU there. Measured with chunks of 512 KiB
 * (docs/performance.md).
 */
unsigned depth_for(uint64_t round_trip)
{
    if (round_trip < LOOP_MSECOND / 2)
        return 8;
    if (round_trip < 5 * LOOP_MSECOND)
        return 16;
    return round_trip < 50 * LOOP_MSECOND ? 32 : 64;
}
