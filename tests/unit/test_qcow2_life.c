/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a qcow2 device: opened, cloned, described, looked at again, closed. */
#include "pile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define K64 UINT64_C(65536)

/* 512 bytes a cluster, all of it plain, so that there are many tables to be asked for ahead. */
static void make_small(struct qcow2_make *make, uint64_t size, uint64_t incompatible)
{
    unsigned char cluster[512];

    qcow2_make_init(make, &(struct qcow2_make_options){.cluster_bits = 9,
                                                       .size = size,
                                                       .backing = "base.raw",
                                                       .backing_format = "raw",
                                                       .incompatible = incompatible});
    for (uint64_t at = 0; at < size; at += 512) {
        memset(cluster, (int)(at / 512 + 1), sizeof(cluster));
        qcow2_make_data(make, at, cluster);
    }
}

static void small_over_base(struct pile *pile, struct qcow2_make *make)
{
    struct blk_dev *base;

    pile_init(pile);
    pile_disk(pile, 100000);
    pile->disks[0].identity = "base";
    base = pile_open(pile);
    make_small(make, 4 * K64, 0);
    qcow2_make_to_disk(make, &pile->disks[1], &pile->desk.fake);
    pile->disks[1].identity = "file";
    pile->disks[1].caps = BLK_CAN_EXTENTS;
    fake_end_disk(&pile->ends[1], &pile->disks[1], "full", "b");
    pile->count = 2;
    assert_int_equal(pile_image_on(pile, make, pile_open(pile), NULL, base), 0);
}

/* ---- What it is like -------------------------------------------------------------------------- */

static void test_like(void **state)
{
    struct qcow2_make make;
    struct blk_dev *dev;
    struct pile pile;
    char expected[100];

    (void)state;
    small_over_base(&pile, &make);
    dev = pile.desk.dev;
    assert_int_equal(dev->size, 4 * K64);
    assert_int_equal(dev->caps, BLK_CAN_EXTENTS);
    assert_false(dev->writable);
    snprintf(expected, sizeof(expected), "qcow2:262144@%d(file,,base)", (int)make.l1_offset);
    assert_string_equal(dev->identity, expected);
    assert_int_equal(dev->opened.size, 4 * K64 + make.len + 100000);
    assert_string_equal(pile.desk.events, "");
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* Blocks of those below are its own, unless they are larger than its clusters. */
static void test_limits(void **state)
{
    static const uint32_t aligns[][3] = {
        {1, 1, 1}, {512, 1, 512}, {1, 512, 512}, {512, 4096, 512}, {4096, 1, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(aligns) / sizeof(*aligns); i++) {
        struct qcow2_make make;
        struct blk_dev *base;
        struct pile pile;

        pile_init(&pile);
        pile_disk(&pile, K64)->limits.align = aligns[i][1];
        pile.disks[0].limits.max_read = 10 * 4096;
        base = pile_open(&pile);
        make_small(&make, K64, 0);
        qcow2_make_to_disk(&make, &pile.disks[1], &pile.desk.fake);
        pile.disks[1].limits.align = aligns[i][0];
        pile.disks[1].limits.mem_align = 64;
        fake_end_disk(&pile.ends[1], &pile.disks[1], "full", "b");
        pile.count = 2;
        assert_int_equal(pile_image_on(&pile, &make, pile_open(&pile), NULL, base), 0);
        assert_int_equal(pile.desk.dev->limits.align, aligns[i][2]);
        assert_int_equal(pile.desk.dev->limits.mem_align, 64);
        assert_int_equal(pile.desk.dev->limits.max_read, 10 * 4096);
        qcow2_make_release(&make);
        pile_release(&pile);
    }
}

/* One that is marked as corrupt is read, with a warning. */
static void test_corrupt(void **state)
{
    unsigned char buf[512];
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_small(&make, 1024, QCOW2_CORRUPT);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_string_equal(pile.desk.events, "full:a: this image is marked as corrupt; what is read "
                                          "from it may be wrong");
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 512, buf, 512), 0);
    assert_int_equal(buf[0], 2);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* A data file that is missing, a disk of no bytes. */
static void test_odd(void **state)
{
    struct qcow2_make make;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    make_small(&make, 1024, 0);
    qcow2_make_put64(&make, QCOW2_AT_INCOMPATIBLE, QCOW2_DATA_FILE);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), -EINVAL);
    assert_string_equal(pile.desk.events,
                        "opening image: its data is in another file, which was not opened");
    qcow2_make_release(&make);
    pile_release(&pile);
    pile_init(&pile);
    make_small(&make, 0, 0);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_int_equal(pile.desk.dev->size, 0);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* ---- Description ------------------------------------------------------------------------------ */

struct facts {
    struct blk_report report;
    char text[8192];
};

static void note_fact(struct blk_report *report, const char *key, const char *label,
                      const char *value)
{
    struct facts *facts = container_of(report, struct facts, report);
    size_t at = strlen(facts->text);

    (void)label;
    snprintf(facts->text + at, sizeof(facts->text) - at, "\n%s=%s", key, value);
}

