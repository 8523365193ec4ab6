/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks over small maps, a byte to a letter: '#' is data, '.' zeros, ',' unallocated. The fake device is
 * asked; what it answers is put in its mouth before the answer is delivered. */
#include "desk.h"
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/walk.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct field {
    struct desk desk;
    struct walk walk;
    const char *map;
    unsigned ready;    /* calls */
    unsigned requests; /* answered */
    bool inside;       /* walk_at() or walk_over() is running */
};

static void on_ready(struct walk *walk)
{
    struct field *field = walk->opaque;

    assert_false(field->inside);
    field->ready++;
}

static void field_init(struct field *field, const char *map, uint64_t size, uint64_t merge)
{
    memset(field, 0, sizeof(*field));
    desk_init(&field->desk, size);
    field->desk.disk.logging = false;
    field->desk.disk.caps = BLK_CAN_EXTENTS;
    desk_open(&field->desk, false);
    field->map = map;
    field->walk =
        (struct walk){.dev = field->desk.dev, .merge = merge, .ready = on_ready, .opaque = field};
    assert_int_equal(walk_init(&field->walk), 0);
}

static void field_release(struct field *field)
{
    walk_stop(&field->walk);
    fake_finish(&field->desk.fake);
    assert_false(walk_is_busy(&field->walk));
    walk_release(&field->walk);
    desk_release(&field->desk);
}

static void over(struct field *field, uint64_t from, uint64_t end)
{
    field->inside = true;
    walk_over(&field->walk, from, end);
    field->inside = false;
}

static bool at(struct field *field, uint64_t offset, struct walk_run *run)
{
    bool known;

    field->inside = true;
    known = walk_at(&field->walk, offset, run);
    field->inside = false;
    assert_true(!known || run->offset == offset);
    return known;
}

static void check_at(struct field *field, uint64_t offset, uint64_t end, bool zeros)
{
    struct walk_run run;

    assert_true(at(field, offset, &run));
    assert_int_equal(run.end, end);
    assert_int_equal(run.kind == WALK_ZEROS, zeros);
}

/* "#.," of the image itself, "=-" of the one behind it, "%" of the next. */
static enum blk_kind kind_of(char letter)
{
    return strchr("#=%", letter) ? BLK_DATA : letter == ',' ? BLK_UNALLOCATED : BLK_ZEROS;
}

static unsigned depth_of(char letter)
{
    return letter == '%' ? 2 : letter == '=' || letter == '-' ? 1 : 0;
}

/* Answers the request that is on its way with the first `len` bytes of what it asks for. split: an extent
 * for every byte. */
static void answer(struct field *field, uint64_t len, bool split)
{
    struct fake *fake = &field->desk.fake;
    struct blk_extents *extents;
    uint64_t offset;

    assert_int_equal(fake->pending_count, 1);
    assert_int_equal(fake->pending[0].req->op, BLK_EXTENTS);
    extents = fake->pending[0].req->extents;
    offset = fake->pending[0].req->offset;
    assert_true(len <= fake->pending[0].req->len);
    fake_complete(fake, 0);
    extents->count = 0;
    for (uint64_t at = offset; at < offset + len && extents->count < extents->capacity; at++) {
        struct blk_extent one = {
            .offset = at,
            .len = 1,
            .kind = kind_of(field->map[at]),
            .depth = depth_of(field->map[at]),
            .host_offset = BLK_NO_OFFSET,
        };
        struct blk_extent *last = at > offset ? &extents->list[extents->count - 1] : NULL;

        if (!split && last && one.kind == last->kind && one.depth == last->depth)
            last->len++;
        else
            extents->list[extents->count++] = one;
    }
    field->requests++;
    fake_settle(fake);
}

static bool is_pending(const struct field *field)
{
    return field->desk.fake.pending_count > 0;
}

static uint64_t asked(const struct field *field)
{
    return field->desk.fake.pending[0].req->len;
}

/* ---- However the answers are cut -------------------------------------------------------------- */

#define LETTERS 6

/* The rule, byte by byte. */
static void expect(const char *map, size_t from, size_t end, uint64_t merge, bool zeros[])
{
    for (size_t at = from, next; at < end; at = next) {
        bool zero = map[at] != '#';

        for (next = at; next < end && (map[next] != '#') == zero; next++)
            ;
        for (size_t i = at; i < next; i++)
            zeros[i] = zero && (next - at >= merge || next - at == end - from);
    }
}

