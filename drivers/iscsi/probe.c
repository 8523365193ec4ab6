/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a LUN says about itself, asked when it is opened and whenever it may have changed, in two
 * round trips:
 *
 *   1. TEST UNIT READY, which takes the unit attention that follows a login, and the list of VPD
 *      pages, which unit attentions do not concern (SPC-4 5.14). No more than these two, because
 *      tgt's command window starts with two commands: a third would take a round trip of its own.
 *   2. everything else, of the VPD pages only those that are listed
 *
 * What a unit attention answered is asked again in the next round; everything is, where the attention
 * says that answers may have changed: some may have come before the change.
 *
 * All data is treated as hostile: lengths are checked, text is reduced to printable ASCII.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A target has a few unit attentions ready for a new session; one that has more is broken. */
#define MAX_ATTENTIONS 10

#define BLOCK_SIZE_MIN 512
#define BLOCK_SIZE_MAX 65536

#define INQUIRY_LENGTH 96
#define PAGE_LENGTH    252 /* the most that old targets take: the length field once had one byte */

/* ---- The answers ------------------------------------------------------------------------------ */

static const char *device_type_name(unsigned type)
{
    static const char *const names[] = {
        "disk",          "tape",    "printer",        "processor",     "write-once device",
        "CD/DVD device", "scanner", "optical memory", "media changer",
    };

    if (type == 0x0c)
        return "storage array controller";
    if (type == 0x0d)
        return "enclosure";
    if (type == 0x14)
        return "zoned disk";
    return type < sizeof(names) / sizeof(names[0]) ? names[type] : "device of an unknown type";
}

static int no_such_lun(struct probe *probe)
{
    const struct login *login = probe->session->login;

    return blk_error_set(&probe->error, ENXIO, "LUN %u does not exist on target %s", login->lun,
                         login->target);
}

/* SPC-4 6.6.2 */
static int take_inquiry(struct probe *probe, const struct answer *answer)
{
    struct lun_facts *facts = &probe->facts;
    unsigned qualifier = (unsigned)answer_get(answer, 0, 1) >> 5,
             type = answer_get(answer, 0, 1) & 0x1f;

    if (answer->len < 36)
        return blk_error_set(&probe->error, EPROTO, "the INQUIRY data is too short: %zu bytes",
                             answer->len);
    if (qualifier != 0)
        return no_such_lun(probe);
    if (type != 0)
        return blk_error_set(&probe->error, ENOTBLK,
                             "LUN %u is a %s (device type %02xh), not a disk",
                             probe->session->login->lun, device_type_name(type), type);
    answer_text(answer, 8, 8, facts->vendor, sizeof(facts->vendor));
    answer_text(answer, 16, 16, facts->product, sizeof(facts->product));
    answer_text(answer, 32, 4, facts->revision, sizeof(facts->revision));
    return 0;
}

