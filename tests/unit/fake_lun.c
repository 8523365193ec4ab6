/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_lun.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fake_lun_init(struct fake_lun *lun)
{
    *lun = (struct fake_lun){.serial = "one",
                             .designator = "one",
                             .blocks = 2048,
                             .block_size = 512,
                             .write_cache = true,
                             .can_fua = true};
}

void fake_lun_log(struct fake_lun *lun, const char *word)
{
    size_t used = strlen(lun->log);

    snprintf(lun->log + used, sizeof(lun->log) - used, "%s%s", used > 0 ? " " : "", word);
}

void fake_lun_check_log(struct fake_lun *lun, const char *expected)
{
    assert_string_equal(lun->log, expected);
    lun->log[0] = '\0';
}

static int answer(struct scsi_task *task, int status, const void *data, size_t len)
{
    /* as the library does it: malloc'd, freed with the task */
    task->datain.data = malloc(len > 0 ? len : 1);
    assert_non_null(task->datain.data);
    if (len > 0)
        memcpy(task->datain.data, data, len);
    task->datain.size = (int)len;
    return task->status = status;
}

static int good(struct scsi_task *task, const void *data, size_t len)
{
    return answer(task, SCSI_STATUS_GOOD, data, len);
}

static int check_condition(struct scsi_task *task, const struct fake_sense *sense)
{
    unsigned char data[20] = {0, 18, 0x70};

    data[2 + 2] = sense->key;
    data[2 + 12] = sense->asc;
    data[2 + 13] = sense->ascq;
    return answer(task, SCSI_STATUS_CHECK_CONDITION, data, sizeof(data));
}

static int refuse(struct scsi_task *task, unsigned char asc)
{
    return check_condition(task, &(struct fake_sense){5, asc, 0});
}

static int conflict(struct scsi_task *task)
{
    return answer(task, SCSI_STATUS_RESERVATION_CONFLICT, NULL, 0);
}

/* ---- Looking ---------------------------------------------------------------------------------- */

static int inquiry(const struct fake_lun *lun, struct scsi_task *task)
{
    unsigned char data[96] = {0, 0, 5};
    size_t serial = strlen(lun->serial), designator = strlen(lun->designator);

    if ((task->cdb[1] & 1) == 0) {
        memcpy(data + 8, "FAKE    DISK            1   ", 28);
        return good(task, data, sizeof(data));
    }
    if (lun->busy_for_pages)
        return answer(task, SCSI_STATUS_BUSY, NULL, 0);
    data[2] = 0;
    data[1] = task->cdb[2];
    switch (task->cdb[2]) {
    case 0x00:
        memcpy(data + 4, "\x00\x80\x83", 3);
        data[3] = 3;
        if (lun->limits.listed)
            data[4 + data[3]++] = 0xb0;
        if (lun->provisioning.listed)
            data[4 + data[3]++] = 0xb2;
        return good(task, data, 4 + data[3]);
    case 0x80:
        data[3] = (unsigned char)serial;
        memcpy(data + 4, lun->serial, serial);
        return good(task, data, 4 + serial);
    case 0x83: /* one designator: T10, ASCII */
        data[3] = (unsigned char)(4 + designator);
        data[4] = 2;
        data[5] = 1;
        data[7] = (unsigned char)designator;
        memcpy(data + 8, lun->designator, designator);
        return good(task, data, 8 + designator);
    case 0xb0:
        data[3] = 60;
        scsi_set_uint32(data + 20, lun->limits.max_unmap);
        scsi_set_uint32(data + 24, lun->limits.max_descriptors);
        scsi_set_uint32(data + 28, lun->limits.granularity);
        scsi_set_uint32(data + 32, lun->limits.alignment);
        scsi_set_uint64(data + 36, lun->limits.max_same);
        return good(task, data, 64);
    case 0xb2:
        data[3] = 4;
        data[5] = lun->provisioning.bits;
        data[6] = lun->provisioning.type;
        return good(task, data, 8);
    default:
        return refuse(task, 0x24);
    }
}

