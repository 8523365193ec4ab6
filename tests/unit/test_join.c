/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Joins over fake disks: the bytes of an array, the requests of the parts, their errors and their lives. */
#include "row.h"
#include "schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void fill(unsigned char *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (unsigned char)((i + 1) * 31 + seed);
}

/* ---- Against an array ------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static void random_row(struct row *row, uint64_t *seed, bool writable)
{
    unsigned disks = (unsigned)(1 + next_random(seed) % 3);

    row_init(row);
    for (unsigned i = 0; i < disks; i++) {
        struct fake_disk *disk = row_disk(row, 1000 + next_random(seed) % 9000);
        struct blk_limits *limits = &disk->limits;
        uint64_t offset, len, hole;

        limits->align = 1U << next_random(seed) % 11;
        limits->mem_align = 1U << next_random(seed) % 6;
        limits->max_read = limits->align * (uint32_t)(1 + next_random(seed) % 5);
        limits->max_write = limits->align * (uint32_t)(1 + next_random(seed) % 5);
        limits->max_zero = limits->align * (1 + next_random(seed) % 5);
        limits->unmap_granule = limits->align * (next_random(seed) % 4);
        if (limits->unmap_granule > 0)
            limits->unmap_phase =
                limits->align * (next_random(seed) % (limits->unmap_granule / limits->align));
        limits->max_depth = (uint32_t)(1 + next_random(seed) % 4);
        disk->caps = (unsigned)(next_random(seed) % 8);
        disk->caps |= disk->caps & BLK_CAN_ZERO ? BLK_CAN_UNMAP : 0;
        disk->extents_reach = next_random(seed) % 3000;
        disk->extents_cut = next_random(seed) % 700;
        disk->logging = false;
        hole = next_random(seed) % disk->size;
        fake_disk_set(disk, hole, 1 + next_random(seed) % (disk->size - hole), BLK_ZEROS);
        offset = next_random(seed) % disk->size;
        len = 1 + next_random(seed) % (disk->size - offset);
        row_part(row, i, writable, offset, len);
        if (!writable && next_random(seed) % 2)
            row_zeros(row, 1 + next_random(seed) % 3000);
    }
    assert_int_equal(row_join(row), 0);
}

static void load_model(const struct row *row, unsigned char *model)
{
    unsigned disk = 0;

    for (size_t i = 0; i < row->count; i++) {
        const struct join_part *part = &row->parts[i];

        if (part->dev)
            memcpy(model, row->disks[disk++].written + part->offset, part->len);
        else
            memset(model, 0, part->len);
        model += part->len;
    }
}

/* What an answer says to be zeros is. */
static void check_extents(const struct blk_req *req, const unsigned char *model)
{
    const struct blk_extents *extents = req->extents;
    uint64_t at = req->offset;

    for (size_t i = 0; i < extents->count; i++) {
        const struct blk_extent *extent = &extents->list[i];

        assert_int_equal(extent->offset, at);
        at += extent->len;
        for (uint64_t byte = extent->offset; extent->kind == BLK_ZEROS && byte < at; byte++)
            assert_int_equal(model[byte], 0);
    }
    assert_true(at > req->offset && at <= req->offset + req->len);
}

#define ROUND 6

/* Requests side by side that overlap nowhere, in any order of completion. */
static void random_round(struct row *row, uint64_t *seed, unsigned char *model, uint64_t size,
                         bool writable)
{
    static unsigned char bufs[ROUND][40000];
    struct blk_extent lists[ROUND][5];
    struct blk_extents extents[ROUND];
    struct desk_req reqs[ROUND];
    unsigned count = 0;
    uint64_t at = 0;

    while (count < ROUND && at < size) {
        static const enum blk_op ops[] = {BLK_READ, BLK_EXTENTS, BLK_FLUSH, BLK_WRITE, BLK_ZERO};
        enum blk_op op = ops[next_random(seed) % (writable ? 5 : 3)];
        uint64_t offset = at + next_random(seed) % (size - at);
        uint64_t len = 1 + next_random(seed) % (size - offset);
        unsigned flags = op == BLK_ZERO ? (unsigned)(next_random(seed) % 4) : 0;

        fill(bufs[count], sizeof(bufs[count]), (unsigned)*seed);
        if (op == BLK_WRITE)
            memcpy(model + offset, bufs[count], len);
        else if (op == BLK_ZERO)
            memset(model + offset, 0, len);
        desk_prepare(&row->desk, &reqs[count], op, flags, offset, bufs[count], len);
        extents[count] = (struct blk_extents){lists[count], 1 + next_random(seed) % 5, 0};
        reqs[count].req.extents = &extents[count];
        blk_submit(row->desk.dev, &reqs[count].req);
        assert_int_equal(reqs[count].done, 0);
        at = offset + len;
        count++;
    }
    for (fake_settle(&row->desk.fake); row->desk.fake.pending_count > 0;
         fake_settle(&row->desk.fake))
        fake_complete(&row->desk.fake,
                      (unsigned)(next_random(seed) % row->desk.fake.pending_count));
    for (unsigned i = 0; i < count; i++) {
        const struct blk_req *req = &reqs[i].req;

        assert_int_equal(reqs[i].done, 1);
        assert_int_equal(req->status, 0);
        if (req->op == BLK_READ)
            assert_memory_equal(bufs[i], model + req->offset, req->len);
        if (req->op == BLK_READ)
            assert_int_equal(req->got, req->len);
        if (req->op == BLK_EXTENTS)
            check_extents(req, model);
        if (req->flags & BLK_FUA)
            assert_true(req->durable);
    }
}

