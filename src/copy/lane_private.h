/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lane.c and lane_flush.c share. */
#ifndef LUNFERRY_LANE_PRIVATE_H
#define LUNFERRY_LANE_PRIVATE_H

#include "lane.h"

/* lane.c: the first error wins, and stops all lanes. */
void lane_fail(struct lane *lane, const struct blk_error *error, const char *side);
void lane_fail_with(struct lane *lane, int code, const char *side, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* lane_flush.c */
void lane_flush_init(struct lane *lane);
bool lane_flush_is_due(const struct lane *lane);
/* One at a time; copying goes on beside it. */
void lane_flush(struct lane *lane);
/* A WRITE has come back with this epoch. */
void lane_note_epoch(struct lane *lane, uint64_t epoch);

#endif
