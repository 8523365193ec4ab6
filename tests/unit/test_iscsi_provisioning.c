/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeros, freeing and extents on a LUN: what its pages promise, and what answers mean. They are of foreign
 * hands: none may lead to data that is taken for zeros, or to a walk that does not end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/iscsi/private.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lunferry/units.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A thin LUN with everything: 4 GiB. */
static const struct lun_facts thin = {
    .blocks = 1 << 23,
    .block_size = 512,
    .provisioned = true,
    .capacity_lbprz = true,
    .max_unmap_blocks = UINT32_MAX,
    .max_unmap_descriptors = 1,
    .max_write_same = 1 << 23,
    .provisioning_told = true,
    .can_unmap = true,
    .can_write_same_unmap = true,
    .lbprz = 1,
    .provisioning = 2,
};

static const struct lun_facts thick = {.blocks = 1 << 23, .block_size = 512};

static struct blk_dev offered(const struct lun_facts *facts)
{
    struct blk_dev dev = {.caps = BLK_BARE | BLK_CAN_FUA};
    struct provisioning provisioning;

    provisioning_open(&provisioning, facts);
    provisioning_offer(&provisioning, facts, &dev);
    assert_int_equal(dev.caps & (BLK_BARE | BLK_CAN_FUA), BLK_BARE | BLK_CAN_FUA);
    dev.caps &= ~(unsigned)(BLK_BARE | BLK_CAN_FUA);
    return dev;
}

#define ALL (BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS)

/* ---- What the pages promise ------------------------------------------------------------------- */

static void test_unmapped(void **state)
{
    static const struct {
        bool page;
        unsigned lbprz;
        bool bit;
        enum unmapped reads_as;
    } rows[] = {
        {false, 0, false, UNMAPPED_NOT_TOLD}, {false, 0, true, UNMAPPED_ZEROS},
        {true, 0, false, UNMAPPED_NOT_TOLD},  {true, 0, true, UNMAPPED_NOT_TOLD},
        {true, 1, false, UNMAPPED_ZEROS},     {true, 2, true, UNMAPPED_PATTERN},
        {true, 3, true, UNMAPPED_ZEROS},      {true, 4, true, UNMAPPED_NOT_TOLD},
        {true, 5, false, UNMAPPED_ZEROS},     {true, 6, true, UNMAPPED_NOT_TOLD},
        {true, 7, false, UNMAPPED_ZEROS},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct lun_facts facts = thin;
        bool zeros = rows[i].reads_as == UNMAPPED_ZEROS;
        struct provisioning provisioning;

        facts.provisioning_told = rows[i].page;
        facts.lbprz = rows[i].lbprz;
        facts.capacity_lbprz = rows[i].bit;
        assert_int_equal(provisioning_unmapped(&facts), rows[i].reads_as);
        /* only zeros make UNMAP a way to zero; to free, it does without */
        provisioning_open(&provisioning, &facts);
        assert_int_equal(provisioning_means(&provisioning, BLK_ZERO, true),
                         zeros ? MEANS_SAME_UNMAP : MEANS_SAME);
        assert_int_equal(offered(&facts).caps, zeros ? ALL : ALL & ~(unsigned)BLK_CAN_UNMAP);
    }
}

static void test_offered(void **state)
{
    struct lun_facts facts = thick;

    (void)state;
    assert_int_equal(offered(&facts).caps, 0);
    facts.max_write_same = 8;
    assert_int_equal(offered(&facts).caps, BLK_CAN_ZERO);
    facts.write_same = SUPPORT_NO;
    assert_int_equal(offered(&facts).caps, 0);
    facts.max_write_same = 0;
    facts.write_same = SUPPORT_YES;
    assert_int_equal(offered(&facts).caps, BLK_CAN_ZERO);

    facts = thin;
    assert_int_equal(offered(&facts).caps, ALL);
    facts.max_write_same = 0; /* LBPWS says that there is WRITE SAME */
    assert_int_equal(offered(&facts).caps, ALL);
    facts.can_write_same_unmap = false;
    assert_int_equal(offered(&facts).caps, BLK_CAN_DISCARD | BLK_CAN_EXTENTS);
    facts.max_unmap_blocks = 0;
    assert_int_equal(offered(&facts).caps, BLK_CAN_EXTENTS);
    facts.max_unmap_blocks = 1;
    facts.max_unmap_descriptors = 0;
    assert_int_equal(offered(&facts).caps, BLK_CAN_EXTENTS);
    facts.can_write_same_unmap = true;
    assert_int_equal(offered(&facts).caps, ALL);
    facts.write_same = SUPPORT_NO;
    assert_int_equal(offered(&facts).caps, BLK_CAN_EXTENTS);
    facts = thin;
    facts.provisioned = false; /* the page is not about this LUN then */
    assert_int_equal(offered(&facts).caps, BLK_CAN_ZERO);
}