static void test_array(void **state)
{
    static unsigned char model[50000], now[50000];
    uint64_t seed = 20261121;

    (void)state;
    print_message("seed %" PRIu64 "\n", seed);
    for (unsigned i = 0; i < 400; i++) {
        bool writable = i % 2;
        struct row row;
        uint64_t size;

        random_row(&row, &seed, writable);
        size = row.desk.dev->size;
        load_model(&row, model);
        for (unsigned round = 0; round < 8; round++)
            random_round(&row, &seed, model, size, writable);
        load_model(&row, now);
        assert_memory_equal(now, model, size);
        row_release(&row);
    }
}

/* ---- What the parts are asked ----------------------------------------------------------------- */

/* A range of one disk: what is asked for is cut as if the disk had been asked. */
static void test_nothing_is_cut_twice(void **state)
{
    unsigned char buf[16384];
    struct desk_req req;
    struct row row;

    (void)state;
    for (uint64_t offset = 512; offset <= 4608; offset += 4096) {
        row_init(&row);
        row_disk(&row, 65536)->limits = (struct blk_limits){.align = 512,
                                                            .mem_align = 1,
                                                            .max_read = 8192,
                                                            .max_write = 4096,
                                                            .max_zero = 8192,
                                                            .max_discard = 8192,
                                                            .unmap_granule = 2048,
                                                            .unmap_phase = 1024,
                                                            .max_depth = 8};
        row_part(&row, 0, true, offset, 32768);
        assert_int_equal(row_join(&row), 0);
        assert_int_equal(row.desk.dev->limits.align, 512);
        assert_int_equal(row.desk.dev->limits.max_read, 8192);
        assert_int_equal(row.desk.dev->limits.max_zero, 8192);
        assert_int_equal(row.desk.dev->limits.unmap_granule, 2048);
        assert_int_equal(row.desk.dev->limits.unmap_phase, 512);
        assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 8192 - offset, buf, 8192), 0);
        fake_disk_check_commands(&row.disks[0], "READ 8k+8k");
        assert_int_equal(desk_do(&row.desk, &req, BLK_WRITE, 0, 8192 - offset, buf, 8192), 0);
        fake_disk_check_commands(&row.disks[0], "WRITE 8k+4k; WRITE 12k+4k");
        assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 8092 - offset, buf, 200), 0);
        fake_disk_check_commands(&row.disks[0], "READ 7680+512; READ 8k+512");
        assert_int_equal(
            desk_do(&row.desk, &req, BLK_ZERO, BLK_MAY_UNMAP | BLK_FUA, 8192 - offset, NULL, 4096),
            0);
        fake_disk_check_commands(&row.disks[0], "ZERO 8k+1k; ZERO 9k+2k unmap; ZERO 11k+1k; FLUSH");
        assert_int_equal(desk_do(&row.desk, &req, BLK_DISCARD, 0, 8192 - offset, NULL, 4096), 0);
        fake_disk_check_commands(&row.disks[0], "DISCARD 9k+2k");
        row_release(&row);
    }
}

/* Unless what is above wants its requests short: they reach a part as they are then. */
static void test_capped(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    blk_cap(row.desk.dev, 3072, 1024);
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 0, buf, 8192), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_WRITE, 0, 3584, buf, 1024), 0);
    fake_disk_check_commands(&row.disks[0], "READ 4k+3k; READ 7k+1k; WRITE 7680+512");
    fake_disk_check_commands(&row.disks[1], "READ 0+2k; READ 2k+2k; WRITE 0+512");
    row_release(&row);
}