/* Goes on as far as it can. Returns where it stands. */
static uint64_t advance(struct field *field, uint64_t offset, uint64_t end, const bool zeros[])
{
    struct walk_run run;

    while (offset < end && at(field, offset, &run)) {
        assert_true(run.end > offset && run.end <= end);
        assert_int_equal(run.open, run.end == walk_known(&field->walk) && run.end < end);
        for (uint64_t i = offset; i < run.end; i++)
            assert_int_equal(zeros[i], run.kind == WALK_ZEROS);
        offset = run.end;
    }
    return offset;
}

/* Not everything is kept back: of what is known, only zeros at its border that are too few yet. */
static void check_kept_back(const struct field *field, uint64_t offset, uint64_t known,
                            uint64_t from, uint64_t end, uint64_t merge)
{
    uint64_t tail = known;

    while (tail > from && field->map[tail - 1] != '#')
        tail--;
    assert_int_equal(offset, known < end && known - tail < merge ? tail : known);
}

static void walk_one(struct field *field, uint64_t from, uint64_t end, struct odometer *odometer)
{
    bool zeros[LETTERS], eager = odometer_choose(odometer, 2) == 0;
    bool split = odometer_choose(odometer, 2) == 0;
    uint64_t offset = from, known = from;

    expect(field->map, from, end, field->walk.merge, zeros);
    over(field, from, end);
    while (known < end) {
        uint64_t len = odometer_choose(odometer, (unsigned)(end - known)) + 1;
        unsigned ready = field->ready;

        assert_int_equal(asked(field), end - known);
        answer(field, len, split);
        assert_int_equal(field->ready, ready + 1);
        known += len;
        if (!eager)
            continue;
        offset = advance(field, offset, end, zeros);
        check_kept_back(field, offset, known, from, end, field->walk.merge);
    }
    assert_false(is_pending(field));
    assert_int_equal(advance(field, offset, end, zeros), end);
}

static void walk_map(const char *map, uint64_t merge)
{
    struct odometer odometer = {0};
    struct field field;

    field_init(&field, map, LETTERS, merge);
    do {
        walk_one(&field, 0, LETTERS, &odometer);
    } while (odometer_next(&odometer));
    do {
        walk_one(&field, 1, LETTERS - 1, &odometer);
    } while (odometer_next(&odometer));
    field_release(&field);
}

static void test_every_cut(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 1u << LETTERS; bits++) {
        char map[LETTERS + 1] = "";

        for (unsigned i = 0; i < LETTERS; i++)
            map[i] = bits & (1u << i) ? '#' : i % 2 ? '.' : ',';
        for (uint64_t merge = 0; merge <= LETTERS + 1; merge++)
            walk_map(map, merge);
    }
}

/* Whole runs, where one answer says it all. */
static void test_runs_are_whole(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..##.#...,,##.", 14, 3);
    over(&field, 0, 14);
    answer(&field, 14, true);
    check_at(&field, 0, 6, false);
    check_at(&field, 3, 6, false);
    check_at(&field, 6, 11, true);
    check_at(&field, 10, 11, true);
    check_at(&field, 11, 14, false);
    field_release(&field);
}

/* A walker that leaves out the beginning of a run, or all of it, changes nothing about what it is. */
static void test_leaving_out(void **state)
{
    struct walk_run run;
    struct field field;

    (void)state;
    field_init(&field, "##......####..##", 16, 4);
    over(&field, 0, 16);
    answer(&field, 5, false);
    assert_false(at(&field, 4, &run)); /* three so far */
    assert_false(at(&field, 5, &run));
    answer(&field, 2, false);
    check_at(&field, 6, 7, true); /* five: with those that were left out */
    answer(&field, 6, false);
    check_at(&field, 7, 8, true);
    assert_false(at(&field, 13, &run)); /* beyond what is known */
    answer(&field, 3, false);
    check_at(&field, 13, 16, false);
    field_release(&field);
}

/* ---- What both ends have ---------------------------------------------------------------------- */

/* All that is walked over, as letters: '#' data, '.' zeros, '=' the same. */
static void check_walk(const char *map, unsigned depth, uint64_t until, uint64_t merge,
                       const char *expected)
{
    uint64_t size = strlen(map), offset = 0;
    char letters[64] = "";
    struct walk_run run;
    struct field field;

    field_init(&field, map, size, merge);
    field.walk.same_depth = depth;
    field.walk.same_until = until;
    over(&field, 0, size);
    answer(&field, size, false);
    while (offset < size) {
        assert_true(at(&field, offset, &run));
        memset(letters + offset, "#.="[run.kind], run.end - offset);
        offset = run.end;
    }
    assert_string_equal(letters, expected);
    field_release(&field);
}

