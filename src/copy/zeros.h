/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeros in what was read: found at the speed of memory. */
#ifndef LUNFERRY_ZEROS_H
#define LUNFERRY_ZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Are all of these bytes zero? Any alignment; len > 0. */
bool zeros_only(const void *bytes, size_t len);

#endif