static int capacity(const struct fake_lun *lun, struct scsi_task *task)
{
    unsigned char data[32] = {0};

    scsi_set_uint64(data, lun->blocks - 1);
    scsi_set_uint32(data + 8, lun->block_size);
    data[14] = (unsigned char)((lun->thin ? 0x80 : 0) | (lun->capacity_lbprz ? 0x40 : 0));
    return good(task, data, sizeof(data));
}

static int supported_codes(const struct fake_lun *lun, struct scsi_task *task)
{
    unsigned char data[20] = {0, lun->same_support, 0, 16, 0x93};

    assert_int_equal(task->cdb[1], 0x0c);
    if (lun->same_support == 0)
        return refuse(task, 0x20);
    assert_int_equal(task->cdb[2], 1); /* one operation code */
    assert_int_equal(task->cdb[3], 0x93);
    return good(task, data, sizeof(data));
}

static int caching(const struct fake_lun *lun, struct scsi_task *task)
{
    unsigned char data[24] = {23, 0, 0, 0, 0x08, 18};

    data[2] = (unsigned char)((lun->write_protected ? 0x80 : 0) | (lun->can_fua ? 0x10 : 0));
    data[6] = lun->write_cache ? 0x04 : 0;
    return good(task, data, sizeof(data));
}

/* ---- Reservations ----------------------------------------------------------------------------- */

static bool all_registrants(const struct fake_lun *lun)
{
    return lun->type == 7 || lun->type == 8;
}

static bool holds(const struct fake_lun *lun, unsigned nexus)
{
    return lun->type != 0 && lun->keys[nexus] != 0 &&
           (all_registrants(lun) || lun->holder == nexus);
}

static unsigned registrations(const struct fake_lun *lun)
{
    unsigned count = 0;

    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        count += lun->keys[i] != 0;
    return count;
}

static void unregister(struct fake_lun *lun, unsigned nexus)
{
    bool held = holds(lun, nexus);

    lun->keys[nexus] = 0;
    if (held && (!all_registrants(lun) || registrations(lun) == 0))
        lun->type = 0;
}

static int reserve_in(struct fake_lun *lun, struct scsi_task *task)
{
    unsigned char data[8 + 64 * FAKE_NEXUSES] = {0};
    unsigned action = task->cdb[1] & 0x1f;
    size_t len = 8;

    switch (action) {
    case 0:
        for (unsigned i = 0; i < FAKE_NEXUSES; i++) {
            if (lun->keys[i] != 0) {
                scsi_set_uint64(data + len, lun->keys[i]);
                len += 8;
            }
        }
        break;
    case 1:
        if (lun->type != 0) {
            scsi_set_uint64(data + 8, all_registrants(lun) ? 0 : lun->keys[lun->holder]);
            data[21] = (unsigned char)lun->type;
            len = 24;
        }
        break;
    case 2:
        scsi_set_uint16(data, 8);
        data[2] = lun->persists;
        data[3] = lun->no_type_mask ? 0 : 0x80;
        data[4] = lun->no_all_registrants ? 0x20 : 0xa0;
        return good(task, data, 8);
    default:
        if (lun->no_full_status)
            return refuse(task, 0x24);
        for (unsigned i = 0; i < FAKE_NEXUSES; i++) {
            if (lun->keys[i] == 0)
                continue;
            scsi_set_uint64(data + len, lun->keys[i]);
            data[len + 12] = holds(lun, i);
            data[len + 23] = 40;
            data[len + 24] = 0x45; /* iSCSI, with ISID */
            data[len + 27] = 36;
            snprintf((char *)data + len + 28, 36, "iqn.test:%u,i,0x00", i);
            len += 64;
        }
        break;
    }
    scsi_set_uint32(data + 4, (uint32_t)(len - 8));
    return good(task, data, len);
}

