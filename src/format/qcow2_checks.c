/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where tables may lie, and how strings are shown. */
#include "qcow2_checks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <lunferry/units.h>

/* ---- Tables ----------------------------------------------------------------------------------- */

int qcow2_table_check_start(const struct qcow2_header *header, const struct qcow2_table *table,
                            struct blk_error *error)
{
    uint64_t cluster_size = UINT64_C(1) << header->cluster_bits;

    if (table->len == 0)
        return 0;
    if (table->offset % cluster_size != 0)
        return blk_error_set(error, EINVAL,
                             "its %s begins at byte %" PRIu64
                             ", which is not the start of a cluster (of %" PRIu64 " bytes)",
                             table->what, table->offset, cluster_size);
    if (table->offset == 0)
        return blk_error_set(error, EINVAL,
                             "its %s overlaps its header: it says that it begins at byte 0",
                             table->what);
    return 0;
}

int qcow2_table_check_end(const struct qcow2_table *table, uint64_t file_size,
                          struct blk_error *error)
{
    if (table->len == 0 || (table->offset <= file_size && table->len <= file_size - table->offset))
        return 0;
    return blk_error_set(error, EINVAL,
                         "its %s, %" PRIu64 " bytes at byte %" PRIu64
                         ", does not lie within the file, which ends after %" PRIu64 " bytes",
                         table->what, table->len, table->offset, file_size);
}

static bool overlap(const struct qcow2_table *a, const struct qcow2_table *b)
{
    if (a->len == 0 || b->len == 0)
        return false;
    return a->offset <= b->offset ? b->offset - a->offset < a->len : a->offset - b->offset < b->len;
}

int qcow2_tables_check_apart(const struct qcow2_table *tables, size_t count,
                             struct blk_error *error)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = i + 1; j < count; j++) {
            if (!overlap(&tables[i], &tables[j]))
                continue;
            return blk_error_set(error, EINVAL,
                                 "its %s, %" PRIu64 " bytes at byte %" PRIu64
                                 ", and its %s, %" PRIu64 " bytes at byte %" PRIu64 ", overlap",
                                 tables[i].what, tables[i].len, tables[i].offset, tables[j].what,
                                 tables[j].len, tables[j].offset);
        }
    }
    return 0;
}

int qcow2_l1_check_place(const struct qcow2_header *header, const char *what, uint64_t file_size,
                         struct blk_error *error)
{
    unsigned bits =
        header->cluster_bits + header->l2_bits; /* of what an entry covers; at most 39 */
    uint64_t needed = (header->size >> bits) + (header->size % (UINT64_C(1) << bits) != 0);
    struct qcow2_table l1 = {what, header->l1_offset, UINT64_C(8) * header->l1_entries};
    int status;

    if (l1.len > QCOW2_MAX_L1)
        return blk_error_set(error, EINVAL, "its %s has %" PRIu32 " entries; the most is %u", what,
                             header->l1_entries, QCOW2_MAX_L1 / 8);
    if (needed > header->l1_entries)
        return blk_error_set(error, EINVAL,
                             "its %s is too short: it has %" PRIu32
                             " entries, and for a disk of %" PRIu64 " bytes it takes %" PRIu64,
                             what, header->l1_entries, header->size, needed);
    if (header->version > 1) {
        status = qcow2_table_check_start(header, &l1, error);
        if (status < 0)
            return status;
    }
    return qcow2_table_check_end(&l1, file_size, error);
}

/* ---- Strings ---------------------------------------------------------------------------------- */

/* How many of the `len` bytes are one character of UTF-8 that may be shown; 0: none. */
static size_t character(const unsigned char *at, size_t len)
{
    size_t wanted = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

    if (wanted == 0 || wanted > len || at[0] > 0xf4 || at[0] < 0x20 || at[0] == 0x7f)
        return 0;
    for (size_t i = 1; i < wanted; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    /* U+0080 to U+009F are control characters too. */
    return at[0] == 0xc2 && at[1] < 0xa0 ? 0 : wanted;
}

const char *qcow2_quote(char buf[QCOW2_QUOTE], const unsigned char *bytes, size_t len)
{
    static const char dots[] = "...";
    size_t used = 0;

    for (size_t i = 0; i < len;) {
        size_t n = character(bytes + i, len - i);

        if (used + (n ? n : 1) > QCOW2_QUOTE - sizeof(dots)) {
            memcpy(buf + used, dots, sizeof(dots));
            return buf;
        }
        if (n > 0)
            memcpy(buf + used, bytes + i, n);
        else
            buf[used] = '?';
        used += n ? n : 1;
        i += n ? n : 1;
    }
    buf[used] = '\0';
    return buf;
}
