/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop's helper threads; include/lunferry/loop.h tells what they are for. */
#ifndef LUNFERRY_OFFLOAD_H
#define LUNFERRY_OFFLOAD_H

#include <lunferry/loop.h>

struct offload;

struct offload *offload_new(struct loop *loop);
/* Waits for the threads; no work may be outstanding. */
void offload_free(struct offload *offload);
int offload_add(struct offload *offload, struct loop_work *work);

#endif