/* SBC-3, READ CAPACITY(16) parameter data */
static int take_capacity(struct probe *probe, const struct answer *answer)
{
    struct lun_facts *facts = &probe->facts;
    uint64_t last = answer_get(answer, 0, 8), size = answer_get(answer, 8, 4);

    if (answer->len < 12)
        return blk_error_set(&probe->error, EPROTO, "the capacity data is too short: %zu bytes",
                             answer->len);
    if (size < BLOCK_SIZE_MIN || size > BLOCK_SIZE_MAX || (size & (size - 1)) != 0)
        return blk_error_set(&probe->error, ENOTSUP,
                             "blocks of %" PRIu64 " bytes: only powers of two from %d to %d are "
                             "supported",
                             size, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
    if (last >= (uint64_t)INT64_MAX / size)
        return blk_error_set(&probe->error, EFBIG, "the last LBA, %" PRIu64 ", cannot be true",
                             last);
    facts->blocks = last + 1;
    facts->block_size = (uint32_t)size;
    facts->physical_exponent = answer_get(answer, 13, 1) & 0x0f;
    facts->provisioned = answer_bit(answer, 14, 7);
    facts->capacity_lbprz = answer_bit(answer, 14, 6);
    return 0;
}

/* SPC-4 7.5.5 (the header of MODE SENSE(6)); SBC-3, caching mode page. Its device-specific parameter
 * holds WP and DPOFUA. */
static int take_caching(struct probe *probe, const struct answer *answer)
{
    struct lun_facts *facts = &probe->facts;
    size_t page = 4 + (size_t)answer_get(answer, 3, 1); /* behind the block descriptors */

    if (answer->len < 4)
        return 0;
    facts->write_protected = answer_bit(answer, 2, 7);
    facts->can_fua = answer_bit(answer, 2, 4);
    if (page + 2 < answer->len && (answer_get(answer, page, 1) & 0x3f) == 0x08) {
        facts->cache_told = true;
        facts->write_cache = answer_bit(answer, page + 2, 2);
    }
    return 0;
}

/* SPC-4 7.8.15 */
static int take_serial(struct probe *probe, const struct answer *answer)
{
    answer_text(answer, 4, (size_t)answer_get(answer, 2, 2), probe->facts.serial,
                sizeof(probe->facts.serial));
    return 0;
}

/* How well a designator identifies a LUN, and what stands before it (SPC-4 7.8.6.1). */
static const struct designator_type {
    unsigned type;
    const char *prefix;
} designator_types[] = {{3, "naa."}, {2, "eui."}, {8, ""}, {1, "t10."}}; /* best first */

static void take_designator(struct lun_facts *facts, const struct answer *answer, size_t at,
                            const char *prefix)
{
    char *text = facts->identity;
    size_t size = sizeof(facts->identity), len = (size_t)answer_get(answer, at + 3, 1), used;
    unsigned code_set = answer_get(answer, at, 1) & 0x0f;

    used = (size_t)snprintf(text, size, "%s", prefix);
    if (code_set != 1) { /* ASCII or UTF-8 */
        answer_text(answer, at + 4, len, text + used, size - used);
        return;
    }
    for (size_t i = 0; i < len && used + 3 <= size; i++)
        used += (size_t)snprintf(text + used, size - used, "%02x",
                                 (unsigned)answer_get(answer, at + 4 + i, 1));
}

static int take_identity(struct probe *probe, const struct answer *answer)
{
    size_t best = sizeof(designator_types) / sizeof(designator_types[0]);
    size_t at = 4;

    while (at + 4 <= answer->len && at + 4 + answer_get(answer, at + 3, 1) <= answer->len) {
        unsigned association = answer_get(answer, at + 1, 1) >> 4 & 3,
                 type = answer_get(answer, at + 1, 1) & 0xf;

        for (size_t i = 0; i < best && association == 0; i++) {
            if (designator_types[i].type == type) {
                take_designator(&probe->facts, answer, at, designator_types[i].prefix);
                best = i;
            }
        }
        at += 4 + (size_t)answer_get(answer, at + 3, 1);
    }
    return 0;
}

/* A page ends where it says, whatever comes behind it. */
static struct answer page_of(const struct answer *answer)
{
    size_t end = 4 + (size_t)answer_get(answer, 2, 2);

    return (struct answer){answer->data, end < answer->len ? end : answer->len};
}

/* SBC-4, Block Limits VPD page */
static int take_limits(struct probe *probe, const struct answer *answer)
{
    struct lun_facts *facts = &probe->facts;
    struct answer page = page_of(answer);
    uint32_t alignment = (uint32_t)answer_get(&page, 32, 4);

    facts->max_transfer = (uint32_t)answer_get(&page, 8, 4);
    facts->optimal_transfer = (uint32_t)answer_get(&page, 12, 4);
    facts->max_unmap_blocks = (uint32_t)answer_get(&page, 20, 4);
    facts->max_unmap_descriptors = (uint32_t)answer_get(&page, 24, 4);
    facts->unmap_granularity = (uint32_t)answer_get(&page, 28, 4);
    if ((alignment & 0x80000000) != 0) /* UGAVALID */
        facts->unmap_alignment = alignment & 0x7fffffff;
    facts->max_write_same = answer_get(&page, 36, 8);
    return 0;
}

/* SBC-4, Logical Block Provisioning VPD page */
static int take_provisioning(struct probe *probe, const struct answer *answer)
{
    struct lun_facts *facts = &probe->facts;
    struct answer page = page_of(answer);

    if (page.len < 8)
        return 0;
    facts->provisioning_told = true;
    facts->can_unmap = answer_bit(&page, 5, 7);
    facts->can_write_same_unmap = answer_bit(&page, 5, 6);
    facts->lbprz = answer_get(&page, 5, 1) >> 2 & 7;
    facts->provisioning = answer_get(&page, 6, 1) & 7;
    return 0;
}

/* SPC-4, REPORT SUPPORTED OPERATION CODES, one command: the field SUPPORT */
static int take_write_same(struct probe *probe, const struct answer *answer)
{
    unsigned support = answer_get(answer, 1, 1) & 7;

    if (support == 1)
        probe->facts.write_same = SUPPORT_NO;
    else if (support == 3) /* 5: in a vendor's own manner */
        probe->facts.write_same = SUPPORT_YES;
    return 0;
}

/* SPC-4 7.8.14: the pages that are there decide what the second round asks for. */
static int take_pages(struct probe *probe, const struct answer *answer);

/* ---- The questions ---------------------------------------------------------------------------- */

static const struct question {
    uint8_t cdb[16];
    uint8_t cdb_len;
    uint8_t answer_len;
    uint8_t page;  /* VPD page that is asked for */
    bool required; /* the LUN cannot be used without */
    int (*take)(struct probe *probe, const struct answer *answer);
    const char *name;
} questions[PROBE_ITEMS] = {
#define VPD(number, function)                                                                      \
    {                                                                                              \
        .cdb = {0x12, 1, (number), 0, PAGE_LENGTH}, .cdb_len = 6, .answer_len = PAGE_LENGTH,       \
        .page = (number), .take = (function), .name = "INQUIRY"                                    \
    }
    [PROBE_READY] = {.cdb_len = 6, .required = true, .name = "TEST UNIT READY"},
    [PROBE_PAGES] = VPD(0x00, take_pages),
    [PROBE_INQUIRY] = {.cdb = {0x12, 0, 0, 0, INQUIRY_LENGTH},
                       .cdb_len = 6,
                       .answer_len = INQUIRY_LENGTH,
                       .required = true,
                       .take = take_inquiry,
                       .name = "INQUIRY"},
    [PROBE_CAPACITY] = {.cdb = {0x9e, 0x10, [13] = 32},
                        .cdb_len = 16,
                        .answer_len = 32,
                        .required = true,
                        .take = take_capacity,
                        .name = "READ CAPACITY(16)"},
    /* 08h in byte 1: no block descriptors, please; some send them all the same */
    [PROBE_CACHING] = {.cdb = {0x1a, 0x08, 0x08, 0, PAGE_LENGTH},
                       .cdb_len = 6,
                       .answer_len = PAGE_LENGTH,
                       .take = take_caching,
                       .name = "MODE SENSE"},
    [PROBE_SERIAL] = VPD(0x80, take_serial),
    [PROBE_IDENTITY] = VPD(0x83, take_identity),
    [PROBE_LIMITS] = VPD(0xb0, take_limits),
    [PROBE_PROVISIONING] = VPD(0xb2, take_provisioning),
    /* 1: of the operation code in the next byte, without service actions */
    [PROBE_WRITE_SAME] = {.cdb = {0xa3, 0x0c, 1, 0x93, [9] = 32},
                          .cdb_len = 12,
                          .answer_len = 32,
                          .take = take_write_same,
                          .name = "REPORT SUPPORTED OPERATION CODES"},
#undef VPD
};

#define FIRST_ROUND  (1u << PROBE_READY | 1u << PROBE_PAGES)
#define SECOND_ROUND (1u << PROBE_INQUIRY | 1u << PROBE_CAPACITY | 1u << PROBE_CACHING)

static int take_pages(struct probe *probe, const struct answer *answer)
{
    size_t end = 4 + (size_t)answer_get(answer, 2, 2);

    for (size_t at = 4; at < end && at < answer->len; at++) {
        for (unsigned i = 0; i < PROBE_ITEMS; i++) {
            if (questions[i].page != 0 && questions[i].page == answer->data[at])
                probe->next_round |= 1u << i;
        }
    }
    /* The page does not tell about WRITE SAME in every case. What has no such page is too old to be
     * asked for more. */
    if ((probe->next_round >> PROBE_LIMITS & 1) != 0)
        probe->next_round |= 1u << PROBE_WRITE_SAME;
    return 0;
}

static void ask(struct probe *probe, struct probe_command *command)
{
    const struct question *question = &questions[command - probe->commands];
    uint8_t cdb[16];

    memcpy(cdb, question->cdb, sizeof(cdb)); /* the library wants it writable */
    iscsi_session_send(probe->session, &command->command,
                       scsi_create_task(question->cdb_len, cdb,
                                        question->answer_len > 0 ? SCSI_XFER_READ : SCSI_XFER_NONE,
                                        question->answer_len));
}

static void ask_round(struct probe *probe)
{
    unsigned items = probe->next_round;

    assert(probe->outstanding == 0);
    probe->next_round = 0;
    for (unsigned i = 0; i < PROBE_ITEMS; i++)
        probe->outstanding += items >> i & 1;
    for (unsigned i = 0; i < PROBE_ITEMS; i++) {
        /* A command that cannot be sent ends the session, and with it the probe. */
        if ((items >> i & 1) != 0 && probe->session->state == SESSION_UP)
            ask(probe, &probe->commands[i]);
    }
}

static void ask_all(struct probe *probe)
{
    memset(&probe->facts, 0, sizeof(probe->facts));
    probe->facts.write_cache = true;
    probe->next_round = FIRST_ROUND;
    probe->again = false;
    ask_round(probe);
}

static void end_round(struct probe *probe)
{
    if (probe->error.code != 0)
        probe->done(probe, -probe->error.code);
    else if (probe->next_round != 0)
        ask_round(probe);
    else if (probe->again)
        ask_all(probe);
    else
        probe->done(probe, 0);
}

static void judge(struct probe *probe, const struct question *question, int status,
                  const struct scsi_task *task)
{
    struct sense sense = sense_decode(task);
    struct answer answer = answer_of(task);
    struct blk_error error = {0};

    if (probe->error.code != 0)
        return;
    if (sense_is_success(status, task)) {
        if (status != SCSI_STATUS_GOOD)
            answer.len = 0; /* what is there is sense data */
        /* Some answer with another page than was asked for. */
        if (question->take != NULL &&
            (question->page == 0 || question->page == answer_get(&answer, 1, 1)))
            question->take(probe, &answer);
        return;
    }
    if (question->required && sense.present && sense.key == SCSI_SENSE_ILLEGAL_REQUEST &&
        sense.asc == 0x25) {
        no_such_lun(probe);
        return;
    }
    sense_error(&error, status, task, &probe->standing, iscsi_session_complaint(probe->session));
    /* What is refused for now is not what the LUN does not have. */
    if (!question->required && error.retry == BLK_FATAL)
        return;
    probe->effects |= sense_effects(&sense);
    probe->error = error;
    blk_error_prefix(&probe->error, "%s", question->name);
}

static bool is_attention(struct probe *probe, int status, const struct scsi_task *task)
{
    struct sense sense = sense_decode(task);
    struct blk_error error;

    if (!sense_is_unit_attention(status, task))
        return false;
    probe->attention(probe, &sense);
    sense_error(&error, status, task, &probe->standing, "");
    if (error.retry == BLK_RECHECK)
        probe->again = true;
    return true;
}

static void answered(struct command *command, int status, struct scsi_task *task)
{
    struct probe_command *asked = container_of(command, struct probe_command, command);
    struct probe *probe = asked->probe;
    size_t item = (size_t)(asked - probe->commands);

    if (status == SCSI_STATUS_CANCELLED)
        return; /* the session's end is the owner's to handle */
    if (is_attention(probe, status, task) && asked->attentions++ < MAX_ATTENTIONS)
        probe->next_round |= 1u << item;
    else
        judge(probe, &questions[item], status, task);
    if (item == PROBE_PAGES) /* listed or not */
        probe->next_round |= SECOND_ROUND;
    probe->outstanding--;
    if (probe->outstanding == 0 && probe->session->state == SESSION_UP)
        end_round(probe);
}

void probe_start(struct probe *probe)
{
    blk_error_clear(&probe->error);
    probe->effects = 0;
    probe->outstanding = 0;
    for (unsigned i = 0; i < PROBE_ITEMS; i++)
        probe->commands[i] = (struct probe_command){.command = {.done = answered}, .probe = probe};
    ask_all(probe);
}
