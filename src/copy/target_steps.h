/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the operations of a target are made of. Each is a chain: a row of functions, each of which
 * starts one step and names the next function, which gets the outcome.
 */
#ifndef LUNFERRY_TARGET_STEPS_H
#define LUNFERRY_TARGET_STEPS_H

#include "target.h"

typedef void target_step(struct target *target, int status);

/* Is it an image of a format, and not the bytes themselves? */
static inline bool target_has_format(const struct target *target)
{
    return image_layout_has_format(&target->options->layout);
}

/* Is only what differs from what is there written? */
static inline bool target_only_differs(const struct target *target)
{
    return target->options->compare && !target->options->base;
}

/* The end of a chain. */
void target_end(struct target *target, int status);
void target_fail(struct target *target, const struct blk_error *error);
void target_refuse(struct target *target, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The next step: a task of the device or the store; */
struct blk_task *target_task_then(struct target *target, target_step *then);
/* an operation on a name in the store, whose attr.mode is set; */
void target_store_then(struct target *target, enum store_op op, const char *name,
                       const char *new_name, target_step *then);
/* a request for the head: READ goes to head_back; */
void target_req_then(struct target *target, enum blk_op op, target_step *then);
/* a request without bytes: DISCARD, FLUSH; */
void target_range_then(struct target *target, enum blk_op op, uint64_t offset, uint64_t len,
                       target_step *then);
/* opening the device: the file of this name in the store, or, with NULL, what the URL names. */
void target_open_device(struct target *target, const char *name, target_step *then);

#endif
