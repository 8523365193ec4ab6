/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The device that writes a qcow2 image: what it is like, what it refuses, what waits for what, how it ends. */
#include "writing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define UNIT  512
#define TABLE ((uint64_t)UNIT * 64) /* bytes of the disk */

/* ---- What it is like -------------------------------------------------------------------------- */

struct facts {
    struct blk_report report;
    char text[4096];
};

static void note_fact(struct blk_report *report, const char *key, const char *label,
                      const char *value)
{
    struct facts *facts = container_of(report, struct facts, report);
    size_t at = strlen(facts->text);

    (void)label;
    snprintf(facts->text + at, sizeof(facts->text) - at, "\n%s=%s", key, value);
}

static void test_like(void **state)
{
    struct image_layout layout = {.backing = "base", .backing_format = "raw", .compress = true};
    struct facts facts = {.report = {note_fact}};
    struct writing writing;
    struct blk_dev *dev;

    (void)state;
    writing_init(&writing, &layout, 10 << 20);
    writing.disk.caps = BLK_CAN_FUA | BLK_BARE | BLK_CAN_EXTENTS | BLK_CAN_DISCARD;
    writing.disk.limits.align = 512;
    writing.disk.limits.mem_align = 64;
    writing.disk.limits.max_write = 1000 << 10;
    writing.disk.identity = "thing";
    assert_int_equal(writing_open(&writing, 2), 0);
    for (unsigned lane = 0; lane < 2; lane++) {
        dev = writing.lanes[lane];
        assert_int_equal(dev->size, 10 << 20);
        assert_int_equal(dev->caps, BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_FUA);
        assert_int_equal(dev->limits.align, 65536);
        assert_int_equal(dev->limits.mem_align, 64);
        assert_int_equal(dev->limits.max_write, 15 * 65536);
        assert_true(dev->writable);
        assert_string_equal(dev->identity, "new qcow2(thing)");
        assert_int_equal(dev->opened.size, (10 << 20) + writing.disk.size);
    }
    blk_describe(writing.desk.dev, &facts.report);
    assert_non_null(strstr(facts.text, "\nformat=qcow2\nversion=3\nvirtual-size=10485760\n"
                                       "cluster-size=65536\nrefcount-bits=16\nextended-l2=no\n"
                                       "lazy-refcounts=no\ncompression=zlib\nbacking-name=base\n"
                                       "backing-name-format=raw\nfile=full:image"));
    writing_release(&writing);
}

/* ---- Refusals --------------------------------------------------------------------------------- */

static void check_open(const struct image_layout *layout, uint64_t size, uint64_t room,
                       uint32_t align, int status, const char *text)
{
    struct writing writing;

    writing_init(&writing, &(struct image_layout){.cluster_size = UNIT}, UNIT);
    writing.layout = *layout;
    writing.layout.format = IMAGE_QCOW2;
    writing.layout.version = 3;
    writing.layout.refcount_bits = 16;
    writing.size = size;
    fake_disk_release(&writing.disk);
    fake_disk_init(&writing.disk, &writing.desk.fake, room, 0);
    writing.disk.limits.align = align;
    assert_int_equal(writing_open(&writing, 1), status);
    desk_check_text(writing.error, text);
    writing.size = 0;
    writing_release(&writing);
}

static void test_refused_images(void **state)
{
    char name[400];

    (void)state;
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    check_open(&(struct image_layout){.cluster_size = 512}, UINT64_C(200) * GIB, 4096, 1, -EFBIG,
               "a disk of 200.00 GiB is too long for qcow2 with clusters of 512 B; with -o "
               "cluster_size=1024 it is not");
    check_open(&(struct image_layout){.cluster_size = 65536}, UINT64_MAX / 2, 65536, 1, -EFBIG,
               "is too long for qcow2");
    check_open(&(struct image_layout){.cluster_size = 512}, 512, 511, 1, -ENOSPC,
               "full:image has no room for an image: it has 511 bytes");
    check_open(&(struct image_layout){.cluster_size = 1024}, 512, 8192, 4096, -EINVAL,
               "clusters of 1024 bytes are smaller than the blocks of full:image, which have 4096; "
               "use -o cluster_size=4096 or more");
    check_open(&(struct image_layout){.cluster_size = 512, .backing = name}, 512, 8192, 1, -EINVAL,
               "the name of the backing file does not fit into a cluster of 512 bytes");
}