/* Requests that lie across parts, and those that lie in one. */
static void test_across(void **state)
{
    unsigned char buf[8192];
    struct blk_extent list[4];
    struct blk_extents extents = {list, 4, 0};
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    fake_disk_set(&row.disks[0], 6144, 2048, BLK_ZEROS);
    fake_disk_set(&row.disks[1], 0, 8192, BLK_ZEROS);
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 0, buf, 8192), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_WRITE, 0, 3584, buf, 1024), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_ZERO, 0, 4096, NULL, 512), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_DISCARD, 0, 3584, NULL, 1024), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_FLUSH, 0, 0, NULL, 0), 0);
    fake_disk_check_commands(&row.disks[0], "READ 4k+4k; WRITE 7680+512; DISCARD 7680+512; FLUSH");
    fake_disk_check_commands(&row.disks[1],
                             "READ 0+4k; WRITE 0+512; ZERO 0+512; DISCARD 0+512; FLUSH");
    /* The answer ends with the part, though the next begins with the same. */
    desk_prepare(&row.desk, &req, BLK_EXTENTS, 0, 100, NULL, 8000);
    req.req.extents = &extents;
    blk_submit(row.desk.dev, &req.req);
    fake_finish(&row.desk.fake);
    assert_int_equal(extents.count, 2);
    assert_int_equal(list[0].offset, 100);
    assert_int_equal(list[0].len, 1948);
    assert_int_equal(list[0].kind, BLK_DATA);
    assert_int_equal(list[1].offset, 2048);
    assert_int_equal(list[1].len, 2048);
    assert_int_equal(list[1].kind, BLK_ZEROS);
    row_release(&row);
}

/* A capability that is taken back below is gone above too. */
static void test_refused(void **state)
{
    unsigned char expected[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_init(&row);
    row_disk(&row, 8192)->refuses = BLK_CAN_ZERO | BLK_CAN_DISCARD;
    row_part(&row, 0, true, 0, 8192);
    assert_int_equal(row_join(&row), 0);
    assert_int_equal(row.desk.dev->caps, ROW_ALL);
    memcpy(expected, row.disks[0].written, 8192);
    memset(expected + 512, 0, 1024);
    assert_int_equal(desk_do(&row.desk, &req, BLK_ZERO, 0, 512, NULL, 1024), 0);
    assert_memory_equal(row.disks[0].written, expected, 8192);
    assert_int_equal(row.desk.dev->caps, BLK_CAN_EXTENTS | BLK_CAN_DISCARD);
    assert_int_equal(desk_do(&row.desk, &req, BLK_DISCARD, 0, 512, NULL, 1024), -ENOTSUP);
    assert_string_equal(req.req.error.text,
                        "discarding full:a at offset 512: the fake cannot do that after all");
    assert_int_equal(desk_do(&row.desk, &req, BLK_DISCARD, 0, 512, NULL, 1024), -ENOTSUP);
    assert_string_equal(req.req.error.text,
                        "discarding all at offset 512: its space cannot be freed");
    row_release(&row);
}

/* ---- Errors ----------------------------------------------------------------------------------- */

/* One sentence, which is the part's; final, but for what the medium has lost. */
static void test_errors(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    for (int kind = BLK_FATAL; kind <= BLK_LOST; kind++) {
        row_of_two(&row);
        desk_submit(&row.desk, &req, BLK_READ, 0, 4000, buf, 4096);
        fake_settle(&row.desk.fake);
        row.desk.fake.fault.bad_offset = 0;
        fake_fail(&row.desk.fake, row.desk.fake.pending_count - 1, EIO, (enum blk_retry)kind,
                  false);
        fake_finish(&row.desk.fake);
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, -EIO);
        assert_int_equal(req.req.error.retry, kind == BLK_MEDIUM ? BLK_MEDIUM : BLK_FATAL);
        assert_true(req.req.bad_offset == BLK_NO_OFFSET);
        assert_string_equal(req.req.error.text, "reading full:b at offset 0: the fake says no");
        row_release(&row);
    }
    /* Its own are its own. */
    row_of_two(&row);
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 8000, buf, 200), -EINVAL);
    assert_string_equal(req.req.error.text, "reading all at offset 8000: 200 bytes lie outside of "
                                            "the device, which has 8192");
    row_release(&row);
}