static void test_limits(void **state)
{
    static const struct {
        uint64_t max_same;
        uint32_t max_unmap, granularity, alignment, block_size;
        bool is_thick;
        uint64_t zero, discard, granule, phase;
    } rows[] = {
        /* as told, powers of two */
        {1 << 23, UINT32_MAX, 0, 0, 512, false, 256 * MIB, GIB, 0, 0},
        {0xffff, 0xffff, 0, 0, 512, false, 16 * MIB, 16 * MIB, 0, 0},
        {4096, 8, 0, 0, 512, false, 2 * MIB, 4096, 0, 0},
        {1, 1, 0, 0, 512, false, 512, 512, 0, 0},
        {UINT64_MAX, UINT32_MAX, 0, 0, 65536, false, 256 * MIB, GIB, 0, 0},
        {1 << 23, 0, 0, 0, 512, true, 32 * MIB, 0, 0, 0},
        {UINT64_C(1) << 40, 0, 0, 0, 4096, true, 32 * MIB, 0, 0, 0},
        /* not told: no more than what counts in 16 bits can take */
        {0, UINT32_MAX, 0, 0, 512, false, 16 * MIB, GIB, 0, 0},
        {0, UINT32_MAX, 0, 0, 65536, false, 256 * MIB, GIB, 0, 0},
        {0, 0, 0, 0, 65536, true, 32 * MIB, 0, 0, 0},
        /* units: whole ones in each request */
        {1 << 23, UINT32_MAX, 128, 0, 512, false, 256 * MIB, GIB, 65536, 0},
        {1 << 23, UINT32_MAX, 128, 5, 512, false, 256 * MIB, GIB, 65536, 5 * 512},
        {1 << 23, UINT32_MAX, 128, 133, 512, false, 256 * MIB, GIB, 65536, 5 * 512},
        {1 << 23, UINT32_MAX, 3072, 0, 512, false, 255 * MIB, 1023 * MIB, 1536 * KIB, 0},
        {1 << 23, UINT32_MAX, 1 << 22, 1, 512, false, 2 * GIB, 2 * GIB, 2 * GIB, 512},
        /* units that no request can have, or the LUN not hold */
        {64, UINT32_MAX, 128, 5, 512, false, 32 * KIB, GIB, 0, 0},
        {1 << 23, 64, 128, 5, 512, false, 256 * MIB, 32 * KIB, 0, 0},
        {0, UINT32_MAX, 0x10000, 5, 512, false, 16 * MIB, GIB, 0, 0},
        {1 << 23, UINT32_MAX, UINT32_MAX, 5, 512, false, 256 * MIB, GIB, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct lun_facts facts = rows[i].is_thick ? thick : thin;
        struct blk_limits limits;

        facts.write_same = SUPPORT_YES;
        facts.max_write_same = rows[i].max_same;
        facts.max_unmap_blocks = rows[i].max_unmap;
        facts.unmap_granularity = rows[i].granularity;
        facts.unmap_alignment = rows[i].alignment;
        facts.block_size = rows[i].block_size;
        limits = offered(&facts).limits;
        if (limits.max_zero != rows[i].zero || limits.unmap_granule != rows[i].granule ||
            limits.unmap_phase != rows[i].phase ||
            (!rows[i].is_thick && limits.max_discard != rows[i].discard))
            fail_msg("row %zu: %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, i, limits.max_zero,
                     limits.max_discard, limits.unmap_granule, limits.unmap_phase);
    }
}

/* Where only WRITE SAME unmaps, its limits are those of a DISCARD. */
static void test_limits_of_same(void **state)
{
    struct lun_facts facts = thin;

    (void)state;
    facts.can_unmap = false;
    facts.max_unmap_blocks = 0;
    facts.max_write_same = 2048;
    facts.unmap_granularity = 8;
    assert_int_equal(offered(&facts).caps, ALL);
    assert_int_equal(offered(&facts).limits.max_discard, MIB);
    assert_int_equal(offered(&facts).limits.unmap_granule, 4096);
}

/* ---- GET LBA STATUS --------------------------------------------------------------------------- */

#define ROOM 4

struct descriptor {
    uint64_t lba;
    uint32_t blocks;
    unsigned char status;
};

struct status_answer {
    unsigned char data[8 + 16 * 8];
    struct answer answer;
};

static void fill_status(struct status_answer *status, const struct descriptor *list, size_t count)
{
    memset(status->data, 0, sizeof(status->data));
    scsi_set_uint32(status->data, (uint32_t)(4 + 16 * count));
    for (size_t i = 0; i < count; i++) {
        scsi_set_uint64(status->data + 8 + 16 * i, list[i].lba);
        scsi_set_uint32(status->data + 16 + 16 * i, list[i].blocks);
        status->data[20 + 16 * i] = list[i].status;
    }
    status->answer = (struct answer){status->data, 8 + 16 * count};
}

/* "D0+8 Z8+8", in blocks of 512 bytes. `ask` is in bytes. */
static const char *taken(const struct status_answer *status, bool reads_zeros, uint64_t offset,
                         uint64_t len, size_t room, char text[200])
{
    struct blk_extent list[ROOM];
    struct blk_extents extents = {.list = list, .capacity = room, .count = 99};
    struct provisioning provisioning = {.reads_zeros = reads_zeros};
    uint64_t at = offset;
    int used = 0;

    memset(list, 0xff, sizeof(list));
    provisioning_take_extents(&provisioning, &status->answer, 512, offset, len, &extents);
    assert_true(extents.count > 0 && extents.count <= room);
    for (size_t i = 0; i < extents.count; i++) {
        assert_int_equal(list[i].offset, at);
        assert_true(list[i].len > 0);
        assert_int_equal(list[i].depth, 0);
        assert_true(list[i].host_offset == BLK_NO_OFFSET && !list[i].compressed);
        at += list[i].len;
        used += snprintf(text + used, 200 - (size_t)used, "%s%c%g+%g", i > 0 ? " " : "",
                         list[i].kind == BLK_ZEROS ? 'Z' : 'D', (double)list[i].offset / 512,
                         (double)list[i].len / 512);
    }
    assert_true(at <= offset + len);
    return text;
}

/* Every provisioning status, with and without zeros to be read. */
static void test_status(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        struct descriptor list[] = {{0, 8, 0}, {8, 8, (unsigned char)code}};
        struct status_answer status;
        unsigned value = code & 0x0f;
        char text[200];

        fill_status(&status, list, 2);
        assert_string_equal(taken(&status, true, 0, 16 * 512, ROOM, text),
                            value == 1 || value == 2 ? "D0+8 Z8+8" : "D0+16");
        assert_string_equal(taken(&status, false, 0, 16 * 512, ROOM, text), "D0+16");
    }
}

