/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a target's answer means. One table maps sense (SPC-4 4.5) to an errno, a retry class and the
 * standard's words, another the statuses (SAM-5 5.3.1).
 *
 * The sense data is decoded here: the library's names are "(null)" for some, it does not look for the
 * INFORMATION field, and it decodes sense data that is not there.
 */
#include "private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- Decoding --------------------------------------------------------------------------------- */

/* SPC-4 4.5.3 */
static void decode_fixed(struct sense *sense, const uint8_t *data, size_t len)
{
    sense->present = true;
    sense->key = data[2] & 0x0f;
    if (len >= 14) {
        sense->asc = data[12];
        sense->ascq = data[13];
    }
    if ((data[0] & 0x80) != 0 && len >= 7) {
        sense->has_information = true;
        sense->information = scsi_get_uint32(data + 3);
    }
}

/* SPC-4 4.5.2 */
static void decode_descriptors(struct sense *sense, const uint8_t *data, size_t len)
{
    size_t at = 8;

    sense->present = true;
    sense->key = data[1] & 0x0f;
    sense->asc = data[2];
    sense->ascq = data[3];
    while (at + 2 <= len) {
        size_t size = 2 + (size_t)data[at + 1];

        if (size > len - at)
            break;
        if (data[at] == 0x00 && size >= 12 && (data[at + 2] & 0x80) != 0) {
            sense->has_information = true;
            sense->information = scsi_get_uint64(data + at + 4);
        }
        at += size;
    }
}

struct sense sense_decode(const struct scsi_task *task)
{
    struct sense sense = {0};
    const uint8_t *data;
    size_t len, said;

    /* SenseLength stands before the sense data, RFC 7143 11.4.7.2. */
    if (task == NULL || task->status != SCSI_STATUS_CHECK_CONDITION || task->datain.data == NULL ||
        task->datain.size < 2 + 4)
        return sense;
    data = task->datain.data + 2;
    len = (size_t)task->datain.size - 2;
    said = scsi_get_uint16(task->datain.data);
    if (said < len)
        len = said;
    if (len < 4)
        return sense;

    switch (data[0] & 0x7f) {
    case 0x71:
        sense.deferred = true;
        decode_fixed(&sense, data, len);
        break;
    case 0x70:
        decode_fixed(&sense, data, len);
        break;
    case 0x73:
        sense.deferred = true;
        decode_descriptors(&sense, data, len);
        break;
    case 0x72:
        decode_descriptors(&sense, data, len);
        break;
    default:
        break;
    }
    return sense;
}

bool sense_is_success(int status, const struct scsi_task *task)
{
    struct sense sense;

    if (status != SCSI_STATUS_CHECK_CONDITION)
        return status == SCSI_STATUS_GOOD || status == SCSI_STATUS_CONDITION_MET;
    sense = sense_decode(task);
    return sense.present && !sense.deferred && sense.key == SCSI_SENSE_RECOVERED_ERROR;
}