/* Where the medium has failed, in the join's terms; the sentence names the place on the device. */
static void test_medium(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    row.disks[0].bad_from = 7000;
    row.disks[0].bad_to = 7001;
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 0, buf, 8192), -EIO);
    assert_int_equal(req.req.error.retry, BLK_MEDIUM);
    assert_int_equal(req.req.bad_offset, 7000 - 4096);
    assert_string_equal(req.req.error.text,
                        "reading full:a at offset 7000: the fake cannot read that");
    row.disks[0].bad_to = 0;
    row.disks[1].bad_from = 100;
    row.disks[1].bad_to = 101;
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 4000, buf, 4000), -EIO);
    assert_int_equal(req.req.bad_offset, 4096 + 100);
    row_release(&row);
}

/* A stream's end in the first part is the end, whatever the second one has delivered. */
static void test_short(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    desk_submit(&row.desk, &req, BLK_READ, 0, 1000, buf, 5000);
    fake_settle(&row.desk.fake);
    fake_complete(&row.desk.fake, row.desk.fake.pending_count - 1);
    while (row.desk.fake.pending_count > 0) {
        row.desk.fake.fault = (struct fake_fault){.number = row.desk.fake.pending[0].number};
        desk_one(&row.desk);
    }
    assert_int_equal(req.req.status, 0);
    assert_true(req.req.got < 4096 - 1000);
    row_release(&row);
}

/* Each operation fails once, by each class, in each order; what is asked for then works. */
static void test_every_fault(void **state)
{
    static const enum blk_op ops[] = {BLK_READ, BLK_WRITE, BLK_ZERO, BLK_FLUSH, BLK_DISCARD};
    unsigned hits = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(ops); i++) {
        for (int kind = BLK_FATAL; kind <= BLK_LOST; kind++) {
            bool hit = true;

            for (unsigned number = 1; hit; number++) {
                struct odometer odometer = {.sample = 30};

                hit = false;
                do {
                    unsigned char buf[8192] = {0};
                    struct desk_req req;
                    struct row row;
                    bool met;

                    row_of_two(&row);
                    row.desk.fake.fault =
                        (struct fake_fault){.number = row.desk.fake.submitted + number,
                                            .code = ENOSPC,
                                            .retry = (enum blk_retry)kind};
                    desk_submit(&row.desk, &req, ops[i], 0, 700, buf, 7000);
                    for (fake_settle(&row.desk.fake); row.desk.fake.pending_count > 0;
                         fake_settle(&row.desk.fake))
                        fake_complete(&row.desk.fake,
                                      odometer_choose(&odometer, row.desk.fake.pending_count));
                    met = atomic_load(&row.desk.fake.fault_hit);
                    assert_int_equal(req.done, 1);
                    assert_int_equal(req.req.status, met ? -ENOSPC : 0);
                    row_release(&row);
                    hit = hit || met;
                } while (odometer_next(&odometer));
                hits += hit;
            }
        }
    }
    assert_true(hits > 50);
}

/* Below, a lost session is built again; above, nothing is known of that. */
static void test_lost_below(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_init(&row);
    desk_repeat(&row.desk);
    row_disk(&row, 8192);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 0, 8192);
    row_part(&row, 1, true, 0, 8192);
    assert_int_equal(row_join(&row), 0);
    desk_submit(&row.desk, &req, BLK_READ, 0, 4096, buf, 8192);
    fake_settle(&row.desk.fake);
    fake_disk_lose(&row.disks[1], false);
    desk_until(&row.desk, &req.done);
    assert_int_equal(req.req.status, 0);
    assert_memory_equal(buf, row.disks[0].written + 4096, 4096);
    assert_memory_equal(buf + 4096, row.disks[1].written, 4096);
    /* blk_hurry() reaches them. */
    desk_submit(&row.desk, &req, BLK_READ, 0, 4096, buf, 8192);
    fake_settle(&row.desk.fake);
    fake_fail(&row.desk.fake, 0, EBUSY, BLK_REPEAT, false);
    fake_finish(&row.desk.fake);
    assert_int_equal(req.done, 0);
    blk_hurry(row.desk.dev, 0);
    fake_finish(&row.desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -ECANCELED);
    row_release(&row);
}

