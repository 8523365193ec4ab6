/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sectors.h"

#include <stdbool.h>
#include <string.h>

#define MBR_ENTRIES    446
#define MBR_ENTRY_SIZE 16

static bool is_gpt_header(const unsigned char *start, size_t len, size_t at)
{
    return at + 8 <= len && memcmp(start + at, "EFI PART", 8) == 0;
}

/* A boot sector of a filesystem ends in 55 AA too; its code does not look like four entries. */
static bool is_mbr(const unsigned char *start, size_t len)
{
    bool any = false;

    if (len < 512 || start[510] != 0x55 || start[511] != 0xaa)
        return false;
    for (int i = 0; i < 4; i++) {
        const unsigned char *entry = start + MBR_ENTRIES + i * MBR_ENTRY_SIZE;

        if (entry[0] != 0 && entry[0] != 0x80)
            return false;
        any |= entry[4] != 0;
    }
    return any;
}

unsigned sectors_of_table(const unsigned char *start, size_t len)
{
    if (is_gpt_header(start, len, 512))
        return 512;
    if (is_gpt_header(start, len, 4096))
        return 4096;
    return is_mbr(start, len) ? 512 : 0;
}
