/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_outcome.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void check_refusal(const struct qcow2_make *make, size_t len,
                          const struct qcow2_outcome *out)
{
    assert_int_equal(out->error.code, -out->status);
    assert_int_equal(out->error.retry, BLK_FATAL);
    assert_string_not_equal(out->error.text, "");
    assert_null(out->header.backing);
    assert_null(out->header.backing_format);
    assert_null(out->header.data_file);
    if (out->status == -ERANGE) {
        assert_true(out->need > len);
        assert_true(out->need <= make->len);
    }
}

/* Nobody looks at these again. */
static void check_numbers(const struct qcow2_make *make, const struct qcow2_header *header)
{
    unsigned bits = header->cluster_bits + header->l2_bits;

    assert_in_range(header->version, 1, 3);
    assert_in_range(header->cluster_bits, 9, 21);
    assert_in_range(header->l2_bits, 5, 18);
    assert_true(header->size <= INT64_MAX);
    assert_true(header->l1_entries <= QCOW2_MAX_L1 / 8);
    assert_true(header->size >> bits <= header->l1_entries);
    if (header->size % (UINT64_C(1) << bits) != 0)
        assert_true(header->size >> bits < header->l1_entries);
    if (header->l1_entries > 0) {
        assert_true(header->l1_offset >= 48 && header->l1_offset <= make->len);
        assert_true(UINT64_C(8) * header->l1_entries <= make->len - header->l1_offset);
    }
    if (header->snapshot_count > 0)
        assert_true(header->snapshot_offset < make->len);
}

void qcow2_parse_part(const struct qcow2_make *make, size_t len, struct qcow2_outcome *out)
{
    unsigned char *bytes = malloc(len);

    assert_true(bytes != NULL || len == 0);
    if (len > 0)
        memcpy(bytes, make->bytes, len);
    memset(out, 0x55, sizeof(*out));
    blk_error_clear(&out->error);
    out->status = qcow2_header_parse(&out->header, bytes, len, make->len, make->version == 1,
                                     &out->need, &out->error);
    free(bytes);
    if (out->status < 0)
        check_refusal(make, len, out);
    else
        check_numbers(make, &out->header);
}

void qcow2_parse(const struct qcow2_make *make, struct qcow2_outcome *out)
{
    qcow2_parse_part(make, make->len, out);
    assert_int_not_equal(out->status, -ERANGE);
}

void qcow2_parse_sound(const struct qcow2_make *make, struct qcow2_outcome *out)
{
    qcow2_parse(make, out);
    if (out->status < 0)
        fail_msg("refused: %s", out->error.text);
}