static void test_describe(void **state)
{
    static const char *const expected[] = {
        "\nkind=qcow2\n",
        "\nformat=qcow2\n",
        "\nversion=3\n",
        "\nvirtual-size=1024\n",
        "\ncluster-size=512\n",
        "\ncompression=zlib\n",
        "\nincompatible-features=dirty, corrupt\n",
        "\ncompatible-features=lazy refcounts, unknown 0x100\n",
        "\nsnapshots=0\n",
        "\nbacking-name=a b%d\n",
        "\nbacking-name-format=raw\n",
        "\nfile-endpoint=full:b\n",
        "\nbacking-endpoint=full:a\n",
        "\nbacking-size=1024 bytes (1.00 KiB)\n",
    };
    static struct facts facts = {.report = {note_fact}};
    struct qcow2_make make;
    struct blk_dev *base;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    pile_disk(&pile, 1024);
    base = pile_open(&pile);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 9,
                                                        .size = 1024,
                                                        .backing = "a b%d",
                                                        .backing_format = "raw",
                                                        .incompatible = QCOW2_CORRUPT | QCOW2_DIRTY,
                                                        .compatible = 0x101});
    assert_int_equal(pile_image(&pile, &make, NULL, base), 0);
    facts.text[0] = '\0';
    blk_describe(pile.desk.dev, &facts.report);
    strcat(facts.text, "\n");
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++)
        desk_check_text(facts.text, expected[i]);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* ---- With tables on their way ----------------------------------------------------------------- */

/* The first table is here, and with it the answer; those behind it are still on their way. */
static void begin_reading(struct pile *pile, struct desk_req *req, unsigned char *buf)
{
    desk_submit(&pile->desk, req, BLK_READ, 0, 0, buf, 512);
    fake_settle(&pile->desk.fake);
    desk_one(&pile->desk);
    assert_true(pile->desk.fake.pending_count > 2);
    fake_complete(&pile->desk.fake, pile->desk.fake.pending_count - 1);
    fake_settle(&pile->desk.fake);
    assert_int_equal(req->done, 1);
    assert_int_equal(req->req.status, 0);
    assert_int_equal(buf[0], 1);
    assert_true(pile->desk.fake.pending_count > 1);
}

/* They are not waited for. */
static void test_close_early(void **state)
{
    unsigned char buf[512];
    struct desk_task task;
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    small_over_base(&pile, &make);
    begin_reading(&pile, &req, buf);
    blk_close(pile.desk.dev, desk_task(&task));
    pile.desk.dev = NULL;
    fake_settle(&pile.desk.fake);
    for (unsigned i = 0; i < pile.desk.fake.pending_count; i++)
        assert_true(pile.desk.fake.pending[i].cancelled);
    fake_finish(&pile.desk.fake);
    assert_int_equal(task.done, 1);
    pile_release(&pile);
    qcow2_make_release(&make);
}

/* Looking again waits for them; and sees what has changed. */
static void test_look_again(void **state)
{
    unsigned char buf[512];
    struct desk_task task;
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    small_over_base(&pile, &make);
    begin_reading(&pile, &req, buf);
    blk_recheck(pile.desk.dev, desk_task(&task));
    desk_until(&pile.desk, &task.done);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
    assert_memory_equal(&pile.desk.dev->seen, &pile.desk.dev->opened, sizeof(struct blk_stamp));
    pile.disks[0].mtime_ns = 5;
    blk_recheck(pile.desk.dev, desk_task(&task));
    desk_until(&pile.desk, &task.done);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(pile.desk.dev->seen.mtime_ns, pile.desk.dev->opened.mtime_ns + 5);
    pile.disks[1].other = true;
    blk_recheck(pile.desk.dev, desk_task(&task));
    desk_until(&pile.desk, &task.done);
    assert_int_equal(task.task.status, -ESTALE);
    pile.disks[1].other = false;
    pile_release(&pile);
    qcow2_make_release(&make);
}

/* ---- Clones ----------------------------------------------------------------------------------- */

/* Which go on when the first one is gone. */
static void test_clone(void **state)
{
    struct blk_dev *origin, *clone;
    unsigned char buf[512];
    struct desk_task task;
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    small_over_base(&pile, &make);
    origin = pile.desk.dev;
    clone = desk_clone(&pile.desk, 1, &task);
    fake_finish(&pile.desk.fake);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(pile.disks[0].open, 2);
    assert_int_equal(pile.disks[1].open, 2);
    assert_string_equal(clone->identity, origin->identity);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 1024, buf, 512), 0);
    blk_close(origin, desk_task(&task));
    fake_finish(&pile.desk.fake);
    assert_int_equal(task.done, 1);
    pile.desk.dev = clone;
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 1536, buf, 512), 0);
    assert_int_equal(buf[0], 4);
    pile_release(&pile);
    qcow2_make_release(&make);
}

/* Whatever fails while it opens: it reports, and closes. */
static void test_clone_fails(void **state)
{
    (void)state;
    for (unsigned number = 1; number <= 3; number++) {
        struct blk_dev *clone;
        struct desk_task task;
        struct qcow2_make make;
        struct fake *fake;
        struct pile pile;

        small_over_base(&pile, &make);
        fake = &pile.desk.fake;
        fake->fault = (struct fake_fault){.number = fake->submitted + number, .code = EIO};
        clone = desk_clone(&pile.desk, 1, &task);
        fake_finish(fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, number <= 2 ? -EIO : 0);
        fake->fault.number = 0;
        blk_close(clone, desk_task(&task));
        fake_finish(fake);
        assert_int_equal(task.done, 1);
        pile_release(&pile);
        qcow2_make_release(&make);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_corrupt),     cmocka_unit_test(test_odd),
        cmocka_unit_test(test_describe),    cmocka_unit_test(test_close_early),
        cmocka_unit_test(test_look_again),  cmocka_unit_test(test_clone),
        cmocka_unit_test(test_clone_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