static int preempt(struct fake_lun *lun, unsigned nexus, struct scsi_task *task, uint64_t victim)
{
    bool found = lun->deaf_to_preempt;
    bool takes = lun->type != 0 && !all_registrants(lun) && lun->keys[lun->holder] == victim;

    for (unsigned i = 0; i < FAKE_NEXUSES; i++) {
        if (lun->keys[i] != victim || lun->deaf_to_preempt)
            continue;
        found = true;
        if (i != nexus) {
            unregister(lun, i);
            lun->attention[i] = (struct fake_sense){6, 0x2a, 0x05};
        }
    }
    if (!found)
        return conflict(task);
    if (takes && !lun->deaf_to_preempt) {
        lun->type = task->cdb[2] & 0xf;
        lun->holder = nexus;
    }
    return good(task, NULL, 0);
}

static int reserve_out(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    static const char *const words[] = {"register", "reserve",       "release",        "clear",
                                        "preempt",  "preempt-abort", "register-ignore"};
    const unsigned char *list = task->iovector_out.iov[0].iov_base;
    uint64_t key = scsi_get_uint64(list), action_key = scsi_get_uint64(list + 8);
    unsigned action = task->cdb[1] & 0x1f, type = task->cdb[2] & 0xf;
    char word[64];

    snprintf(word, sizeof(word), "%u:%s%s", nexus, words[action], list[20] != 0 ? "+aptpl" : "");
    fake_lun_log(lun, word);
    if (action == 6) {
        lun->keys[nexus] = action_key;
        return good(task, NULL, 0);
    }
    if (lun->keys[nexus] == 0 || lun->keys[nexus] != key)
        return conflict(task);
    switch (action) {
    case 0:
        assert_int_equal(action_key, 0);
        unregister(lun, nexus);
        return good(task, NULL, 0);
    case 1:
        if (type == 7 && lun->no_all_registrants)
            return refuse(task, 0x24);
        if (lun->type != 0 && (!holds(lun, nexus) || lun->type != type))
            return conflict(task);
        lun->type = type;
        lun->holder = nexus;
        return good(task, NULL, 0);
    case 2:
        if (holds(lun, nexus))
            lun->type = 0;
        return good(task, NULL, 0);
    default:
        if (action == 5 && lun->no_preempt_abort)
            return refuse(task, 0x24);
        return preempt(lun, nexus, task, action_key);
    }
}

/* ---- Commands --------------------------------------------------------------------------------- */

static int transfer(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    bool writes = task->cdb[0] == 0x8a;
    char word[32];

    lun->last_fua = task->cdb[1] >> 3 & 1;
    snprintf(word, sizeof(word), "%u:%s", nexus, writes ? "write" : "read");
    fake_lun_log(lun, word);
    if (writes && lun->type != 0 && (lun->type < 5 ? lun->holder != nexus : lun->keys[nexus] == 0))
        return conflict(task);
    return good(task, NULL, 0);
}

/* A range is logged as "nexus:what@lba+blocks". */
static void log_range(struct fake_lun *lun, unsigned nexus, const char *what, uint64_t lba,
                      uint64_t blocks)
{
    char word[80];

    snprintf(word, sizeof(word), "%u:%s@%" PRIu64 "+%" PRIu64, nexus, what, lba, blocks);
    fake_lun_log(lun, word);
    assert_true(lba < lun->blocks && blocks <= lun->blocks - lba);
}

static int write_same(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    bool unmaps = (task->cdb[1] & 0x08) != 0;
    const struct fake_sense *refusal = unmaps ? &lun->refuses_same_unmap : &lun->refuses_same;
    const struct scsi_iovec *iov = task->iovector_out.iov;
    uint32_t blocks = scsi_get_uint32(task->cdb + 10);

    log_range(lun, nexus, unmaps ? "same-unmap" : "same", scsi_get_uint64(task->cdb + 2), blocks);
    assert_true(blocks > 0);
    assert_int_equal(task->cdb[1] & 0xf7, 0); /* no NDOB, ANCHOR, WRPROTECT */
    assert_int_equal(task->expxferlen, (int)lun->block_size);
    assert_int_equal(task->iovector_out.niov, 1);
    assert_int_equal(iov->iov_len, lun->block_size);
    for (size_t i = 0; i < iov->iov_len; i++)
        assert_int_equal(((const unsigned char *)iov->iov_base)[i], 0);
    if (refusal->key != 0)
        return check_condition(task, refusal);
    task->residual = lun->same_residual;
    task->residual_status =
        lun->same_residual != 0 ? SCSI_RESIDUAL_UNDERFLOW : SCSI_RESIDUAL_NO_RESIDUAL;
    return good(task, NULL, 0);
}

