/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small image is written by two lanes, under every order of completion, with every single fault, and with a
 * restart of the server at every moment. The tables do not fit into memory. At every moment, what a crash would
 * leave has no magic, or is a right image (writing.c looks).
 */
#include "writing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define UNIT 512
#define DISK ((uint64_t)UNIT * 64 * 6 + 700)

static const struct image_layout layouts[] = {
    {.cluster_size = UNIT},
    {.cluster_size = UNIT, .compress = true, .compression = IMAGE_ZSTD},
};

static void begin(struct writing *writing, const struct image_layout *layout)
{
    writing_init(writing, layout, DISK);
    fake_disk_release(&writing->disk);
    fake_disk_init(&writing->disk, &writing->desk.fake, 512 << 10, 0);
    writing->table_bytes = UNIT; /* two tables for each lane, that is */
}

static void at_table(struct writing *writing, unsigned lane, unsigned table, uint32_t seed)
{
    uint64_t offset = (uint64_t)UNIT * 64 * table + (uint64_t)UNIT * (lane * 30 + 1);

    if (table == 6)
        writing_submit(writing, lane, BLK_WRITE, (uint64_t)UNIT * 64 * 6, 700, seed);
    else
        writing_submit(writing, lane, BLK_WRITE, offset, (uint64_t)UNIT * 12, seed);
}

/* Every table twice, with others in between, so that they leave, and leave again. */
static void write_all(struct writing *writing)
{
    for (unsigned table = 0; table < 7 && writing->status == 0; table++) {
        at_table(writing, 0, table, table + 1);
        if (table < 6)
            at_table(writing, 1, 5 - table, table + 10);
        if (table % 3 == 2)
            writing_settle(writing);
    }
    writing_durable(writing);
    if (writing->status == 0) {
        at_table(writing, 1, 0, 21);
        at_table(writing, 0, 4, 22);
        writing_submit(writing, 0, BLK_ZERO, UNIT * 10, UNIT * 8, 0);
        writing_durable(writing);
    }
}

/* ---- Orders ----------------------------------------------------------------------------------- */

static void test_orders(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct odometer odometer = {.sample = SAMPLE(600)};

        do {
            struct writing writing;

            begin(&writing, &layouts[i]);
            writing.odometer = &odometer;
            assert_int_equal(writing_open(&writing, 2), 0);
            write_all(&writing);
            assert_int_equal(writing_finish(&writing), 0);
            writing_check(&writing);
            writing_release(&writing);
        } while (odometer_next(&odometer));
    }
}

/* The same, but small enough for all orders that there are. */
static void test_all_orders(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct odometer odometer = {0};

        do {
            struct writing writing;

            begin(&writing, &layouts[i]);
            assert_int_equal(writing_open(&writing, 2), 0);
            writing.odometer = &odometer;
            at_table(&writing, 0, 1, 1);
            at_table(&writing, 1, 1, 2);
            at_table(&writing, 1, 2, 3);
            at_table(&writing, 0, 2, 5);
            writing_durable(&writing);
            assert_int_equal(writing_finish(&writing), 0);
            writing_check(&writing);
            writing_release(&writing);
        } while (odometer_next(&odometer));
    }
}

/* ---- Faults ----------------------------------------------------------------------------------- */

/* Whatever fails is told by somebody, and nothing that is not right looks like an image. */
static void fault_at(const struct image_layout *layout, unsigned number, bool applies, bool *hit)
{
    struct writing writing;
    int status;

    begin(&writing, layout);
    writing.desk.fake.fault =
        (struct fake_fault){.number = number, .code = EIO, .retry = BLK_FATAL, .applies = applies};
    status = writing_open(&writing, 2);
    if (status == 0)
        write_all(&writing);
    if (status == 0)
        status = writing_finish(&writing);
    *hit = atomic_load(&writing.desk.fake.fault_hit);
    if (*hit) {
        assert_int_equal(status, -EIO);
        assert_non_null(strstr(writing.error, "full:image"));
    } else {
        assert_int_equal(status, 0);
        writing_check(&writing);
    }
    writing_release(&writing);
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        for (unsigned applies = 0; applies < 2; applies++) {
            bool hit = true;
            unsigned number;

            for (number = 1; hit; number++)
                fault_at(&layouts[i], number, applies, &hit);
            assert_in_range(number, 50, 1000);
        }
    }
}

/* ---- Restarts --------------------------------------------------------------------------------- */

/* What is lost is written again: plain clusters where they were, others anew. */
static void test_restarts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        for (unsigned fua = 0; fua < 2; fua++) {
            unsigned at = 1, last;

            do {
                struct writing writing;

                begin(&writing, &layouts[i]);
                writing.disk.caps = fua ? BLK_CAN_FUA : 0;
                writing.restart_at = at++;
                desk_repeat(
                    &writing.desk); /* FUA is made up for by a FLUSH, which may come too late */
                assert_int_equal(writing_open(&writing, 2), 0);
                write_all(&writing);
                assert_int_equal(writing_finish(&writing), 0);
                writing_check(&writing);
                last = writing.completions;
                writing_release(&writing);
            } while (at <= last);
            assert_true(last > 30);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_all_orders),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_restarts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
