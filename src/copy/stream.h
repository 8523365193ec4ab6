/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What cannot be done with a stream, at either end: it has no size, is read or written once, in order,
 * and by one lane.
 */
#ifndef LUNFERRY_STREAM_H
#define LUNFERRY_STREAM_H

#include <lunferry/copy.h>

/* 0, or -EINVAL with a sentence that names the endpoint and the option. */
int stream_check_source(const struct copy_options *options, const char *name,
                        struct blk_error *error);
int stream_check_target(const struct copy_options *options, const char *name,
                        struct blk_error *error);

#endif
