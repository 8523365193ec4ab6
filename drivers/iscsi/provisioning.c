/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeros, freeing and extents: which commands a LUN has for them, and what their answers mean;
 * private.h tells the rules.
 *
 * Zeros are made by WRITE SAME, never by UNMAP: what UNMAP leaves out, and it may leave out anything,
 * keeps its data, while WRITE SAME writes what it does not unmap. Its block of zeros is always sent
 * (never NDOB): istgt drops the connection without one.
 */
#include "private.h"

#include <assert.h>
#include <string.h>

#include <lunferry/units.h>

#define BIT(means) (1u << (means))

/* How much one command is to do, so that on a slow array the others of the session do not wait for
 * long: one that unmaps has little to do (though it may find that it must write), one that writes
 * moves the bytes at the speed of the disks. */
#define MAX_ZERO_UNMAPPING (256 * MIB)
#define MAX_ZERO_WRITING   (32 * MIB)
#define MAX_DISCARD        (1 * GIB)
/* Blocks for a WRITE SAME on a LUN that does not tell its maximum. Linux (drivers/scsi/sd.c) knows
 * devices that count in 16 bits then; 10000h would be none, or all of the rest. */
#define MAX_SAME_NOT_TOLD 0x8000

#define MAX_DESCRIPTORS 1024 /* of one GET LBA STATUS: 16 KiB */

#define BLOCK_SIZE_MAX 65536
static const unsigned char zeros[BLOCK_SIZE_MAX];

/* ---- What there is ---------------------------------------------------------------------------- */

enum unmapped provisioning_unmapped(const struct lun_facts *facts)
{
    if (!facts->provisioning_told)
        return facts->capacity_lbprz ? UNMAPPED_ZEROS : UNMAPPED_NOT_TOLD;
    if ((facts->lbprz & 1) != 0)
        return UNMAPPED_ZEROS;
    return facts->lbprz == 2 ? UNMAPPED_PATTERN : UNMAPPED_NOT_TOLD;
}

static bool reads_zeros(const struct lun_facts *facts)
{
    return facts->provisioned && provisioning_unmapped(facts) == UNMAPPED_ZEROS;
}

static unsigned promised(const struct lun_facts *facts)
{
    bool same_unmap = facts->provisioned && facts->can_write_same_unmap;
    unsigned means = 0;

    if (facts->write_same != SUPPORT_NO) {
        if (facts->write_same == SUPPORT_YES || facts->max_write_same > 0 || same_unmap)
            means |= BIT(MEANS_SAME);
        if (same_unmap)
            means |= BIT(MEANS_SAME_UNMAP);
    }
    if (facts->provisioned && facts->can_unmap && facts->max_unmap_blocks > 0 &&
        facts->max_unmap_descriptors > 0)
        means |= BIT(MEANS_UNMAP);
    if (facts->provisioned)
        means |= BIT(MEANS_STATUS);
    return means;
}

void provisioning_open(struct provisioning *provisioning, const struct lun_facts *facts)
{
    *provisioning =
        (struct provisioning){.reads_zeros = reads_zeros(facts), .usable = promised(facts)};
}

void provisioning_look(struct provisioning *provisioning, const struct lun_facts *facts)
{
    provisioning->usable &= promised(facts);
    provisioning->reads_zeros = provisioning->reads_zeros && reads_zeros(facts);
}

/* ---- What is offered -------------------------------------------------------------------------- */

/* In bytes; what the target allows. */
static uint64_t allowed_same(const struct lun_facts *facts)
{
    uint64_t blocks = facts->max_write_same != 0 ? facts->max_write_same : MAX_SAME_NOT_TOLD;

    return (blocks < UINT32_MAX ? blocks : UINT32_MAX) * facts->block_size;
}

static uint64_t allowed_unmap(const struct lun_facts *facts)
{
    return (uint64_t)facts->max_unmap_blocks * facts->block_size;
}

/* The unit in which blocks are unmapped. One that no command may cover is as good as none. */
static uint64_t granule_of(const struct lun_facts *facts)
{
    uint64_t granule = (uint64_t)facts->unmap_granularity * facts->block_size;

    if (!facts->provisioned || granule > facts->blocks * facts->block_size)
        return 0;
    if (facts->can_unmap && granule > allowed_unmap(facts))
        return 0;
    return facts->can_write_same_unmap && granule > allowed_same(facts) ? 0 : granule;
}

/* At most `allowed`, and `wanted` if there is no reason for less or more: whole granules, or else a
 * power of two, so that requests which are cut at its multiples leave no small rests. */
