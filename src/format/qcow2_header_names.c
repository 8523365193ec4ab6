/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What in a header has no fixed place: the backing file's name, and header extensions. */
#include "qcow2_header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <lunferry/units.h>

#define MAX_FORMAT 15u /* bytes of the backing format's name; QEMU's limit */

/* Header extensions. */
#define EXT_END            0u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES  0x6803f857u
#define EXT_DATA_FILE      0x44415441u

#define FEATURE_NAME 48u /* bytes of an entry of the feature name table */

int qcow2_want(const struct qcow2_parser *parser, uint64_t end)
{
    if (end <= parser->len)
        return 0;
    *parser->need = parser->most;
    return blk_error_set(parser->error, ERANGE,
                         "of its header %zu bytes were read, and %" PRIu64 " are needed",
                         parser->len, parser->most);
}

/* ---- Strings ---------------------------------------------------------------------------------- */

/* A new string of the bytes at `offset`, which are there. */
static int take_string(const struct qcow2_parser *parser, const char *what, uint64_t offset,
                       uint32_t len, uint32_t most, char **string)
{
    const unsigned char *bytes = parser->bytes + offset;

    if (len > most)
        return blk_error_set(parser->error, EINVAL,
                             "the name of its %s has %" PRIu32 " bytes; the most is %" PRIu32, what,
                             len, most);
    /* Some writers count the NUL that ends their strings. */
    while (len > 0 && bytes[len - 1] == '\0')
        len--;
    if (len == 0)
        return 0;
    for (uint32_t i = 0; i < len; i++)
        if (bytes[i] < 0x20 || bytes[i] == 0x7f)
            return blk_error_set(
                parser->error, EINVAL,
                "the name of its %s has the control character 0x%02x at its byte %" PRIu32
                ", which no name should have",
                what, bytes[i], i);
    *string = malloc(len + 1);
    if (*string == NULL)
        return blk_error_set(parser->error, ENOMEM, "out of memory");
    memcpy(*string, bytes, len);
    (*string)[len] = '\0';
    return 0;
}

int qcow2_find_backing(struct qcow2_parser *parser, uint64_t from, uint64_t to, const char *where)
{
    uint64_t offset = qcow2_get64(parser->bytes + FIELD_BACKING_OFFSET);
    uint32_t len = qcow2_get32(parser->bytes + FIELD_BACKING_LEN);

    if (offset == 0)
        return 0;
    if (offset < from)
        return blk_error_set(parser->error, EINVAL,
                             "the name of its backing file begins at byte %" PRIu64
                             ", inside the header, which has %" PRIu64 " bytes",
                             offset, from);
    if (len > QCOW2_MAX_NAME)
        return blk_error_set(parser->error, EINVAL,
                             "the name of its backing file has %" PRIu32 " bytes; the most is %d",
                             len, QCOW2_MAX_NAME);
    if (offset > to || len > to - offset)
        return blk_error_set(parser->error, EINVAL,
                             "the name of its backing file, %" PRIu32 " bytes at byte %" PRIu64
                             ", does not lie within %s, which ends after %" PRIu64 " bytes",
                             len, offset, where, to);
    parser->name_offset = offset;
    parser->name_len = len;
    return 0;
}

int qcow2_take_backing(struct qcow2_parser *parser)
{
    int status;

    if (parser->name_offset == 0)
        return 0;
    status = qcow2_want(parser, parser->name_offset + parser->name_len);
    if (status < 0)
        return status;
    return take_string(parser, "backing file", parser->name_offset, parser->name_len,
                       QCOW2_MAX_NAME, &parser->header->backing);
}

/* ---- Header extensions ------------------------------------------------------------------------ */

struct extension {
    uint32_t type, len;
    uint64_t data; /* where it is */
};

/* The one at *position, which moves behind it. 1, 0 at the end, or -errno. */
static int next_extension(const struct qcow2_parser *parser, uint64_t *position,
                          struct extension *extension)
{
    uint64_t left;
    int status;

    /* What leaves no room for another one needs no end marker. */
    if (*position > parser->extensions_end || parser->extensions_end - *position < 8)
        return 0;
    status = qcow2_want(parser, *position + 8);
    if (status < 0)
        return status;
    *extension = (struct extension){
        .type = qcow2_get32(parser->bytes + *position),
        .len = qcow2_get32(parser->bytes + *position + 4),
        .data = *position + 8,
    };
    if (extension->type == EXT_END)
        return 0;
    left = parser->extensions_end - extension->data;
    if (extension->len > left)
        return blk_error_set(parser->error, EINVAL,
                             "its header extension 0x%08" PRIx32 " at byte %" PRIu64
                             " says that it has %" PRIu32 " bytes, and there is room for %" PRIu64,
                             extension->type, *position, extension->len, left);
    status = qcow2_want(parser, extension->data + extension->len);
    *position = extension->data + round_up(extension->len, 8);
    return status < 0 ? status : 1;
}

static int take_extension(const struct qcow2_parser *parser, const struct extension *extension,
                          const char *what, uint32_t most, char **string)
{
    if (*string != NULL)
        return blk_error_set(parser->error, EINVAL,
                             "the name of its %s is there twice, at byte %" PRIu64
                             " for the second time",
                             what, extension->data);
    return take_string(parser, what, extension->data, extension->len, most, string);
}

int qcow2_take_extensions(const struct qcow2_parser *parser)
{
    struct qcow2_header *header = parser->header;
    uint64_t position = parser->header_len;
    struct extension extension;
    int more;

    while ((more = next_extension(parser, &position, &extension)) > 0) {
        int status = 0;

        if (extension.type == EXT_BACKING_FORMAT)
            status = take_extension(parser, &extension, "backing format", MAX_FORMAT,
                                    &header->backing_format);
        else if (extension.type == EXT_DATA_FILE && (header->incompatible & QCOW2_DATA_FILE))
            status =
                take_extension(parser, &extension, "data file", QCOW2_MAX_NAME, &header->data_file);
        if (status < 0)
            return status;
    }
    return more;
}

/* ---- Feature names --------------------------------------------------------------------------------- */

/* Looks for the bit in the feature name table `extension`. */
static bool find_feature_name(const struct qcow2_parser *parser, const struct extension *extension,
                              unsigned bit, char name[QCOW2_QUOTE])
{
    for (uint32_t at = 0; extension->len - at >= FEATURE_NAME; at += FEATURE_NAME) {
        const unsigned char *entry = parser->bytes + extension->data + at;

        if (entry[0] != 0 || entry[1] != bit || entry[2] == '\0')
            continue;
        qcow2_quote(name, entry + 2, strnlen((const char *)entry + 2, FEATURE_NAME - 2));
        return true;
    }
    return false;
}

int qcow2_feature_name(const struct qcow2_parser *parser, unsigned bit, char name[QCOW2_QUOTE])
{
    uint64_t position = parser->header_len;
    struct extension extension;
    int more;

    while ((more = next_extension(parser, &position, &extension)) > 0)
        if (extension.type == EXT_FEATURE_NAMES && find_feature_name(parser, &extension, bit, name))
            return 1;
    return more == -ERANGE ? more : 0;
}
