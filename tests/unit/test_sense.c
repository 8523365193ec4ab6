/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What SCSI statuses and sense data mean: errno, class, words, and what they say beside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/iscsi/private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct standing nothing_held;

/* The answer as the library hands it on: SenseLength, then the sense data (RFC 7143 11.4.7.2). */
struct answer_data {
    struct scsi_task task;
    uint8_t bytes[64];
};

static void finish(struct answer_data *data, size_t len)
{
    data->bytes[0] = 0;
    data->bytes[1] = (uint8_t)len;
    data->task.status = SCSI_STATUS_CHECK_CONDITION;
    data->task.datain.data = data->bytes;
    data->task.datain.size = (int)len + 2;
}

static void fixed_format(struct answer_data *data, uint8_t code, unsigned key, unsigned asc,
                         unsigned ascq)
{
    *data = (struct answer_data){0};
    data->bytes[2] = code;
    data->bytes[2 + 2] = (uint8_t)key;
    data->bytes[2 + 12] = (uint8_t)asc;
    data->bytes[2 + 13] = (uint8_t)ascq;
    finish(data, 18);
}

static void descriptor_format(struct answer_data *data, uint8_t code, unsigned key, unsigned asc,
                              unsigned ascq)
{
    *data = (struct answer_data){0};
    data->bytes[2] = code;
    data->bytes[2 + 1] = (uint8_t)key;
    data->bytes[2 + 2] = (uint8_t)asc;
    data->bytes[2 + 3] = (uint8_t)ascq;
    finish(data, 8);
}