static void test_same(void **state)
{
    (void)state;
    check_walk("##==--..%%#=", 1, 12, 0, "##====..==#=");
    check_walk("##==--..%%#=", 2, 12, 0, "####....==##");
    /* The reference is shorter: what lies behind its end counts for what it is. */
    check_walk("##==--..%%#=", 1, 3, 0, "##=#....####");
    check_walk("##==--..%%#=", 1, 0, 0, "####....####");
    check_walk("===", 1, 1, 0, "=##");
    /* Short zeros are data, and what is the same stays what it is. */
    check_walk("==..==.##", 1, 9, 4, "==##==###");
    check_walk("#..==--..", 1, 9, 4, "###====##");
}

/* ---- The ring --------------------------------------------------------------------------------- */

#define MANY 5000

/* One letter at a time, and each answer is there before the next step: the walker waits once. */
static void test_asks_ahead(void **state)
{
    static char map[MANY + 1];
    unsigned waits = 0, before = 0;
    struct walk_run run;
    struct field field;

    (void)state;
    for (unsigned i = 0; i < MANY; i++)
        map[i] = i % 2 ? '.' : '#';
    field_init(&field, map, MANY, 0);
    over(&field, 0, MANY);
    for (uint64_t offset = 0; offset < MANY; offset++) {
        while (!at(&field, offset, &run)) {
            waits++;
            answer(&field, asked(&field), false);
        }
        assert_int_equal(run.end, offset + 1);
        assert_int_equal(run.kind == WALK_ZEROS, offset % 2 == 1);
        /* Bounded: never asked twice for one answer's worth of steps. */
        if (is_pending(&field)) {
            assert_true(field.requests == 1 || offset > before + 100);
            before = offset;
            answer(&field, asked(&field), false);
        }
    }
    assert_int_equal(waits, 1);
    assert_true(field.requests > MANY / 512 && field.requests <= MANY / 200);
    field_release(&field);
}

/* Any number of answers of one kind make one run, and the walker need not move for that. */
static void test_one_kind_takes_no_room(void **state)
{
    static char map[MANY + 1];
    struct field field;

    (void)state;
    memset(map, '.', MANY);
    field_init(&field, map, MANY, 0);
    over(&field, 0, MANY);
    while (is_pending(&field))
        answer(&field, 1, false);
    assert_int_equal(field.requests, MANY);
    check_at(&field, 0, MANY, true);
    field_release(&field);
}

/* The ring is filled to the last place, and then the capability goes. */
static void test_full_ring(void **state)
{
    static char map[MANY + 1];
    struct field field;

    (void)state;
    for (unsigned i = 0; i < MANY; i++)
        map[i] = i % 2 ? '.' : '#';
    field_init(&field, map, MANY, 0);
    over(&field, 0, MANY);
    for (unsigned i = 0; i < 256; i++)
        answer(&field, 1, false);
    answer(&field, 256, false);
    assert_false(is_pending(&field));
    field.desk.dev->caps = 0;
    for (uint64_t offset = 0; offset < 511; offset++)
        check_at(&field, offset, offset + 1, offset % 2 == 1);
    check_at(&field, 511, 512, true);
    check_at(&field, 512, MANY, false);
    field_release(&field);
}

/* ---- Beginning anew --------------------------------------------------------------------------- */

static void test_stale_answer(void **state)
{
    struct walk_run run;
    struct field field;

    (void)state;
    field_init(&field, "####....", 8, 0);
    over(&field, 0, 4);
    over(&field, 2, 5);
    over(&field, 4, 8);
    assert_true(walk_is_busy(&field.walk));
    assert_int_equal(asked(&field), 4);
    answer(&field, 4, false); /* of what the first wanted to know */
    assert_int_equal(field.ready, 1);
    assert_true(walk_is_busy(&field.walk));
    assert_false(at(&field, 4, &run));
    answer(&field, 4, false);
    assert_int_equal(field.ready, 2);
    check_at(&field, 4, 8, true);
    /* Backwards, and with nothing on its way. */
    over(&field, 0, 8);
    answer(&field, 8, false);
    check_at(&field, 0, 4, false);
    field_release(&field);
}

