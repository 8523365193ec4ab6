/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz_qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/format/qcow2.h"

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "fuzz_qcow2: not kept: %s\n", #condition);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct file {
    const uint8_t *data;
    size_t size;
    bool qcow;
};

/* In a buffer of just that size, so that a sanitizer sees who reads beyond. */
static unsigned char *copy(const struct file *file, size_t offset, size_t len)
{
    unsigned char *bytes = malloc(len);

    must(bytes != NULL || len == 0);
    if (len > 0)
        memcpy(bytes, file->data + offset, len);
    return bytes;
}

static void check_refusal(int status, const struct blk_error *error)
{
    must(error->code == -status);
    must(error->text[0] != '\0');
    must(strnlen(error->text, sizeof(error->text)) < sizeof(error->text));
    for (const char *at = error->text; *at; at++)
        must((unsigned char)*at >= 0x20 && *at != 0x7f);
}

static void check_string(const char *text, size_t most)
{
    if (text != NULL)
        must(text[0] != '\0' && strlen(text) <= most);
}

/* What is built upon, without another look. */
static void check_header(const struct file *file, const struct qcow2_header *header)
{
    unsigned bits = header->cluster_bits + header->l2_bits;
    uint64_t covered = (uint64_t)header->l1_entries << bits;

    must(file->qcow ? header->version == 1 : header->version == 2 || header->version == 3);
    must(header->cluster_bits >= 9 && header->cluster_bits <= 21);
    must(header->l2_bits >= 6 && header->l2_bits <= 18);
    must(header->l1_entries <= QCOW2_MAX_L1 / 8);
    must(header->size <= INT64_MAX && header->size <= covered);
    must((header->incompatible & ~UINT64_C(0x1f)) == 0);
    must(header->compression == QCOW2_ZLIB || header->compression == QCOW2_ZSTD);
    if (header->l1_entries > 0) {
        must(header->l1_offset >= 48 && header->l1_offset <= file->size);
        must(UINT64_C(8) * header->l1_entries <= file->size - header->l1_offset);
    }
    must(header->snapshot_count == 0 || header->snapshot_offset <= file->size);
    check_string(header->backing, QCOW2_MAX_NAME);
    check_string(header->backing_format, 15);
    check_string(header->data_file, QCOW2_MAX_NAME);
}

static void check_l1(const struct file *file, const struct qcow2_header *header)
{
    size_t len = 8 * (size_t)header->l1_entries;
    unsigned char *table = copy(file, len ? (size_t)header->l1_offset : 0, len);
    struct blk_error error = {0};
    int status = qcow2_l1_check(header, table, file->size, &error);

    if (status < 0)
        check_refusal(status, &error);
    free(table);
}

static void check_snapshot(const struct file *file, const struct qcow2_header *header,
                           const char *wanted)
{
    size_t offset = header->snapshot_count ? (size_t)header->snapshot_offset : file->size;
    size_t len = file->size - offset;
    unsigned char *table = copy(file, offset, len);
    struct qcow2_header selected = *header;
    struct blk_error error = {0};
    int status = qcow2_snapshot_select(&selected, table, len, file->size, wanted, &error);

    if (status < 0) {
        check_refusal(status, &error);
        must(memcmp(&selected, header, sizeof(selected)) == 0);
    } else {
        check_header(file, &selected);
        check_l1(file, &selected);
    }
    free(table);
}

/* Of a first part of the file, and of as much as is asked for then. */
static int parse(const struct file *file, size_t len, struct qcow2_header *header)
{
    struct blk_error error = {0};
    int status;

    for (unsigned parts = 1;; parts++) {
        unsigned char *bytes = copy(file, 0, len);
        uint64_t need = 0;

        memset(header, 0x55, sizeof(*header));
        status = qcow2_header_parse(header, bytes, len, file->size, file->qcow, &need, &error);
        free(bytes);
        if (status == 0)
            return 0;
        check_refusal(status, &error);
        must(!header->backing && !header->backing_format && !header->data_file);
        if (status != -ERANGE)
            return status;
        must(need > len && need <= file->size && parts < 3);
        len = (size_t)need;
    }
}

static void check_file(const struct file *file)
{
    static const char *const wanted[] = {"1", "one", ""};
    /* Any length, but always the same one for the same file. */
    size_t part = file->size ? file->data[file->size - 1] * file->size / 256 : 0;
    struct qcow2_header header, again;
    int status = parse(file, part, &header);

    must(parse(file, file->size, &again) == status);
    if (status < 0)
        return;
    check_header(file, &header);
    check_l1(file, &header);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        check_snapshot(file, &header, wanted[i]);
    qcow2_header_free(&header);
    qcow2_header_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_file(&(struct file){data, size, false});
    check_file(&(struct file){data, size, true});
    return 0;
}
