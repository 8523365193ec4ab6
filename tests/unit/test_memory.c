/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* null:, ram: and random: tell where their data is, and ram: gives back what is unmapped. */
#include "desk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/units.h>

#define MAX_EXTENTS 64

/* A device of a real driver on the fake world's loop. */
struct place {
    struct desk desk;
    struct url url;
    struct blk_extent list[MAX_EXTENTS];
    struct blk_extents extents;
};

static void place_init(struct place *place, const char *text, bool writable)
{
    struct blk_open_args args = {.url = &place->url, .writable = writable};
    struct blk_error error;
    struct desk_task task;

    memset(place, 0, sizeof(*place));
    desk_init(&place->desk, 1);
    assert_int_equal(url_parse(text, &place->url, &error), 0);
    place->desk.dev = blk_open(place->desk.fake.loop, &args, desk_task(&task));
    assert_non_null(place->desk.dev);
    fake_finish(&place->desk.fake);
    assert_int_equal(task.task.status, 0);
}

static void place_release(struct place *place)
{
    desk_release(&place->desk);
    url_release(&place->url);
}

static void ask_extents(struct place *place, struct blk_dev *dev, uint64_t offset, uint64_t len,
                        size_t capacity)
{
    struct desk_req req;

    place->extents = (struct blk_extents){place->list, capacity, 0};
    desk_prepare(&place->desk, &req, BLK_EXTENTS, 0, offset, NULL, len);
    req.req.extents = &place->extents;
    blk_submit(dev, &req.req);
    fake_finish(&place->desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
}

static void check_one(const char *text, uint64_t size, enum blk_kind kind)
{
    struct place place;

    place_init(&place, text, false);
    ask_extents(&place, place.desk.dev, 100, size - 200, 1);
    assert_int_equal(place.extents.count, 1);
    assert_int_equal(place.list[0].offset, 100);
    assert_int_equal(place.list[0].len, size - 200);
    assert_int_equal(place.list[0].kind, kind);
    assert_true(place.list[0].host_offset == BLK_NO_OFFSET);
    place_release(&place);
}

static void test_one_kind(void **state)
{
    (void)state;
    check_one("null:1G", GIB, BLK_ZEROS);
    check_one("random:1G", GIB, BLK_DATA);
    check_one("ram:1G", GIB, BLK_ZEROS);
    check_one("ram:100000", 100000, BLK_ZEROS);
}

/* ---- ram: against a model --------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* What is written makes its pages data; what is unmapped or discarded makes whole pages zeros. */
static void model_pages(bool *pages, uint64_t page, enum blk_op op, unsigned flags, uint64_t offset,
                        uint64_t len)
{
    uint64_t end = offset + len;

    for (uint64_t i = offset / page; i * page < end; i++) {
        bool whole = i * page >= offset && (i + 1) * page <= end;

        if (op == BLK_WRITE)
            pages[i] = true;
        else if (whole && (op == BLK_DISCARD || (flags & BLK_MAY_UNMAP)))
            pages[i] = false;
    }
}

static void model_bytes(unsigned char *bytes, uint64_t page, enum blk_op op, const void *buf,
                        uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len;

    if (op == BLK_DISCARD) { /* which ram: does exactly */
        offset = (offset + page - 1) / page * page;
        end = end / page * page;
    }
    if (op == BLK_WRITE)
        memcpy(bytes + offset, buf, len);
    else if (offset < end)
        memset(bytes + offset, 0, end - offset);
}

/* Exactly, in as many extents as there are runs. */
static void check_pages(struct place *place, struct blk_dev *dev, const bool *pages, uint64_t page,
                        uint64_t offset, uint64_t len, size_t capacity)
{
    uint64_t at = offset;

    ask_extents(place, dev, offset, len, capacity);
    for (size_t i = 0; i < place->extents.count; i++) {
        const struct blk_extent *extent = &place->list[i];

        assert_int_equal(extent->offset, at);
        at += extent->len;
        for (uint64_t p = extent->offset / page; p * page < at; p++)
            assert_int_equal(extent->kind, pages[p] ? BLK_DATA : BLK_ZEROS);
        if (i > 0)
            assert_int_not_equal(extent->kind, place->list[i - 1].kind);
    }
    assert_true(at == offset + len || place->extents.count == capacity);
}

static void test_ram(void **state)
{
    static const enum blk_op ops[] = {BLK_WRITE, BLK_ZERO, BLK_ZERO, BLK_DISCARD};
    uint64_t seed = 20261121, page = (uint64_t)sysconf(_SC_PAGESIZE), size = 200 * page + 100;
    unsigned char *model = calloc(1, size), *buf = malloc(size);
    bool *pages = calloc(size / page + 1, sizeof(*pages));
    struct blk_dev *clone;
    struct desk_task task;
    struct place place;
    char text[40];

    (void)state;
    print_message("seed %" PRIu64 "\n", seed);
    snprintf(text, sizeof(text), "ram:%" PRIu64, size);
    place_init(&place, text, true);
    clone = desk_clone(&place.desk, 1, &task);
    fake_finish(&place.desk.fake);
    assert_int_equal(task.task.status, 0);
    for (unsigned i = 0; i < 2000; i++) {
        enum blk_op op = ops[next_random(&seed) % 4];
        unsigned flags = next_random(&seed) % 2 && op == BLK_ZERO ? BLK_MAY_UNMAP : 0;
        uint64_t offset = next_random(&seed) % size;
        uint64_t len = 1 + next_random(&seed) % min_u64(size - offset, 30 * page);
        struct desk_req req;

        memset(buf, (int)(1 + i % 255), len);
        assert_int_equal(desk_do(&place.desk, &req, op, flags, offset, buf, len), 0);
        model_bytes(model, page, op, buf, offset, len);
        model_pages(pages, page, op, flags, offset, len);
        /* The clone sees the same. */
        check_pages(&place, i % 2 ? clone : place.desk.dev, pages, page, offset, size - offset,
                    1 + next_random(&seed) % MAX_EXTENTS);
        if (i % 50 == 0) {
            assert_int_equal(desk_do(&place.desk, &req, BLK_READ, 0, 0, buf, size), 0);
            assert_memory_equal(buf, model, size);
        }
    }
    blk_close(clone, desk_task(&task));
    fake_finish(&place.desk.fake);
    assert_int_equal(task.done, 1);
    place_release(&place);
    free(pages);
    free(model);
    free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_kind),
        cmocka_unit_test(test_ram),
    };

    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
