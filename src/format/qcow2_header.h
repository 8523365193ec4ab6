/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the files of the header's parser. Private to src/format/qcow2_header*.c. */
#ifndef LUNFERRY_QCOW2_HEADER_H
#define LUNFERRY_QCOW2_HEADER_H

#include "qcow2_checks.h"

/* Where they are; big-endian, of 32 bits where nothing else is said. */
enum qcow2_field {
    FIELD_VERSION = 4,        /* behind the magic */
    FIELD_BACKING_OFFSET = 8, /* 64 */
    FIELD_BACKING_LEN = 16,
    FIELD_CLUSTER_BITS = 20,
    FIELD_SIZE = 24, /* 64 */
    FIELD_CRYPT = 32,
    FIELD_L1_ENTRIES = 36,
    FIELD_L1_OFFSET = 40,       /* 64 */
    FIELD_REFCOUNT_OFFSET = 48, /* 64 */
    FIELD_REFCOUNT_CLUSTERS = 56,
    FIELD_SNAPSHOT_COUNT = 60,
    FIELD_SNAPSHOT_OFFSET = 64, /* 64 */
    /* From version 3 on. */
    FIELD_INCOMPATIBLE = 72, /* 64 */
    FIELD_COMPATIBLE = 80,   /* 64 */
    FIELD_AUTOCLEAR = 88,    /* 64 */
    FIELD_REFCOUNT_ORDER = 96,
    FIELD_HEADER_LEN = 100,
    FIELD_COMPRESSION = 104, /* 8 */
    /* What version 1 has elsewhere. */
    FIELD_V1_CLUSTER_BITS = 32, /* 8 */
    FIELD_V1_L2_BITS = 33,      /* 8 */
    FIELD_V1_CRYPT = 36,
    FIELD_V1_L1_OFFSET = 40, /* 64 */
};

struct qcow2_parser {
    struct qcow2_header *header;
    const unsigned char *bytes;
    size_t len;
    uint64_t file_size;
    uint64_t most;  /* bytes that a header can have, all of them in the file */
    uint64_t *need; /* the caller's */
    struct blk_error *error;
    uint32_t header_len;  /* where extensions begin */
    uint64_t name_offset; /* of the backing name; 0: none */
    uint32_t name_len;
    uint64_t extensions_end;
};

/* Are the first `end` bytes here? 0, or -ERANGE, and *need is set. `end` is at most parser->most. */
int qcow2_want(const struct qcow2_parser *parser, uint64_t end);

/* Where is the backing name, and does it lie where it may, in [from, to)? */
int qcow2_find_backing(struct qcow2_parser *parser, uint64_t from, uint64_t to, const char *where);
int qcow2_take_backing(struct qcow2_parser *parser);
/* The extensions that say something about reading; header->incompatible is there. */
int qcow2_take_extensions(const struct qcow2_parser *parser);
/* Has the image a name for an incompatible bit? 1, 0 or -ERANGE. Extensions that are broken have no names. */
int qcow2_feature_name(const struct qcow2_parser *parser, unsigned bit, char name[QCOW2_QUOTE]);

int qcow2_check_encryption(const struct qcow2_parser *parser, uint32_t method);
int qcow2_check_size(const struct qcow2_parser *parser);

/* All but magic and version. */
int qcow2_parse_v1(struct qcow2_parser *parser);

#endif