/* What LBA 100 up to 200 are. */
static void test_answers(void **state)
{
    static const struct {
        struct descriptor list[6];
        size_t count;
        const char *is;
    } rows[] = {
        {{{100, 100, 0}}, 1, "D100+100"},
        {{{100, 100, 1}}, 1, "Z100+100"},
        {{{100, 50, 1}, {150, 50, 0}}, 2, "Z100+50 D150+50"},
        /* begins before, ends behind */
        {{{0, 150, 1}, {150, 1000, 0}}, 2, "Z100+50 D150+50"},
        {{{0, UINT32_MAX, 1}}, 1, "Z100+100"},
        {{{100, 100, 0}, {200, 100, 1}}, 2, "D100+100"},
        /* a part of the range */
        {{{100, 10, 1}}, 1, "Z100+10"},
        /* neighbours of one kind */
        {{{100, 10, 0}, {110, 10, 3}, {120, 10, 1}, {130, 10, 2}}, 4, "D100+20 Z120+20"},
        /* more than there is room for */
        {{{100, 10, 0}, {110, 10, 1}, {120, 10, 0}, {130, 10, 1}, {140, 10, 0}, {150, 9, 1}},
         6,
         "D100+10 Z110+10 D120+10 Z130+10"},
        /* nothing, or nothing of the first block */
        {{{0}}, 0, "D100+100"},
        {{{100, 0, 1}}, 1, "D100+100"},
        {{{0, 100, 1}}, 1, "D100+100"},
        {{{101, 99, 1}}, 1, "D100+100"},
        {{{300, 10, 1}}, 1, "D100+100"},
        {{{100, 0, 1}, {100, 100, 1}}, 2, "D100+100"},
        {{{0, 50, 1}, {50, 150, 1}}, 2, "D100+100"},
        {{{UINT64_MAX, 100, 1}}, 1, "D100+100"},
        {{{UINT64_MAX / 512 + 1, 200, 1}}, 1, "D100+100"}, /* 0 in bytes, but for the overflow */
        /* it breaks off: an empty one, a gap, backwards, twice the same, an overlap */
        {{{100, 10, 1}, {110, 0, 1}, {110, 90, 1}}, 3, "Z100+10"},
        {{{100, 10, 1}, {120, 80, 1}}, 2, "Z100+10"},
        {{{100, 10, 1}, {90, 110, 1}}, 2, "Z100+10"},
        {{{100, 10, 1}, {100, 10, 1}}, 2, "Z100+10"},
        {{{100, 10, 1}, {105, 95, 1}}, 2, "Z100+10"},
        {{{100, 10, 1}, {UINT64_MAX, 100, 1}}, 2, "Z100+10"},
        {{{100, 10, 1}, {UINT64_MAX / 512 + 1 + 110, 10, 1}}, 2, "Z100+10"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct status_answer status;
        char text[200];

        fill_status(&status, rows[i].list, rows[i].count);
        taken(&status, true, 100 * 512, 100 * 512, ROOM, text);
        if (strcmp(text, rows[i].is) != 0)
            fail_msg("row %zu: %s, not %s", i, text, rows[i].is);
    }
}

/* Neither side of what it says about its length is believed. */
static void test_lengths(void **state)
{
    static const struct descriptor list[] = {{100, 10, 1}, {110, 10, 0}, {120, 80, 1}};
    static const struct {
        uint32_t told;
        size_t came;
        const char *is;
    } rows[] = {
        {52, 56, "Z100+10 D110+10 Z120+80"},
        {UINT32_MAX, 56, "Z100+10 D110+10 Z120+80"},
        {52, 55, "Z100+10 D110+10"}, /* cut in the middle of one */
        {51, 56, "Z100+10 D110+10"},
        {36, 56, "Z100+10 D110+10"},
        {20, 56, "Z100+10"},
        {52, 24, "Z100+10"},
        {19, 56, "D100+100"},
        {4, 56, "D100+100"},
        {0, 56, "D100+100"},
        {52, 23, "D100+100"},
        {52, 8, "D100+100"},
        {52, 3, "D100+100"},
        {52, 0, "D100+100"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct status_answer status;
        unsigned char *exact = malloc(rows[i].came + 1); /* for the sanitizer to see its end */
        char text[200];

        assert_non_null(exact);
        fill_status(&status, list, COUNT(list));
        scsi_set_uint32(status.data, rows[i].told);
        memcpy(exact, status.data, rows[i].came);
        status.answer = (struct answer){exact, rows[i].came};
        taken(&status, true, 100 * 512, 100 * 512, ROOM, text);
        free(exact);
        if (strcmp(text, rows[i].is) != 0)
            fail_msg("row %zu: %s, not %s", i, text, rows[i].is);
    }
}

static void test_one_extent(void **state)
{
    static const struct descriptor list[] = {{100, 10, 1}, {110, 10, 1}, {120, 80, 0}};
    struct status_answer status;
    char text[200];

    (void)state;
    fill_status(&status, list, COUNT(list));
    assert_string_equal(taken(&status, true, 100 * 512, 100 * 512, 1, text), "Z100+20");
    /* bytes that are no whole blocks */
    assert_string_equal(taken(&status, true, 100 * 512 + 256, 512, 1, text), "Z100.5+1");
    assert_string_equal(taken(&status, true, 119 * 512 + 256, 512, ROOM, text), "D119.5+1");
    fill_status(&status, list + 1, 2);
    assert_string_equal(taken(&status, true, 119 * 512 + 256, 512, ROOM, text),
                        "Z119.5+0.5 D120+0.5");
}

/* ---- Refusals and losses ---------------------------------------------------------------------- */

static void test_refusal(void **state)
{
    static const struct {
        unsigned char format, key, asc, ascq;
        bool refused;
    } rows[] = {
        {0x70, 5, 0x20, 0x00, true},    {0x70, 5, 0x24, 0x00, true},  {0x70, 5, 0x26, 0x00, true},
        {0x70, 5, 0x26, 0x02, true},    {0x70, 5, 0x1a, 0x00, true},  {0x70, 5, 0x55, 0x03, true},
        {0x70, 5, 0x21, 0x00, false},   {0x70, 5, 0x25, 0x00, false}, {0x71, 5, 0x24, 0x00, false},
        {0x70, 7, 0x27, 0x07, false},   {0x70, 7, 0x27, 0x00, false}, {0x70, 3, 0x03, 0x00, false},
        {0x70, 4, 0x44, 0x00, false},   {0x70, 6, 0x29, 0x00, false}, {0x70, 2, 0x04, 0x01, false},
        {0x70, 0xb, 0x00, 0x00, false}, {0x00, 0, 0, 0, true}, /* without sense data */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        unsigned char data[20] = {0, 18, rows[i].format};
        struct scsi_task task = {.status = SCSI_STATUS_CHECK_CONDITION,
                                 .datain = {.size = 20, .data = data}};

        data[4] = rows[i].key;
        data[14] = rows[i].asc;
        data[15] = rows[i].ascq;
        assert_int_equal(means_is_refusal(SCSI_STATUS_CHECK_CONDITION, &task), rows[i].refused);
        assert_false(means_is_refusal(SCSI_STATUS_BUSY, &task));
    }
}

/* Two sessions, not two commands, and none once it has worked. */
static void test_losses(void **state)
{
    struct provisioning p;

    (void)state;
    provisioning_open(&p, &thin);
    provisioning_lost(&p, MEANS_SAME_UNMAP);
    provisioning_lost(&p, MEANS_SAME_UNMAP);
    provisioning_lost(&p, MEANS_STATUS);
    assert_int_equal(provisioning_new_session(&p), 0);
    assert_int_equal(provisioning_new_session(&p), 0);
    provisioning_worked(&p, MEANS_STATUS);
    provisioning_lost(&p, MEANS_SAME_UNMAP);
    provisioning_lost(&p, MEANS_STATUS);
    assert_int_equal(provisioning_new_session(&p), 1 << MEANS_SAME_UNMAP);
    assert_int_equal(provisioning_means(&p, BLK_ZERO, true), MEANS_SAME);
    assert_int_equal(provisioning_means(&p, BLK_DISCARD, false), MEANS_UNMAP);
    assert_int_equal(provisioning_means(&p, BLK_EXTENTS, false), MEANS_STATUS);
    for (unsigned i = 0; i < 3; i++) {
        provisioning_lost(&p, MEANS_SAME_UNMAP);
        provisioning_lost(&p, MEANS_STATUS);
        assert_int_equal(provisioning_new_session(&p), 0);
    }
}

/* WRITE SAME takes 0 blocks for the rest of the LUN. */
static void test_never_no_blocks(void **state)
{
    struct means_data data;
    int status = 0;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) != NULL)
            means_task(&data, MEANS_SAME, 0, 0, 512);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unmapped),        cmocka_unit_test(test_offered),
        cmocka_unit_test(test_limits),          cmocka_unit_test(test_limits_of_same),
        cmocka_unit_test(test_status),          cmocka_unit_test(test_answers),
        cmocka_unit_test(test_lengths),         cmocka_unit_test(test_one_extent),
        cmocka_unit_test(test_refusal),         cmocka_unit_test(test_losses),
        cmocka_unit_test(test_never_no_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