static uint64_t limit(const struct lun_facts *facts, uint64_t wanted, uint64_t allowed,
                      uint64_t granule)
{
    while (wanted > allowed && wanted > facts->block_size)
        wanted /= 2;
    if (granule == 0)
        return wanted;
    return wanted > granule ? wanted - wanted % granule : granule;
}

void provisioning_offer(const struct provisioning *provisioning, const struct lun_facts *facts,
                        struct blk_dev *dev)
{
    struct blk_limits *limits = &dev->limits;
    bool same = (provisioning->usable & BIT(MEANS_SAME)) != 0,
         same_unmap = (provisioning->usable & BIT(MEANS_SAME_UNMAP)) != 0,
         unmap = (provisioning->usable & BIT(MEANS_UNMAP)) != 0,
         zero_unmaps = same && same_unmap && provisioning->reads_zeros;
    uint64_t granule = granule_of(facts), allowed = allowed_same(facts);

    dev->caps &= ~(unsigned)(BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS);
    dev->caps |= same ? BLK_CAN_ZERO : 0;
    dev->caps |= zero_unmaps ? BLK_CAN_UNMAP : 0;
    dev->caps |= unmap || same_unmap ? BLK_CAN_DISCARD : 0;
    dev->caps |= (provisioning->usable & BIT(MEANS_STATUS)) != 0 ? BLK_CAN_EXTENTS : 0;

    limits->max_zero = zero_unmaps ? limit(facts, MAX_ZERO_UNMAPPING, allowed, granule)
                                   : limit(facts, MAX_ZERO_WRITING, allowed, 0);
    limits->max_discard = unmap ? limit(facts, MAX_DISCARD, allowed_unmap(facts), granule)
                                : limit(facts, MAX_ZERO_UNMAPPING, allowed, granule);
    limits->unmap_granule = granule;
    limits->unmap_phase =
        granule != 0 ? (uint64_t)facts->unmap_alignment * facts->block_size % granule : 0;
}

/* ---- Commands --------------------------------------------------------------------------------- */

enum means provisioning_means(const struct provisioning *provisioning, enum blk_op op,
                              bool may_unmap)
{
    unsigned usable = provisioning->usable;

    switch (op) {
    case BLK_ZERO:
        if ((usable & BIT(MEANS_SAME)) == 0)
            return MEANS_NONE;
        return may_unmap && provisioning->reads_zeros && (usable & BIT(MEANS_SAME_UNMAP)) != 0
                   ? MEANS_SAME_UNMAP
                   : MEANS_SAME;
    case BLK_DISCARD:
        if ((usable & BIT(MEANS_UNMAP)) != 0)
            return MEANS_UNMAP;
        return (usable & BIT(MEANS_SAME_UNMAP)) != 0 ? MEANS_SAME_UNMAP : MEANS_NONE;
    default:
        assert(op == BLK_EXTENTS);
        return (usable & BIT(MEANS_STATUS)) != 0 ? MEANS_STATUS : MEANS_NONE;
    }
}

const char *means_name(enum means means)
{
    static const char *const names[] = {
        [MEANS_SAME] = "WRITE SAME", [MEANS_SAME_UNMAP] = "WRITE SAME with UNMAP",
        [MEANS_UNMAP] = "UNMAP",     [MEANS_STATUS] = "GET LBA STATUS",
        [MEANS_NONE] = "nothing",
    };

    return names[means];
}

/* SBC-4, UNMAP parameter list with one descriptor: a request is one range, and never as long as a
 * descriptor cannot tell. */
static void fill_unmap(uint8_t list[24], uint64_t lba, uint32_t blocks)
{
    memset(list, 0, 24);
    scsi_set_uint16(list, 22);
    scsi_set_uint16(list + 2, 16);
    scsi_set_uint64(list + 8, lba);
    scsi_set_uint32(list + 16, blocks);
}

struct scsi_task *means_task(struct means_data *data, enum means means, uint64_t lba,
                             uint32_t blocks, uint32_t block_size)
{
    struct scsi_task *task;

    /* WRITE SAME takes 0 for all up to the end of the LUN. */
    assert(blocks > 0);
    if (means == MEANS_UNMAP) {
        fill_unmap(data->parameters, lba, blocks);
        data->iov = (struct scsi_iovec){data->parameters, sizeof(data->parameters)};
        task = scsi_cdb_unmap(0, 0, sizeof(data->parameters));
    } else {
        assert(means == MEANS_SAME || means == MEANS_SAME_UNMAP);
        /* only ever read from */
        data->iov = (struct scsi_iovec){(void *)(uintptr_t)zeros, block_size};
        task = scsi_cdb_writesame16(0, 0, means == MEANS_SAME_UNMAP, lba, 0, blocks, block_size);
    }
    if (task != NULL)
        scsi_task_set_iov_out(task, &data->iov, 1);
    return task;
}

