/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How many chunks a lane keeps in flight, where the user does not say. */
#ifndef LUNFERRY_DEPTH_H
#define LUNFERRY_DEPTH_H

#include <stdint.h>

/* For the longest round trip (ns) among the ends that a chunk goes through; 0: none is known. */
unsigned depth_for(uint64_t round_trip);

#endif