/* Every row of the table, and for the rows that stand for many codes one of them. */
static const struct expected {
    unsigned key, asc, ascq;
    int code;
    enum blk_retry retry;
    unsigned effects;
    const char *text;
} expected[] = {
    {0x2, 0x04, 0x00, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/00 (not ready, cause not reportable)"},
    {0x2, 0x04, 0x01, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/01 (in process of becoming ready)"},
    {0x2, 0x04, 0x04, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/04 (format in progress)"},
    {0x2, 0x04, 0x05, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/05 (rebuild in progress)"},
    {0x2, 0x04, 0x07, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/07 (operation in progress)"},
    {0x2, 0x04, 0x09, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/09 (self-test in progress)"},
    {0x2, 0x04, 0x0a, EBUSY, BLK_REPEAT, 0,
     "NOT READY 2/04/0a (asymmetric access state transition)"},
    {0x2, 0x04, 0x14, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/14 (space allocation in progress)"},
    {0x2, 0x04, 0x1b, EBUSY, BLK_REPEAT, 0, "NOT READY 2/04/1b (sanitize in progress)"},
    {0x2, 0x04, 0x02, EIO, BLK_FATAL, 0,
     "NOT READY 2/04/02 (initializing command required): the LUN is stopped; start it on the "
     "target"},
    {0x2, 0x04, 0x03, EIO, BLK_FATAL, 0, "NOT READY 2/04/03 (manual intervention required)"},
    {0x2, 0x04, 0x0b, EIO, BLK_FATAL, SENSE_PORT_CLOSED,
     "NOT READY 2/04/0b (target port in standby state): this portal does not serve the LUN now"},
    {0x2, 0x04, 0x0c, EIO, BLK_FATAL, SENSE_PORT_CLOSED,
     "NOT READY 2/04/0c (target port in unavailable state): this portal does not serve the LUN "
     "now"},
    {0x2, 0x3a, 0x00, ENOMEDIUM, BLK_FATAL, 0, "NOT READY 2/3a/00 (medium not present)"},
    {0x2, 0x3a, 0x02, ENOMEDIUM, BLK_FATAL, 0, "NOT READY 2/3a/02 (medium not present)"},
    {0x2, 0x04, 0x40, EIO, BLK_FATAL, 0, "NOT READY 2/04/40"},
    {0x3, 0x03, 0x00, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/03/00 (peripheral device write fault)"},
    {0x3, 0x0c, 0x02, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/0c/02 (write error)"},
    {0x3, 0x10, 0x01, EIO, BLK_MEDIUM, 0,
     "MEDIUM ERROR 3/10/01 (protection information or CRC error)"},
    {0x3, 0x11, 0x00, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/11/00 (unrecovered read error)"},
    {0x3, 0x11, 0x04, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/11/04 (unrecovered read error)"},
    {0x3, 0x31, 0x00, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/31/00 (medium format corrupted)"},
    {0x3, 0x77, 0x00, EIO, BLK_MEDIUM, 0, "MEDIUM ERROR 3/77/00"},
    {0x4, 0x44, 0x00, EIO, BLK_FATAL, 0, "HARDWARE ERROR 4/44/00 (internal target failure)"},
    {0x4, 0x08, 0x00, EIO, BLK_FATAL, 0, "HARDWARE ERROR 4/08/00"},
    {0x5, 0x20, 0x00, EOPNOTSUPP, BLK_FATAL, 0,
     "ILLEGAL REQUEST 5/20/00 (invalid command operation code): the target does not know this "
     "command"},
    {0x5, 0x21, 0x00, ERANGE, BLK_FATAL, 0,
     "ILLEGAL REQUEST 5/21/00 (logical block address out of range): the LUN is smaller than it "
     "was"},
    {0x5, 0x24, 0x00, EINVAL, BLK_FATAL, 0, "ILLEGAL REQUEST 5/24/00 (invalid field in CDB)"},
    {0x5, 0x25, 0x00, ENXIO, BLK_FATAL, 0,
     "ILLEGAL REQUEST 5/25/00 (logical unit not supported): there is no such LUN"},
    {0x5, 0x26, 0x00, EINVAL, BLK_FATAL, 0,
     "ILLEGAL REQUEST 5/26/00 (invalid field in parameter list)"},
    {0x5, 0x55, 0x00, EINVAL, BLK_FATAL, 0, "ILLEGAL REQUEST 5/55/00"},
    {0x6, 0x28, 0x00, EAGAIN, BLK_RECHECK, 0, "UNIT ATTENTION 6/28/00 (medium may have changed)"},
    {0x6, 0x29, 0x00, EAGAIN, BLK_AGAIN, SENSE_CACHE_LOST,
     "UNIT ATTENTION 6/29/00 (power on, reset, or bus device reset occurred)"},
    {0x6, 0x29, 0x01, EAGAIN, BLK_AGAIN, SENSE_CACHE_LOST,
     "UNIT ATTENTION 6/29/01 (power on occurred)"},
    {0x6, 0x29, 0x02, EAGAIN, BLK_AGAIN, SENSE_CACHE_LOST,
     "UNIT ATTENTION 6/29/02 (bus reset occurred)"},
    {0x6, 0x29, 0x03, EAGAIN, BLK_AGAIN, SENSE_CACHE_LOST,
     "UNIT ATTENTION 6/29/03 (bus device reset function occurred)"},
    {0x6, 0x29, 0x04, EAGAIN, BLK_AGAIN, SENSE_CACHE_LOST,
     "UNIT ATTENTION 6/29/04 (device internal reset)"},
    {0x6, 0x29, 0x05, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/29/05"},
    {0x6, 0x29, 0x06, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/29/06"},
    {0x6, 0x29, 0x07, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/29/07 (I_T nexus loss occurred)"},
    {0x6, 0x2a, 0x00, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/2a/00"},
    {0x6, 0x2a, 0x01, EAGAIN, BLK_RECHECK, SENSE_MODE_CHANGED,
     "UNIT ATTENTION 6/2a/01 (mode parameters changed)"},
    {0x6, 0x2a, 0x03, EAGAIN, BLK_AGAIN, SENSE_FENCED,
     "UNIT ATTENTION 6/2a/03 (reservations preempted)"},
    {0x6, 0x2a, 0x04, EAGAIN, BLK_AGAIN, SENSE_FENCED,
     "UNIT ATTENTION 6/2a/04 (reservations released)"},
    {0x6, 0x2a, 0x05, EAGAIN, BLK_AGAIN, SENSE_FENCED,
     "UNIT ATTENTION 6/2a/05 (registrations preempted)"},
    {0x6, 0x2a, 0x06, EAGAIN, BLK_AGAIN, 0,
     "UNIT ATTENTION 6/2a/06 (asymmetric access state changed)"},
    {0x6, 0x2a, 0x09, EAGAIN, BLK_RECHECK, 0, "UNIT ATTENTION 6/2a/09 (capacity data has changed)"},
    {0x6, 0x2f, 0x00, EAGAIN, BLK_AGAIN, 0,
     "UNIT ATTENTION 6/2f/00 (commands cleared by another initiator)"},
    {0x6, 0x38, 0x07, EAGAIN, BLK_AGAIN, SENSE_POOL_LOW,
     "UNIT ATTENTION 6/38/07 (thin provisioning soft threshold reached): the thin pool behind the "
     "LUN is filling up"},
    {0x6, 0x3f, 0x03, EAGAIN, BLK_RECHECK, 0, "UNIT ATTENTION 6/3f/03 (inquiry data has changed)"},
    {0x6, 0x3f, 0x05, EAGAIN, BLK_RECHECK, 0, "UNIT ATTENTION 6/3f/05 (device identifier changed)"},
    {0x6, 0x3f, 0x0e, EAGAIN, BLK_RECHECK, 0,
     "UNIT ATTENTION 6/3f/0e (reported LUNs data has changed)"},
    {0x6, 0x3f, 0x01, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/3f/01"},
    {0x6, 0x99, 0x99, EAGAIN, BLK_AGAIN, 0, "UNIT ATTENTION 6/99/99"},
    {0x7, 0x27, 0x00, EROFS, BLK_FATAL, 0, "DATA PROTECT 7/27/00 (write protected)"},
    {0x7, 0x27, 0x01, EROFS, BLK_FATAL, 0, "DATA PROTECT 7/27/01 (hardware write protected)"},
    {0x7, 0x27, 0x02, EROFS, BLK_FATAL, 0,
     "DATA PROTECT 7/27/02 (logical unit software write protected)"},
    {0x7, 0x27, 0x07, ENOSPC, BLK_FATAL, 0,
     "DATA PROTECT 7/27/07 (space allocation failed write protect): the thin pool behind the LUN "
     "is full"},
    {0x7, 0x20, 0x01, EACCES, BLK_FATAL, 0, "DATA PROTECT 7/20/01"},
    {0xb, 0x00, 0x00, EAGAIN, BLK_REPEAT, 0,
     "ABORTED COMMAND b/00/00 (no additional sense information)"},
    {0xb, 0x0e, 0x01, EAGAIN, BLK_REPEAT, 0, "ABORTED COMMAND b/0e/01 (invalid information unit)"},
    {0xb, 0x47, 0x03, EAGAIN, BLK_REPEAT, 0, "ABORTED COMMAND b/47/03 (SCSI parity or CRC error)"},
    {0xb, 0x4b, 0x00, EAGAIN, BLK_REPEAT, 0, "ABORTED COMMAND b/4b/00 (data phase error)"},
    {0xb, 0x4e, 0x00, EAGAIN, BLK_REPEAT, 0,
     "ABORTED COMMAND b/4e/00 (overlapped commands attempted)"},
    {0xb, 0x44, 0x00, EAGAIN, BLK_REPEAT, 0, "ABORTED COMMAND b/44/00"},
    {0x8, 0x00, 0x05, EIO, BLK_FATAL, 0, "BLANK CHECK 8/00/05"},
    {0xe, 0x1d, 0x00, EIO, BLK_FATAL, 0, "MISCOMPARE e/1d/00"},
};

static void check_row(const struct expected *row, const struct scsi_task *task)
{
    struct sense sense = sense_decode(task);
    struct blk_error error = {0};
    int rc = sense_error(&error, SCSI_STATUS_CHECK_CONDITION, task, &nothing_held, "");

    assert_string_equal(error.text, row->text);
    assert_int_equal(rc, -row->code);
    assert_int_equal(error.code, row->code);
    assert_int_equal(error.retry, row->retry);
    assert_int_equal(sense_effects(&sense), row->effects);
    assert_int_equal(sense_is_unit_attention(SCSI_STATUS_CHECK_CONDITION, task), row->key == 6);
    assert_int_equal(sense_is_success(SCSI_STATUS_CHECK_CONDITION, task), row->key == 1);
}

static void test_every_row(void **state)
{
    struct answer_data data;

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++) {
        const struct expected *row = &expected[i];

        fixed_format(&data, 0x70, row->key, row->asc, row->ascq);
        check_row(row, &data.task);
        descriptor_format(&data, 0x72, row->key, row->asc, row->ascq);
        check_row(row, &data.task);
    }
}

static void test_statuses(void **state)
{
    static const struct {
        int status;
        int code;
        enum blk_retry retry;
        const char *text;
    } rows[] = {
        {SCSI_STATUS_BUSY, EBUSY, BLK_REPEAT, "BUSY"},
        {SCSI_STATUS_TASK_SET_FULL, EBUSY, BLK_REPEAT, "TASK SET FULL"},
        {SCSI_STATUS_ACA_ACTIVE, EBUSY, BLK_REPEAT, "ACA ACTIVE"},
        {SCSI_STATUS_TASK_ABORTED, EAGAIN, BLK_REPEAT, "TASK ABORTED"},
        {SCSI_STATUS_RESERVATION_CONFLICT, EBUSY, BLK_FATAL,
         "RESERVATION CONFLICT: another initiator holds a reservation"},
        {SCSI_STATUS_ERROR, EPROTO, BLK_LOST, "protocol error: odd PDU"},
    };
    struct blk_error error = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct scsi_task task = {.status = rows[i].status};

        assert_int_equal(sense_error(&error, rows[i].status, &task, &nothing_held, "odd PDU"),
                         -rows[i].code);
        assert_int_equal(error.retry, rows[i].retry);
        assert_string_equal(error.text, rows[i].text);
    }
    sense_error(&error, SCSI_STATUS_ERROR, NULL, &nothing_held, "Request was rejected, reason 9");
    assert_int_equal(error.retry, BLK_FATAL);
    sense_error(&error, SCSI_STATUS_CHECK_CONDITION, NULL, &nothing_held, "");
    assert_string_equal(error.text, "CHECK CONDITION without sense data");
}

/* A reservation of ours that is taken away is no passing thing. */
static void test_reserved(void **state)
{
    static const struct standing reserved = {.reserved = true};
    struct answer_data data;
    struct blk_error error = {0};

    (void)state;
    for (unsigned ascq = 3; ascq <= 5; ascq++) {
        fixed_format(&data, 0x70, 6, 0x2a, ascq);
        assert_int_equal(
            sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &reserved, ""), -EBUSY);
        assert_int_equal(error.retry, BLK_FATAL);
        assert_non_null(strstr(error.text, "another initiator has taken our reservation away"));
    }
    sense_error(&error, SCSI_STATUS_RESERVATION_CONFLICT, NULL, &reserved, "");
    assert_int_equal(error.retry, BLK_FATAL);
    assert_string_equal(error.text,
                        "RESERVATION CONFLICT: another initiator has taken our reservation away");
    /* others stay what they are */
    fixed_format(&data, 0x70, 6, 0x2a, 0x06);
    sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &reserved, "");
    assert_int_equal(error.retry, BLK_AGAIN);
}

/* Where there is another portal, one that does not serve us is left. */
static void test_other_portals(void **state)
{
    static const struct standing two_portals = {.other_portals = true};
    struct answer_data data;
    struct blk_error error = {0};

    (void)state;
    for (unsigned ascq = 0x0b; ascq <= 0x0c; ascq++) {
        fixed_format(&data, 0x70, 2, 0x04, ascq);
        sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &two_portals, "");
        assert_int_equal(error.retry, BLK_LOST);
    }
    fixed_format(&data, 0x70, 2, 0x3a, 0);
    sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &two_portals, "");
    assert_int_equal(error.retry, BLK_FATAL);
}

/* It is about a command that was acknowledged: repeating this one does not help. */
static void test_deferred(void **state)
{
    static const uint8_t codes[] = {0x71, 0x73};
    struct answer_data data;
    struct blk_error error = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++) {
        if (i == 0)
            fixed_format(&data, codes[i], 0xb, 0x47, 0);
        else
            descriptor_format(&data, codes[i], 0xb, 0x47, 0);
        assert_int_equal(
            sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &nothing_held, ""), -EIO);
        assert_int_equal(error.retry, BLK_FATAL);
        assert_string_equal(error.text, "deferred error of an earlier, acknowledged command: "
                                        "ABORTED COMMAND b/47/00 (SCSI parity or CRC error)");
    }
    /* one that was recovered is no success of this command */
    fixed_format(&data, 0x71, 1, 0, 0);
    assert_false(sense_is_success(SCSI_STATUS_CHECK_CONDITION, &data.task));
}

static void test_information(void **state)
{
    struct answer_data data;
    struct blk_error error = {0};
    struct sense sense;

    (void)state;
    fixed_format(&data, 0x70 | 0x80, 3, 0x11, 0);
    scsi_set_uint32(data.bytes + 2 + 3, 123456);
    sense = sense_decode(&data.task);
    assert_true(sense.has_information);
    assert_int_equal(sense.information, 123456);
    sense_error(&error, SCSI_STATUS_CHECK_CONDITION, &data.task, &nothing_held, "");
    assert_string_equal(error.text, "MEDIUM ERROR 3/11/00 (unrecovered read error) at LBA 123456");

    descriptor_format(&data, 0x72, 3, 0x11, 0);
    data.bytes[2 + 8] = 0x80; /* another descriptor first */
    data.bytes[2 + 9] = 2;
    data.bytes[2 + 12] = 0x00;
    data.bytes[2 + 13] = 10;
    data.bytes[2 + 14] = 0x80;
    scsi_set_uint64(data.bytes + 2 + 16, UINT64_C(1) << 40);
    finish(&data, 24);
    sense = sense_decode(&data.task);
    assert_true(sense.has_information);
    assert_int_equal(sense.information, UINT64_C(1) << 40);
}

/* Lengths that lie. */
static void test_short_sense(void **state)
{
    struct answer_data data;

    (void)state;
    fixed_format(&data, 0x70, 3, 0x11, 0);
    data.bytes[1] = 200; /* says more than there is */
    assert_int_equal(sense_decode(&data.task).asc, 0x11);
    finish(&data, 8); /* ends before ASC */
    assert_true(sense_decode(&data.task).present);
    assert_int_equal(sense_decode(&data.task).asc, 0);
    finish(&data, 3);
    assert_false(sense_decode(&data.task).present);
    descriptor_format(&data, 0x72, 3, 0x11, 0);
    data.bytes[2 + 9] = 100; /* a descriptor that goes beyond the end */
    finish(&data, 14);
    assert_true(sense_decode(&data.task).present);
    assert_false(sense_decode(&data.task).has_information);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row),   cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_reserved),    cmocka_unit_test(test_other_portals),
        cmocka_unit_test(test_deferred),    cmocka_unit_test(test_information),
        cmocka_unit_test(test_short_sense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
