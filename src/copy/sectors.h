/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image with a partition table made for one sector size is not recognised on a LUN with another:
 * its offsets count sectors. */
#ifndef LUNFERRY_SECTORS_H
#define LUNFERRY_SECTORS_H

#include <stddef.h>

/* How much of the start of an image sectors_of_table() wants to see, in bytes. */
#define SECTORS_LOOK 8192

/* The sector size for which the partition table in the first `len` bytes of an image was made: 512
 * or 4096; 0 when there is none. (UEFI 2.10 5.3.2: the GPT header is LBA 1. A lone MBR does not say;
 * it is taken to be made for 512.) */
unsigned sectors_of_table(const unsigned char *start, size_t len);

#endif