bool sense_is_unit_attention(int status, const struct scsi_task *task)
{
    struct sense sense;

    if (status != SCSI_STATUS_CHECK_CONDITION)
        return false;
    sense = sense_decode(task);
    return sense.present && sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

/* ---- Meaning ---------------------------------------------------------------------------------- */

static const char *const key_names[16] = {
    "NO SENSE",       "RECOVERED ERROR", "NOT READY",      "MEDIUM ERROR",
    "HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT",
    "BLANK CHECK",    "VENDOR SPECIFIC", "COPY ABORTED",   "ABORTED COMMAND",
    "sense key Ch",   "VOLUME OVERFLOW", "MISCOMPARE",     "COMPLETED",
};

#define ANY (-1)

/*
 * The first row that fits counts, so what is general stands behind what is particular. `words` is the
 * standard's text for the additional sense code, NULL where the row is for many of them; `advice` is
 * what it means to the person, where the words do not say; `effects` (enum sense_effect) are what it
 * says beside failing its command.
 */
static const struct meaning {
    int key, asc, ascq;
    int code;
    enum blk_retry retry;
    const char *words;
    const char *advice;
    unsigned effects;
} meanings[] = {
    {0x2, 0x04, 0x00, EBUSY, BLK_REPEAT, "not ready, cause not reportable", NULL, 0},
    {0x2, 0x04, 0x01, EBUSY, BLK_REPEAT, "in process of becoming ready", NULL, 0},
    {0x2, 0x04, 0x02, EIO, BLK_FATAL, "initializing command required",
     "the LUN is stopped; start it on the target", 0},
    {0x2, 0x04, 0x03, EIO, BLK_FATAL, "manual intervention required", NULL, 0},
    {0x2, 0x04, 0x04, EBUSY, BLK_REPEAT, "format in progress", NULL, 0},
    {0x2, 0x04, 0x05, EBUSY, BLK_REPEAT, "rebuild in progress", NULL, 0},
    {0x2, 0x04, 0x07, EBUSY, BLK_REPEAT, "operation in progress", NULL, 0},
    {0x2, 0x04, 0x09, EBUSY, BLK_REPEAT, "self-test in progress", NULL, 0},
    {0x2, 0x04, 0x0a, EBUSY, BLK_REPEAT, "asymmetric access state transition", NULL, 0},
    {0x2, 0x04, 0x0b, EIO, BLK_FATAL, "target port in standby state",
     "this portal does not serve the LUN now", SENSE_PORT_CLOSED},
    {0x2, 0x04, 0x0c, EIO, BLK_FATAL, "target port in unavailable state",
     "this portal does not serve the LUN now", SENSE_PORT_CLOSED},
    {0x2, 0x04, 0x14, EBUSY, BLK_REPEAT, "space allocation in progress", NULL, 0},
    {0x2, 0x04, 0x1b, EBUSY, BLK_REPEAT, "sanitize in progress", NULL, 0},
    {0x2, 0x3a, ANY, ENOMEDIUM, BLK_FATAL, "medium not present", NULL, 0},
    {0x2, ANY, ANY, EIO, BLK_FATAL, NULL, NULL, 0},
    {0x3, 0x03, 0x00, EIO, BLK_MEDIUM, "peripheral device write fault", NULL, 0},
    {0x3, 0x0c, ANY, EIO, BLK_MEDIUM, "write error", NULL, 0},
    {0x3, 0x10, ANY, EIO, BLK_MEDIUM, "protection information or CRC error", NULL, 0},
    {0x3, 0x11, ANY, EIO, BLK_MEDIUM, "unrecovered read error", NULL, 0},
    {0x3, 0x31, ANY, EIO, BLK_MEDIUM, "medium format corrupted", NULL, 0},
    {0x3, ANY, ANY, EIO, BLK_MEDIUM, NULL, NULL, 0},
    {0x4, 0x44, 0x00, EIO, BLK_FATAL, "internal target failure", NULL, 0},
    {0x4, ANY, ANY, EIO, BLK_FATAL, NULL, NULL, 0},
    {0x5, 0x20, 0x00, EOPNOTSUPP, BLK_FATAL, "invalid command operation code",
     "the target does not know this command", 0},
    {0x5, 0x21, 0x00, ERANGE, BLK_FATAL, "logical block address out of range",
     "the LUN is smaller than it was", 0},
    {0x5, 0x24, 0x00, EINVAL, BLK_FATAL, "invalid field in CDB", NULL, 0},
    {0x5, 0x25, 0x00, ENXIO, BLK_FATAL, "logical unit not supported", "there is no such LUN", 0},
    {0x5, 0x26, 0x00, EINVAL, BLK_FATAL, "invalid field in parameter list", NULL, 0},
    {0x5, ANY, ANY, EINVAL, BLK_FATAL, NULL, NULL, 0},
    {0x6, 0x28, 0x00, EAGAIN, BLK_RECHECK, "medium may have changed", NULL, 0},
    {0x6, 0x29, 0x00, EAGAIN, BLK_AGAIN, "power on, reset, or bus device reset occurred", NULL,
     SENSE_CACHE_LOST},
    {0x6, 0x29, 0x01, EAGAIN, BLK_AGAIN, "power on occurred", NULL, SENSE_CACHE_LOST},
    {0x6, 0x29, 0x02, EAGAIN, BLK_AGAIN, "bus reset occurred", NULL, SENSE_CACHE_LOST},
    {0x6, 0x29, 0x03, EAGAIN, BLK_AGAIN, "bus device reset function occurred", NULL,
     SENSE_CACHE_LOST},
    {0x6, 0x29, 0x04, EAGAIN, BLK_AGAIN, "device internal reset", NULL, SENSE_CACHE_LOST},
    {0x6, 0x29, 0x07, EAGAIN, BLK_AGAIN, "I_T nexus loss occurred", NULL, 0},
    {0x6, 0x2a, 0x01, EAGAIN, BLK_RECHECK, "mode parameters changed", NULL, SENSE_MODE_CHANGED},
    {0x6, 0x2a, 0x03, EAGAIN, BLK_AGAIN, "reservations preempted", NULL, SENSE_FENCED},
    {0x6, 0x2a, 0x04, EAGAIN, BLK_AGAIN, "reservations released", NULL, SENSE_FENCED},
    {0x6, 0x2a, 0x05, EAGAIN, BLK_AGAIN, "registrations preempted", NULL, SENSE_FENCED},
    {0x6, 0x2a, 0x06, EAGAIN, BLK_AGAIN, "asymmetric access state changed", NULL, 0},
    {0x6, 0x2a, 0x09, EAGAIN, BLK_RECHECK, "capacity data has changed", NULL, 0},
    {0x6, 0x2f, 0x00, EAGAIN, BLK_AGAIN, "commands cleared by another initiator", NULL, 0},
    {0x6, 0x38, 0x07, EAGAIN, BLK_AGAIN, "thin provisioning soft threshold reached",
     "the thin pool behind the LUN is filling up", SENSE_POOL_LOW},
    {0x6, 0x3f, 0x03, EAGAIN, BLK_RECHECK, "inquiry data has changed", NULL, 0},
    {0x6, 0x3f, 0x05, EAGAIN, BLK_RECHECK, "device identifier changed", NULL, 0},
    {0x6, 0x3f, 0x0e, EAGAIN, BLK_RECHECK, "reported LUNs data has changed", NULL, 0},
    {0x6, ANY, ANY, EAGAIN, BLK_AGAIN, NULL, NULL, 0},
    {0x7, 0x27, 0x00, EROFS, BLK_FATAL, "write protected", NULL, 0},
    {0x7, 0x27, 0x01, EROFS, BLK_FATAL, "hardware write protected", NULL, 0},
    {0x7, 0x27, 0x02, EROFS, BLK_FATAL, "logical unit software write protected", NULL, 0},
    {0x7, 0x27, 0x07, ENOSPC, BLK_FATAL, "space allocation failed write protect",
     "the thin pool behind the LUN is full", 0},
    {0x7, ANY, ANY, EACCES, BLK_FATAL, NULL, NULL, 0},
    {0xb, 0x00, 0x00, EAGAIN, BLK_REPEAT, "no additional sense information", NULL, 0},
    {0xb, 0x0e, ANY, EAGAIN, BLK_REPEAT, "invalid information unit", NULL, 0},
    {0xb, 0x47, ANY, EAGAIN, BLK_REPEAT, "SCSI parity or CRC error", NULL, 0},
    {0xb, 0x4b, ANY, EAGAIN, BLK_REPEAT, "data phase error", NULL, 0},
    {0xb, 0x4e, ANY, EAGAIN, BLK_REPEAT, "overlapped commands attempted", NULL, 0},
    {0xb, ANY, ANY, EAGAIN, BLK_REPEAT, NULL, NULL, 0},
    {ANY, ANY, ANY, EIO, BLK_FATAL, NULL, NULL, 0},
};

static const struct meaning *find_meaning(const struct sense *sense)
{
    const struct meaning *m = meanings;

    while ((m->key != ANY && m->key != sense->key) || (m->asc != ANY && m->asc != sense->asc) ||
           (m->ascq != ANY && m->ascq != sense->ascq))
        m++; /* the last row fits everything */
    return m;
}

unsigned sense_effects(const struct sense *sense)
{
    return sense->present ? find_meaning(sense)->effects : 0;
}

/* What some answers mean depends on what we hold, and on where else we may go. */
static struct meaning meaning_for(const struct sense *sense, const struct standing *standing)
{
    struct meaning meaning = *find_meaning(sense);

    if ((meaning.effects & SENSE_FENCED) != 0 && standing->reserved) {
        meaning.code = EBUSY;
        meaning.retry = BLK_FATAL;
        meaning.advice = "another initiator has taken our reservation away";
    }
    if ((meaning.effects & SENSE_PORT_CLOSED) != 0 && standing->other_portals)
        meaning.retry = BLK_LOST;
    return meaning;
}

/* "MEDIUM ERROR 3/11/00 (unrecovered read error) at LBA 1234" */
static int check_condition_error(struct blk_error *error, const struct scsi_task *task,
                                 const struct standing *standing)
{
    struct sense sense = sense_decode(task);
    struct meaning meaning;
    char words[80] = "", place[40] = "";

    if (!sense.present)
        return blk_error_set(error, EIO, "CHECK CONDITION without sense data");
    meaning = meaning_for(&sense, standing);
    if (meaning.words != NULL)
        snprintf(words, sizeof(words), " (%s)", meaning.words);
    if (sense.has_information &&
        (sense.key == SCSI_SENSE_MEDIUM_ERROR || sense.key == SCSI_SENSE_HARDWARE_ERROR))
        snprintf(place, sizeof(place), " at LBA %" PRIu64, sense.information);

    /* The command that failed is one that was acknowledged: nothing repeats it. */
    if (sense.deferred)
        return blk_error_set(
            error, EIO, "deferred error of an earlier, acknowledged command: %s %x/%02x/%02x%s%s",
            key_names[sense.key], sense.key, sense.asc, sense.ascq, words, place);
    return blk_error_set_retry(error, meaning.code, meaning.retry, "%s %x/%02x/%02x%s%s%s%s",
                               key_names[sense.key], sense.key, sense.asc, sense.ascq, words, place,
                               meaning.advice != NULL ? ": " : "",
                               meaning.advice != NULL ? meaning.advice : "");
}

int sense_error(struct blk_error *error, int status, const struct scsi_task *task,
                const struct standing *standing, const char *complaint)
{
    switch (status) {
    case SCSI_STATUS_CHECK_CONDITION:
        return check_condition_error(error, task, standing);
    case SCSI_STATUS_BUSY:
        return blk_error_set_retry(error, EBUSY, BLK_REPEAT, "BUSY");
    case SCSI_STATUS_TASK_SET_FULL:
        return blk_error_set_retry(error, EBUSY, BLK_REPEAT, "TASK SET FULL");
    case SCSI_STATUS_ACA_ACTIVE:
        return blk_error_set_retry(error, EBUSY, BLK_REPEAT, "ACA ACTIVE");
    case SCSI_STATUS_TASK_ABORTED:
        return blk_error_set_retry(error, EAGAIN, BLK_REPEAT, "TASK ABORTED");
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return blk_error_set(error, EBUSY, "RESERVATION CONFLICT: another initiator %s",
                             standing->reserved ? "has taken our reservation away"
                                                : "holds a reservation");
    default:
        /* A Reject PDU answers this one command; whatever else the library could not make sense of
         * makes it drop the connection. */
        if (strncmp(complaint, "Request was rejected", 20) == 0)
            return blk_error_set(error, EPROTO, "the target rejects the command: %s", complaint);
        return blk_error_set_retry(error, EPROTO, BLK_LOST, "protocol error: %s", complaint);
    }
}