static int unmap(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    const unsigned char *list = task->iovector_out.iov[0].iov_base;
    size_t len = scsi_get_uint16(task->cdb + 7);

    assert_int_equal(task->expxferlen, (int)len);
    assert_int_equal(task->iovector_out.iov[0].iov_len, len);
    assert_int_equal(scsi_get_uint16(list), len - 2);
    assert_int_equal(scsi_get_uint16(list + 2), len - 8);
    assert_true(len > 8 && len % 16 == 8);
    for (size_t at = 8; at < len; at += 16)
        log_range(lun, nexus, "unmap", scsi_get_uint64(list + at), scsi_get_uint32(list + at + 8));
    if (lun->refuses_unmap.key != 0)
        return check_condition(task, &lun->refuses_unmap);
    task->residual = 1; /* which is no error here */
    task->residual_status = SCSI_RESIDUAL_UNDERFLOW;
    return good(task, NULL, 0);
}

static int lba_status(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    size_t room = scsi_get_uint32(task->cdb + 10);

    log_range(lun, nexus, "status", scsi_get_uint64(task->cdb + 2), (room - 8) / 16);
    assert_int_equal(task->expxferlen, (int)room);
    if (lun->refuses_status.key == SCSI_SENSE_RECOVERED_ERROR) {
        /* sense data that reads like a descriptor: all is deallocated */
        unsigned char data[26] = {
            0, 24, 0x70, [4] = SCSI_SENSE_RECOVERED_ERROR, [18] = 1, [20] = 1};

        return answer(task, SCSI_STATUS_CHECK_CONDITION, data, sizeof(data));
    }
    if (lun->refuses_status.key != 0)
        return check_condition(task, &lun->refuses_status);
    task->residual = 1;
    task->residual_status = SCSI_RESIDUAL_UNDERFLOW;
    return good(task, lun->status, lun->status_len < room ? lun->status_len : room);
}

int fake_lun_answer(struct fake_lun *lun, unsigned nexus, struct scsi_task *task)
{
    unsigned opcode = task->cdb[0];
    struct fake_sense attention = lun->attention[nexus];

    /* SPC-4 5.14: INQUIRY does not get it */
    if (attention.key != 0 && opcode != 0x12 &&
        (lun->attention_at == 0 || lun->attention_at == opcode)) {
        lun->attention[nexus].key = 0;
        if (lun->blocks_then != 0)
            lun->blocks = lun->blocks_then;
        return check_condition(task, &attention);
    }
    if (lun->absent && opcode != 0x12)
        return refuse(task, 0x25);
    switch (opcode) {
    case 0x00:
        return lun->state.key != 0 ? check_condition(task, &lun->state) : good(task, NULL, 0);
    case 0x12:
        return inquiry(lun, task);
    case 0x9e:
        return (task->cdb[1] & 0x1f) == 0x12 ? lba_status(lun, nexus, task) : capacity(lun, task);
    case 0xa3:
        return supported_codes(lun, task);
    case 0x93:
        return write_same(lun, nexus, task);
    case 0x42:
        return unmap(lun, nexus, task);
    case 0x1a:
        return lun->type != 0 && lun->keys[nexus] == 0 ? conflict(task) : caching(lun, task);
    case 0x5e:
        return lun->no_reservations ? refuse(task, 0x20) : reserve_in(lun, task);
    case 0x5f:
        return lun->no_reservations ? refuse(task, 0x20) : reserve_out(lun, nexus, task);
    case 0x91:
        fake_lun_log(lun, "flush");
        return good(task, NULL, 0);
    default:
        assert_true(opcode == 0x88 || opcode == 0x8a);
        return transfer(lun, nexus, task);
    }
}