struct scsi_task *means_status_task(uint64_t lba, size_t extents)
{
    size_t descriptors = extents < MAX_DESCRIPTORS ? extents : MAX_DESCRIPTORS;

    return scsi_cdb_get_lba_status(lba, (uint32_t)(8 + 16 * descriptors));
}

/* ---- Ends ------------------------------------------------------------------------------------- */

/*
 * ILLEGAL REQUEST is about the command (20/00, 24/00, 26/xx for the most part), but for a range outside
 * of the LUN and for a LUN that is not there. Some refuse without sense data. To do without the
 * command is safe in every case, so what is not understood counts as a refusal.
 */
bool means_is_refusal(int status, const struct scsi_task *task)
{
    struct sense sense;

    if (status != SCSI_STATUS_CHECK_CONDITION)
        return false;
    sense = sense_decode(task);
    if (!sense.present)
        return true;
    return !sense.deferred && sense.key == SCSI_SENSE_ILLEGAL_REQUEST && sense.asc != 0x21 &&
           sense.asc != 0x25;
}

void provisioning_worked(struct provisioning *provisioning, enum means means)
{
    provisioning->proven |= BIT(means);
}

void provisioning_refused(struct provisioning *provisioning, enum means means)
{
    provisioning->usable &= ~BIT(means);
}

void provisioning_lost(struct provisioning *provisioning, enum means means)
{
    provisioning->lost |= BIT(means);
}

/* Once may be chance. */
#define MAX_LOSSES 2

unsigned provisioning_new_session(struct provisioning *provisioning)
{
    unsigned suspects = provisioning->lost & ~provisioning->proven & provisioning->usable;
    unsigned given_up = 0;

    provisioning->lost = 0;
    for (unsigned i = 0; i < MEANS_NONE; i++) {
        if ((suspects & BIT(i)) != 0 && ++provisioning->losses[i] == MAX_LOSSES)
            given_up |= BIT(i);
    }
    provisioning->usable &= ~given_up;
    return given_up;
}

/* ---- GET LBA STATUS --------------------------------------------------------------------------- */

/* Adds what lies between the last extent's end and `end`. False: there is no room. */
static bool add_extent(struct blk_extents *extents, uint64_t from, uint64_t end, enum blk_kind kind)
{
    struct blk_extent *last = extents->list + extents->count;

    if (extents->count > 0 && last[-1].kind == kind) {
        last[-1].len += end - from;
        return true;
    }
    if (extents->count == extents->capacity)
        return false;
    *last = (struct blk_extent){
        .offset = from, .len = end - from, .kind = kind, .host_offset = BLK_NO_OFFSET};
    extents->count++;
    return true;
}

/*
 * SBC-4, GET LBA STATUS parameter data. What counts is the run of descriptors from the first on that
 * covers the range from its first byte, without gap or overlap; what comes behind, where it breaks
 * off, may be asked again. If there is none that does, asking would get nowhere: all of the range is
 * data then, as it is where nothing is known.
 */
void provisioning_take_extents(const struct provisioning *provisioning, const struct answer *answer,
                               uint32_t block_size, uint64_t offset, uint64_t len,
                               struct blk_extents *extents)
{
    uint64_t told = 4 + answer_get(answer, 0, 4), at = offset, end = offset + len;
    size_t size = told < answer->len ? (size_t)told : answer->len;

    extents->count = 0;
    for (size_t i = 8; i + 16 <= size && at < end; i += 16) {
        uint64_t lba = answer_get(answer, i, 8), blocks = answer_get(answer, i + 8, 4);
        unsigned status = answer_get(answer, i + 12, 1) & 0x0f;
        bool unmapped = status == 1 || status == 2; /* deallocated, anchored */
        uint64_t from, to;

        if (lba > at / block_size) /* also keeps the product below from overflowing */
            break;
        from = lba * block_size;
        to = from + blocks * block_size;
        if ((i > 8 && from != at) || to <= at)
            break;
        to = min_u64(to, end);
        if (!add_extent(extents, at, to,
                        unmapped && provisioning->reads_zeros ? BLK_ZEROS : BLK_DATA))
            break;
        at = to;
    }
    if (extents->count == 0)
        add_extent(extents, offset, end, BLK_DATA);
}