static void test_stale_error(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "####....", 8, 0);
    over(&field, 0, 4);
    over(&field, 4, 8);
    fake_fail(&field.desk.fake, 0, EIO, BLK_FATAL, false);
    fake_settle(&field.desk.fake);
    assert_int_equal(field.walk.error.code, 0);
    answer(&field, 4, false);
    check_at(&field, 4, 8, true);
    field_release(&field);
}

static void test_stop(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "####....", 8, 0);
    over(&field, 0, 8);
    answer(&field, 2, false);
    assert_true(walk_is_busy(&field.walk));
    walk_stop(&field.walk);
    assert_true(walk_is_busy(&field.walk));
    answer(&field, 2, false);
    assert_int_equal(field.ready, 2);
    assert_false(walk_is_busy(&field.walk));
    assert_false(is_pending(&field));
    field_release(&field);
}

/* A walk may be released by the last ready(). */
static void release_when_idle(struct walk *walk)
{
    on_ready(walk);
    if (!walk_is_busy(walk))
        walk_release(walk);
}

static void test_release_inside_ready(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "####....", 8, 0);
    field.walk.ready = release_when_idle;
    over(&field, 0, 8);
    answer(&field, 8, false);
    assert_int_equal(field.ready, 1);
    desk_release(&field.desk);
}

/* ---- What goes wrong -------------------------------------------------------------------------- */

static void test_error(void **state)
{
    struct walk_run run;
    struct field field;

    (void)state;
    field_init(&field, "##..##..", 8, 3);
    over(&field, 0, 8);
    answer(&field, 3, false);
    fake_fail(&field.desk.fake, 0, EIO, BLK_FATAL, false);
    fake_settle(&field.desk.fake);
    assert_int_equal(field.ready, 2);
    assert_int_equal(field.walk.error.code, EIO);
    desk_check_text(field.walk.error.text, "asking for the extents of fake:d at offset 3: ");
    /* What was known is known still, and nothing more is asked. */
    check_at(&field, 0, 2, false);
    assert_false(at(&field, 2, &run));
    assert_false(at(&field, 7, &run));
    assert_false(is_pending(&field));
    /* Once more. */
    over(&field, 0, 8);
    assert_int_equal(field.walk.error.code, 0);
    answer(&field, 8, false);
    check_at(&field, 0, 8, false);
    field_release(&field);
}

static void test_cancelled(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "##..##..", 8, 0);
    over(&field, 0, 8);
    blk_cancel_all(field.desk.dev);
    fake_finish(&field.desk.fake);
    assert_int_equal(field.walk.error.code, ECANCELED);
    assert_false(walk_is_busy(&field.walk));
    field_release(&field);
}

static void test_without_extents(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "........", 8, 4);
    field.desk.dev->caps = 0;
    over(&field, 1, 8);
    assert_false(walk_is_busy(&field.walk));
    check_at(&field, 1, 8, false);
    assert_int_equal(field.ready, 0);
    field_release(&field);
}

/* From one answer to the next the device has found out that it cannot tell after all. */
static void test_capability_goes(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "....####....", 12, 2);
    over(&field, 0, 12);
    field.desk.dev->caps = 0;
    answer(&field, 5, false);
    assert_false(is_pending(&field));
    check_at(&field, 0, 4, true);
    check_at(&field, 4, 12, false);
    /* And while a stale request is on its way. */
    field.desk.dev->caps = BLK_CAN_EXTENTS;
    over(&field, 0, 12);
    field.desk.dev->caps = 0;
    over(&field, 8, 12);
    check_at(&field, 8, 12, false);
    assert_true(walk_is_busy(&field.walk));
    answer(&field, 12, false);
    assert_false(walk_is_busy(&field.walk));
    check_at(&field, 8, 12, false);
    field_release(&field);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_runs_are_whole),
        cmocka_unit_test(test_leaving_out),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_asks_ahead),
        cmocka_unit_test(test_one_kind_takes_no_room),
        cmocka_unit_test(test_full_ring),
        cmocka_unit_test(test_stale_answer),
        cmocka_unit_test(test_stale_error),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_release_inside_ready),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_without_extents),
        cmocka_unit_test(test_capability_goes),
    };

    return cmocka_run_group_tests_name("walk", tests, NULL, NULL);
}
