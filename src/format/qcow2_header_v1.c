/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Headers of version 1, which is called qcow. No specification of it is left but QEMU's reader and writer. */
#include "qcow2_header.h"

#include <errno.h>
#include <inttypes.h>

#define MIN_CLUSTER_BITS 9u
#define MAX_CLUSTER_BITS 16u
#define MIN_L2_BITS      6u
#define MAX_L2_BITS      13u

static int check_bits(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;

    header->cluster_bits = parser->bytes[FIELD_V1_CLUSTER_BITS];
    header->l2_bits = parser->bytes[FIELD_V1_L2_BITS];
    if (header->cluster_bits < MIN_CLUSTER_BITS || header->cluster_bits > MAX_CLUSTER_BITS)
        return blk_error_set(parser->error, EINVAL,
                             "its clusters have 2^%u bytes; right are 2^%u to 2^%u in version 1",
                             header->cluster_bits, MIN_CLUSTER_BITS, MAX_CLUSTER_BITS);
    if (header->l2_bits < MIN_L2_BITS || header->l2_bits > MAX_L2_BITS)
        return blk_error_set(parser->error, EINVAL,
                             "its L2 tables have 2^%u entries; right are 2^%u to 2^%u in version 1",
                             header->l2_bits, MIN_L2_BITS, MAX_L2_BITS);
    return 0;
}

/* No field says how many entries there are: it is as many as the size needs. */
static int check_l1(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;
    unsigned bits = header->cluster_bits + header->l2_bits;
    uint64_t entries = (header->size >> bits) + (header->size % (UINT64_C(1) << bits) != 0);
    struct qcow2_table tables[2];

    header->l1_offset = qcow2_get64(parser->bytes + FIELD_V1_L1_OFFSET);
    if (entries > QCOW2_MAX_L1 / 8)
        return blk_error_set(parser->error, EINVAL,
                             "for its disk of %" PRIu64 " bytes, its L1 table would have %" PRIu64
                             " entries; the most is %u",
                             header->size, entries, QCOW2_MAX_L1 / 8);
    header->l1_entries = (uint32_t)entries;
    tables[0] = (struct qcow2_table){"L1 table", header->l1_offset, 8 * entries};
    tables[1] = (struct qcow2_table){"backing file's name", parser->name_offset, parser->name_len};
    if (entries > 0 && header->l1_offset < QCOW2_HEADER_V1)
        return blk_error_set(parser->error, EINVAL,
                             "its L1 table overlaps its header: it begins at byte %" PRIu64
                             ", and the header has %u bytes",
                             header->l1_offset, QCOW2_HEADER_V1);
    if (qcow2_tables_check_apart(tables, 2, parser->error) < 0)
        return -EINVAL;
    return qcow2_l1_check_place(header, tables[0].what, parser->file_size, parser->error);
}

int qcow2_parse_v1(struct qcow2_parser *parser)
{
    int status = check_bits(parser);

    if (status == 0)
        status = qcow2_check_encryption(parser, qcow2_get32(parser->bytes + FIELD_V1_CRYPT));
    if (status == 0)
        status = qcow2_check_size(parser);
    if (status == 0)
        status = qcow2_find_backing(parser, QCOW2_HEADER_V1, parser->most, "the start of the file");
    if (status == 0)
        status = check_l1(parser);
    return status < 0 ? status : qcow2_take_backing(parser);
}