static int do_one(struct writing *writing, enum blk_op op, uint64_t offset, uint64_t len,
                  const char *text)
{
    static unsigned char buf[4 * UNIT];
    struct desk_req req;

    desk_do(&writing->desk, &req, op, 0, offset, buf, len);
    desk_check_text(req.req.error.text, text);
    return req.req.status;
}

static void test_refused_requests(void **state)
{
    struct writing writing;

    (void)state;
    writing_init(&writing, &(struct image_layout){.cluster_size = UNIT}, 3 * UNIT + 7);
    assert_int_equal(writing_open(&writing, 1), 0);
    assert_int_equal(do_one(&writing, BLK_WRITE, 1, UNIT, "begin and end with clusters of 512"),
                     -EINVAL);
    assert_int_equal(do_one(&writing, BLK_WRITE, 0, UNIT + 1, "begin and end with"), -EINVAL);
    assert_int_equal(do_one(&writing, BLK_ZERO, UNIT, 2 * UNIT + 6, "begin and end with"), -EINVAL);
    assert_int_equal(do_one(&writing, BLK_READ, 0, UNIT, "can be read when it is finished"),
                     -ENOTSUP);
    assert_int_equal(do_one(&writing, BLK_ZERO, UNIT, 2 * UNIT + 7, ""), 0);
    assert_int_equal(do_one(&writing, BLK_WRITE, 3 * (uint64_t)UNIT, 7, ""), 0);
    writing_release(&writing);
}

/* A file that is too short: the request that would need more says so, and what came before is not an image. */
static void test_no_space(void **state)
{
    (void)state;
    for (unsigned compress = 0; compress < 2; compress++) {
        struct image_layout layout = {.cluster_size = UNIT, .compress = compress};
        bool enough = false;

        for (uint64_t room = 1; !enough; room++) {
            struct writing writing;

            writing_init(&writing, &layout, 40 * UNIT);
            fake_disk_release(&writing.disk);
            fake_disk_init(&writing.disk, &writing.desk.fake, room * UNIT, 0);
            assert_int_equal(writing_open(&writing, 1), 0);
            writing_submit(&writing, 0, BLK_WRITE, 0, 20 * UNIT, 2);
            writing_submit(&writing, 0, BLK_WRITE, 20 * UNIT, 20 * UNIT, 3);
            writing_durable(&writing);
            enough = writing_finish(&writing) == 0;
            if (enough) {
                writing_check(&writing);
                assert_true(room <= image_make_bound(&writing.layout, 40 * UNIT) / UNIT);
            } else {
                assert_int_equal(writing.status, -ENOSPC);
                desk_check_text(writing.error, "the image needs more than the");
                assert_false(qcow2_check_magic(writing.disk.written));
            }
            writing_release(&writing);
        }
    }
}

/* ---- What was there before -------------------------------------------------------------------- */