static void test_cancel(void **state)
{
    bool ended = false;

    (void)state;
    for (unsigned when = 0; !ended; when++) {
        unsigned char buf[8192] = {0};
        struct desk_req req[2];
        unsigned completed = 0;
        struct row row;

        row_of_two(&row);
        desk_submit(&row.desk, &req[0], BLK_READ, 0, 0, buf, 4500);
        desk_submit(&row.desk, &req[1], BLK_WRITE, 0, 4600, buf, 100);
        for (fake_settle(&row.desk.fake); row.desk.fake.pending_count > 0 && completed < when;
             completed++)
            desk_one(&row.desk);
        ended = completed < when;
        blk_cancel_all(row.desk.dev);
        fake_finish(&row.desk.fake);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(req[i].done, 1);
            assert_true(req[i].req.status == 0 || req[i].req.status == -ECANCELED);
            assert_true(!ended || req[i].req.status == 0);
        }
        row_release(&row);
    }
}

/* ---- Epochs ----------------------------------------------------------------------------------- */

static uint64_t epoch_after(struct row *row, enum blk_op op, uint64_t offset, uint64_t len)
{
    unsigned char buf[8192] = {0};
    struct desk_req req;

    assert_int_equal(desk_do(&row->desk, &req, op, 0, offset, buf, len), 0);
    return req.req.epoch;
}

/* One part's pass through. */
static void test_epoch_of_one(void **state)
{
    struct row row;

    (void)state;
    row_init(&row);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 512, 4096);
    assert_int_equal(row_join(&row), 0);
    assert_int_equal(epoch_after(&row, BLK_WRITE, 0, 512), FAKE_FIRST_EPOCH);
    fake_disk_restart(&row.disks[0]);
    assert_int_equal(epoch_after(&row, BLK_FLUSH, 0, 0), FAKE_FIRST_EPOCH + 1);
    row_release(&row);
}

/* Of several: a write is covered by a FLUSH with the same epoch, unless a part has restarted between. */
static void test_epochs_of_several(void **state)
{
    uint64_t first, second;
    struct row row;

    (void)state;
    row_of_two(&row);
    first = epoch_after(&row, BLK_WRITE, 0, 512);
    assert_true(first != BLK_NO_EPOCH);
    assert_true(epoch_after(&row, BLK_WRITE, 4096, 512) == first);
    assert_true(epoch_after(&row, BLK_WRITE, 0, 8192) == first);
    assert_true(epoch_after(&row, BLK_FLUSH, 0, 0) == first);
    for (unsigned i = 0; i < 2; i++) {
        fake_disk_restart(&row.disks[i]);
        assert_true(epoch_after(&row, BLK_FLUSH, 0, 0) != first);
        second = epoch_after(&row, BLK_WRITE, 0, 8192);
        assert_true(second != first && second != BLK_NO_EPOCH);
        assert_true(epoch_after(&row, BLK_FLUSH, 0, 0) == second);
        first = second;
    }
    fake_disk_restart(&row.disks[1]);
    assert_true(epoch_after(&row, BLK_WRITE, 0, 512) == first); /* to the other one */
    assert_true(epoch_after(&row, BLK_WRITE, 4096, 512) != first);
    row_release(&row);
}

/* A request across parts of which one restarts while it is under way: it has no epoch. */
static void test_epoch_across(void **state)
{
    unsigned char buf[8192] = {0};
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    assert_true(epoch_after(&row, BLK_WRITE, 0, 8192) != BLK_NO_EPOCH);
    desk_submit(&row.desk, &req, BLK_WRITE, 0, 0, buf, 8192);
    desk_one(&row.desk);
    fake_disk_restart(&row.disks[1]);
    fake_finish(&row.desk.fake);
    assert_int_equal(req.req.status, 0);
    assert_true(req.req.epoch == BLK_NO_EPOCH);
    row_release(&row);
}

/* Durable where both parts say so. */
static void test_durable_across(void **state)
{
    (void)state;
    for (unsigned durable = 0; durable < 4; durable++) {
        unsigned char buf[8192] = {0};
        struct desk_req req;
        struct row row;

        row_of_two(&row);
        row.disks[0].write_through = durable & 1;
        row.disks[1].write_through = durable & 2;
        assert_int_equal(desk_do(&row.desk, &req, BLK_WRITE, 0, 0, buf, 8192), 0);
        assert_int_equal(req.req.durable, durable == 3);
        row_release(&row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_array),
        cmocka_unit_test(test_nothing_is_cut_twice),
        cmocka_unit_test(test_capped),
        cmocka_unit_test(test_across),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_medium),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_lost_below),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_epoch_of_one),
        cmocka_unit_test(test_epochs_of_several),
        cmocka_unit_test(test_epoch_across),
        cmocka_unit_test(test_durable_across),
    };

    return cmocka_run_group_tests_name("join", tests, NULL, NULL);
}
