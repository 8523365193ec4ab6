/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parsers of headers and of snapshot tables share. Private to src/format/qcow2_*.c. */
#ifndef LUNFERRY_QCOW2_CHECKS_H
#define LUNFERRY_QCOW2_CHECKS_H

#include "qcow2.h"

#include <endian.h>
#include <string.h>

static inline uint16_t qcow2_get16(const unsigned char *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return be16toh(value);
}

static inline uint32_t qcow2_get32(const unsigned char *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static inline uint64_t qcow2_get64(const unsigned char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return be64toh(value);
}

#define QCOW2_HEADER_V1      48u /* bytes */
#define QCOW2_SNAPSHOT_ENTRY 40u /* bytes of the fixed part of a snapshot table's entry */

/* A table in the file, in bytes. With len == 0 it is not there, and its offset means nothing. */
struct qcow2_table {
    const char *what; /* "L1 table" */
    uint64_t offset, len;
};

/* Does it begin at a cluster, behind the header's? 0, or -EINVAL with a sentence. */
int qcow2_table_check_start(const struct qcow2_header *header, const struct qcow2_table *table,
                            struct blk_error *error);
/* Does it end inside the file? */
int qcow2_table_check_end(const struct qcow2_table *table, uint64_t file_size,
                          struct blk_error *error);
/* Does no byte belong to two of them? */
int qcow2_tables_check_apart(const struct qcow2_table *tables, size_t count,
                             struct blk_error *error);

/* The L1 table of the header: not too long, long enough for header->size, and where it may be. */
int qcow2_l1_check_place(const struct qcow2_header *header, const char *what, uint64_t file_size,
                         struct blk_error *error);

/* A string from an image, as it may stand in a message: cut (at a character), and with a '?' for each byte
 * that a terminal would obey or that is no UTF-8. Returns buf. */
#define QCOW2_QUOTE 64
const char *qcow2_quote(char buf[QCOW2_QUOTE], const unsigned char *bytes, size_t len);

#endif