/* A LUN with an image on it, and anything else: the magic goes first, and it keeps its size. */
static void test_bare(void **state)
{
    static const struct image_layout layouts[] = {
        {.cluster_size = 4096},
        {.cluster_size = 4096, .compress = true},
        {.cluster_size = 16384, .extended_l2 = true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct writing writing;
        uint64_t room = 1 << 20;

        writing_init(&writing, &layouts[i], 300000);
        fake_disk_release(&writing.disk);
        fake_disk_init(&writing.disk, &writing.desk.fake, room, 0);
        fake_disk_fill(&writing.disk, 9);
        memcpy(writing.disk.durable, "QFI\xfb", 4);
        memcpy(writing.disk.written, "QFI\xfb", 4);
        writing.disk.limits.align = 512;
        writing.disk.caps = BLK_BARE;
        writing.incomplete = true;
        assert_int_equal(writing_open(&writing, 1), 0);
        assert_false(qcow2_check_magic(writing.disk.durable));
        writing.incomplete = false;
        writing_write(&writing, 0, 16384 * 3, 2);
        writing_write(&writing, 16384 * 10, 300000 - 16384 * 10, 3);
        assert_int_equal(writing_finish(&writing), 0);
        assert_int_equal(writing.disk.size, room);
        writing_check(&writing);
        writing_release(&writing);
    }
}

/* ---- Packs ------------------------------------------------------------------------------------ */

/* What becomes smaller waits for a push, and goes together, durably if a part of it has to be. */
static void test_push(void **state)
{
    static unsigned char bytes[2][4096];
    struct desk_req reqs[2];
    struct writing writing;

    (void)state;
    writing_init(&writing, &(struct image_layout){.cluster_size = 4096, .compress = true},
                 4096 * 10);
    writing.disk.caps = BLK_CAN_FUA;
    assert_int_equal(writing_open(&writing, 1), 0);
    writing.disk.logging = true;
    for (unsigned i = 0; i < 2; i++) {
        writing_pattern(bytes[i], 4096, 2);
        desk_submit(&writing.desk, &reqs[i], BLK_WRITE, i ? BLK_FUA : 0, 4096 * (5 - i), bytes[i],
                    4096);
    }
    fake_settle(&writing.desk.fake);
    assert_int_equal(writing.desk.fake.pending_count, 0);
    blk_push(writing.desk.dev);
    fake_finish(&writing.desk.fake);
    fake_disk_check_commands(&writing.disk, "WRITE 4k+512 fua");
    assert_int_equal(reqs[0].done + reqs[1].done, 2);
    assert_true(reqs[0].req.durable && reqs[1].req.durable);
    blk_push(writing.desk.dev);
    fake_finish(&writing.desk.fake);
    writing_release(&writing);
}

/* More than all packs can hold: the rest waits until one is back, and one push was enough for it. */
static void test_packs_are_out(void **state)
{
    struct writing writing;

    (void)state;
    writing_init(&writing, &(struct image_layout){.cluster_size = 512, .compress = true}, 16 << 20);
    writing.disk.limits.max_write = 512 << 10; /* 2048 clusters to a pack at most */
    assert_int_equal(writing_open(&writing, 1), 0);
    writing_submit(&writing, 0, BLK_WRITE, 0, 6 << 20, 2);
    writing_submit(&writing, 0, BLK_WRITE, 6 << 20, 4 << 20, 4);
    fake_settle(&writing.desk.fake);
    assert_true(((struct qcow2_writer *)writing.desk.dev)->stalled != NULL);
    blk_push(writing.desk.dev);
    fake_finish(&writing.desk.fake);
    assert_false(writing.reqs[0].busy);
    assert_false(writing.reqs[1].busy);
    writing_durable(&writing);
    assert_int_equal(writing_finish(&writing), 0);
    writing_check(&writing);
    writing_release(&writing);
}

/* Whatever waits ends when the device is cancelled. */
static void test_cancel(void **state)
{
    (void)state;
    for (unsigned push = 0; push < 2; push++) {
        struct writing writing;

        writing_init(&writing, &(struct image_layout){.cluster_size = 512, .compress = true},
                     16 << 20);
        assert_int_equal(writing_open(&writing, 1), 0);
        writing_submit(&writing, 0, BLK_WRITE, 0, push ? 6 << 20 : 512, 2);
        writing_submit(&writing, 0, BLK_WRITE, 6 << 20, 512, 2);
        if (push)
            blk_push(writing.desk.dev);
        blk_cancel_all(writing.desk.dev);
        fake_finish(&writing.desk.fake);
        for (unsigned i = 0; i < 2; i++) {
            assert_false(writing.reqs[i].busy);
            assert_int_equal(writing.reqs[i].req.status, -ECANCELED);
        }
        writing_release(&writing);
    }
}

/* ---- Tables ----------------------------------------------------------------------------------- */

static void begin(struct writing *writing, unsigned tables_in_memory, unsigned lanes)
{
    writing_init(writing, &(struct image_layout){.cluster_size = UNIT}, TABLE * 40);
    writing->table_bytes = (uint64_t)UNIT * tables_in_memory;
    writing->disk.caps = BLK_CAN_FUA;
    writing->disk.write_through = true;
    assert_int_equal(writing_open(writing, lanes), 0);
}

static void write_table(struct writing *writing, unsigned lane, unsigned table, unsigned cluster)
{
    writing_submit(writing, lane, BLK_WRITE, TABLE * table + (uint64_t)UNIT * cluster, UNIT,
                   table + 1);
    fake_settle(&writing->desk.fake);
}

static void finish(struct writing *writing)
{
    writing_durable(writing);
    assert_int_equal(writing_finish(writing), 0);
    writing_check(writing);
    writing_release(writing);
}

/* A table that is on its way is not sent again, though what came since has become the oldest. */
static void test_twin(void **state)
{
    struct writing writing;
    const struct qcow2_fills *fills;

    (void)state;
    begin(&writing, 16, 1);
    for (unsigned table = 0; table <= 12; table++)
        write_table(&writing, 0, table, 0);
    write_table(&writing, 0, 0, 1); /* 0 to 3 are on their way, and 0 is filled anew */
    for (unsigned table = 4; table <= 12; table++)
        write_table(&writing, 0, table, 1);
    for (unsigned table = 13; table <= 16; table++)
        write_table(&writing, 0, table, 1);
    fills = &qcow2_writer_of(writing.desk.dev)->core->fills;
    assert_ptr_equal(qcow2_fills_find(fills, 0, false), fills->oldest);
    assert_non_null(qcow2_fills_find(fills, 0, true));
    assert_non_null(qcow2_fills_find(fills, 4, true));
    finish(&writing);
}

/* Where too many tables are on their way, a request waits for one, and only the lane's own. */
static void test_room(void **state)
{
    struct writing writing;
    struct desk_req flush;

    (void)state;
    begin(&writing, 2, 1);
    for (unsigned table = 0; table < 6; table++)
        write_table(&writing, 0, table, 0);
    assert_in_range(writing.desk.fake.pending_count, 4, 5); /* 3 writes and 1 or 2 tables */
    desk_submit(&writing.desk, &flush, BLK_FLUSH, 0, 0, NULL, 0);
    fake_finish(&writing.desk.fake);
    assert_int_equal(flush.done, 1);
    finish(&writing);
}

/* Tables of a lane that is idle are still on their way when the other one finishes the image. */
static void test_finish_waits(void **state)
{
    struct writing writing;
    struct desk_task task;
    struct fake *fake = &writing.desk.fake;

    (void)state;
    begin(&writing, 4, 2);
    for (unsigned table = 0; table < 5; table++)
        write_table(&writing, 1, table, 0);
    /* All but the table, which was the last to be submitted. */
    while (fake->pending_count > 1) {
        unsigned which = 0;

        while (fake->pending[which].req->flags & BLK_FUA)
            which++;
        fake_complete(fake, which);
        fake_settle(fake);
    }
    assert_int_equal(fake->pending_count, 1);
    blk_finish(writing.desk.dev, desk_task(&task));
    fake_settle(fake);
    assert_int_equal(fake->pending_count, 1);
    fake_finish(fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
    writing_check(&writing);
    writing_release(&writing);
}

/* At any moment of the end: it comes to one, and there is no image, or a right one. */
static void test_cancel_finish(void **state)
{
    bool cancelled = true;

    (void)state;
    for (unsigned when = 0; cancelled; when++) {
        struct writing writing;
        struct desk_task task;

        begin(&writing, 16, 1);
        for (unsigned table = 0; table < 20; table++)
            write_table(&writing, 0, table, table);
        writing_durable(&writing);
        blk_finish(writing.desk.dev, desk_task(&task));
        fake_settle(&writing.desk.fake);
        for (unsigned i = 0; i < when && task.done == 0; i++)
            desk_one(&writing.desk);
        cancelled = task.done == 0;
        blk_cancel_all(writing.desk.dev);
        fake_finish(&writing.desk.fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, cancelled ? -ECANCELED : 0);
        if (!cancelled || qcow2_check_magic(writing.disk.durable))
            writing_check(&writing);
        writing_release(&writing);
    }
}

/* A lane that is closed sees to its tables first; and so does one that is looked at. */
static void test_close_waits(void **state)
{
    (void)state;
    for (unsigned look = 0; look < 2; look++) {
        struct writing writing;
        struct desk_task task;
        struct fake *fake = &writing.desk.fake;

        begin(&writing, 4, 2);
        for (unsigned table = 0; table < 5; table++)
            write_table(&writing, 1, table, 0);
        while (writing.reqs[4].busy || writing.reqs[0].busy) {
            unsigned which = 0;

            while (fake->pending[which].req->flags & BLK_FUA)
                which++;
            fake_complete(fake, which);
            fake_settle(fake);
        }
        if (look) {
            blk_recheck(writing.lanes[1], desk_task(&task));
        } else {
            blk_close(writing.lanes[1], desk_task(&task));
            writing.lanes[1] = NULL;
        }
        fake_settle(fake);
        assert_int_equal(fake->pending_count, 1);
        while (task.done == 0) {
            fake_finish(fake);
            if (task.done == 0)
                fake_pass_time(fake, NULL, NULL);
        }
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, 0);
        assert_int_equal(writing_finish(&writing), 0);
        writing_check(&writing);
        writing_release(&writing);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like),
        cmocka_unit_test(test_refused_images),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_push),
        cmocka_unit_test(test_packs_are_out),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_finish_waits),
        cmocka_unit_test(test_close_waits),
        cmocka_unit_test(test_cancel_finish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
