/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Surveys over small maps, a byte to a letter: '#' is data, '.' zeros. What comes out is a letter to a byte
 * too: R(EAD), Z(ERO), S(KIP). */
#include "fake.h"
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/survey.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define LONGEST      6000

struct place {
    struct fake_disk disk;
    struct fake_end end;
    struct blk_dev *dev;
};

struct field {
    struct fake fake;
    struct place source, target;
    struct blk_settings settings;
    struct survey survey;
    char told[LONGEST + 1]; /* a letter to a byte */
    unsigned runs, done;    /* calls */
    unsigned stop_at;       /* in this call of run(), from 1; 0: in none */
    bool inside;            /* survey_start() or survey_stop() is running */
};

static const char letters[] = "RZS";

static void on_run(struct survey *survey, enum survey_kind kind, uint64_t offset, uint64_t len)
{
    struct field *field = survey->opaque;

    assert_false(field->inside);
    assert_int_equal(field->done, 0);
    assert_int_equal(offset, strlen(field->told));
    assert_true(len > 0 && offset + len <= survey->size);
    assert_true(offset == 0 || field->told[offset - 1] != letters[kind]); /* runs are whole */
    memset(field->told + offset, letters[kind], len);
    field->told[offset + len] = '\0';
    if (++field->runs == field->stop_at) {
        field->inside = true;
        survey_stop(survey);
        field->inside = false;
    }
}

static void on_done(struct survey *survey)
{
    struct field *field = survey->opaque;

    assert_false(field->inside);
    field->done++;
    survey_release(survey);
}

static void task_done(struct blk_task *task)
{
    assert_int_equal(task->status, 0);
    *(bool *)task->opaque = true;
}

static void place_init(struct field *field, struct place *place, const char *name, uint64_t size)
{
    struct blk_open_args args = {.url = &place->end.url, .settings = &field->settings};
    bool opened = false;
    struct blk_task task = {.done = task_done, .opaque = &opened};

    fake_disk_init(&place->disk, &field->fake, size, 0);
    place->disk.caps = BLK_CAN_EXTENTS | BLK_CAN_ZERO;
    fake_end_disk(&place->end, &place->disk, "fake", name);
    place->dev = blk_open(field->fake.loop, &args, &task);
    assert_non_null(place->dev);
    fake_finish(&field->fake);
    assert_true(opened);
}

static void place_release(struct field *field, struct place *place)
{
    bool closed = false;
    struct blk_task task = {.done = task_done, .opaque = &closed};

    blk_close(place->dev, &task);
    fake_finish(&field->fake);
    assert_true(closed);
    fake_disk_release(&place->disk);
}

static void field_init(struct field *field, uint64_t size)
{
    memset(field, 0, sizeof(*field));
    fake_init(&field->fake);
    place_init(field, &field->source, "source", size);
    place_init(field, &field->target, "target", size);
    field->survey = (struct survey){
        .loop = field->fake.loop,
        .source = field->source.dev,
        .target = field->target.dev,
        .size = size,
        .zero_from = UINT64_MAX,
        .chunk = 4,
        .run = on_run,
        .done = on_done,
        .opaque = field,
    };
}

static void field_release(struct field *field)
{
    place_release(field, &field->source);
    place_release(field, &field->target);
    fake_release(&field->fake);
}

static void draw(struct place *place, const char *map)
{
    for (uint64_t at = 0, end; map[at]; at = end) {
        for (end = at; map[end] == map[at]; end++)
            ;
        fake_disk_set(&place->disk, at, end - at, map[at] == '#' ? BLK_DATA : BLK_ZEROS);
    }
}

static void start(struct field *field)
{
    field->told[0] = '\0';
    field->runs = field->done = 0;
    field->inside = true;
    assert_int_equal(survey_start(&field->survey), 0);
    field->inside = false;
}

static void stop(struct field *field)
{
    field->inside = true;
    survey_stop(&field->survey);
    field->inside = false;
}

/* To the end; which of what is pending completes first is the odometer's choice. */
static void finish(struct field *field, struct odometer *odometer)
{
    struct fake *fake = &field->fake;

    for (fake_settle(fake); fake->pending_count > 0; fake_settle(fake)) {
        assert_true(fake->pending_count <= 2);
        assert_true(fake->pending_count == 1 || fake->pending[0].dev != fake->pending[1].dev);
        fake_complete(fake, odometer ? odometer_choose(odometer, fake->pending_count) : 0);
    }
    assert_int_equal(field->done, 1);
}

/* From start to end. */
static void check(struct field *field, const char *expected, int code)
{
    start(field);
    finish(field, NULL);
    assert_string_equal(field->told, expected);
    assert_int_equal(field->survey.error.code, code);
}

/* ---- What is done where ----------------------------------------------------------------------- */

#define SMALL 4

static void expect(char *text, unsigned source, unsigned target, uint64_t zero_from)
{
    for (unsigned at = 0; at < SMALL; at++)
        text[at] = source & (1u << at)                         ? 'R'
                   : at >= zero_from || !(target & (1u << at)) ? 'S'
                                                               : 'Z';
    text[SMALL] = '\0';
}

static void draw_bits(struct place *place, unsigned bits)
{
    char map[SMALL + 1] = "";

    for (unsigned at = 0; at < SMALL; at++)
        map[at] = bits & (1u << at) ? '#' : '.';
    draw(place, map);
}

static void check_totals(const struct field *field)
{
    uint64_t runs = 0;

    for (unsigned kind = 0; kind < SURVEY_KINDS; kind++) {
        uint64_t bytes = 0;

        for (const char *c = field->told; *c; c++)
            bytes += *c == letters[kind];
        assert_int_equal(field->survey.totals[kind].bytes, bytes);
        runs += field->survey.totals[kind].runs;
    }
    assert_int_equal(runs, field->runs);
}

static void check_pair(struct field *field, unsigned source, unsigned target)
{
    static const uint64_t from[] = {UINT64_MAX, 0, 2, SMALL};
    struct odometer odometer = {0};
    char expected[SMALL + 1];

    draw_bits(&field->source, source);
    draw_bits(&field->target, target);
    for (unsigned i = 0; i < COUNT(from); i++) {
        field->survey.zero_from = from[i];
        expect(expected, source, target, from[i]);
        do {
            start(field);
            finish(field, &odometer);
            assert_string_equal(field->told, expected);
            assert_int_equal(field->survey.error.code, 0);
            check_totals(field);
        } while (odometer_next(&odometer));
    }
}

/* Every source on every target, under every order of answers, which come whole or in parts. */
static void test_every_pair(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, SMALL);
    for (unsigned reach = 0; reach < 3; reach++) {
        field.source.disk.extents_reach = reach;
        field.target.disk.extents_reach = reach == 2 ? 1 : reach;
        for (unsigned pair = 0; pair < 1u << (2 * SMALL); pair++)
            check_pair(&field, pair & ((1u << SMALL) - 1), pair >> SMALL);
    }
    field_release(&field);
}

static void test_without_target(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "##...#..");
    field.survey.target = NULL;
    check(&field, "RRZZZRZZ", 0);
    field.survey.zero_from = 3;
    check(&field, "RRZSSRSS", 0);
    field.survey.run = NULL;
    start(&field);
    finish(&field, NULL);
    assert_int_equal(field.survey.totals[SURVEY_READ].bytes, 3);
    field_release(&field);
}

/* A device that does not tell has data everywhere. */
static void test_without_extents(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "##...#..");
    draw(&field.target, "........");
    field.target.dev->caps = 0;
    check(&field, "RRZZZRZZ", 0);
    field.source.dev->caps = 0;
    check(&field, "RRRRRRRR", 0);
    field.survey.size = 0;
    check(&field, "", 0);
    field_release(&field);
}

static void test_merge(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 12);
    draw(&field.source, "##..#...#..#");
    draw(&field.target, "######.#####");
    field.survey.merge = 3;
    check(&field, "RRRRRZSZRRRR", 0); /* the target's are as they are */
    field_release(&field);
}

/* ---- Requests --------------------------------------------------------------------------------- */

static const struct {
    const char *source, *target;
    bool can_zero;
    unsigned reads, zeros;
} counts[] = {
    {"################", "................", true, 4, 0},
    {"................", "################", true, 0, 2},
    {"................", "################", false, 0, 4},
    {"................", "................", true, 0, 0},
    /* Cut at multiples, wherever they begin. */
    {"...##...........", "................", true, 2, 0},
    {"....####........", "................", true, 1, 0},
    {"................", ".......##.......", true, 0, 2},
    {"................", "........########", true, 0, 1},
    {"#..#..#.#.......", "################", true, 4, 4},
    {"#..#..##.......#", "################", true, 4, 3},
};

static void test_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++) {
        struct field field;

        field_init(&field, 16);
        draw(&field.source, counts[i].source);
        draw(&field.target, counts[i].target);
        field.target.dev->limits.max_zero = 8;
        if (!counts[i].can_zero)
            field.target.dev->caps &= ~(unsigned)BLK_CAN_ZERO;
        start(&field);
        finish(&field, NULL);
        assert_int_equal(field.survey.totals[SURVEY_READ].requests, counts[i].reads);
        assert_int_equal(field.survey.totals[SURVEY_ZERO].requests, counts[i].zeros);
        assert_int_equal(field.survey.totals[SURVEY_SKIP].requests, 0);
        field_release(&field);
    }
}

/* ---- What is asked ---------------------------------------------------------------------------- */

/* The target is asked only where it matters, but ahead. */
static void test_asks_little(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 20);
    draw(&field.source, "####################");
    field.source.disk.logging = field.target.disk.logging = true;
    check(&field, "RRRRRRRRRRRRRRRRRRRR", 0);
    fake_disk_check_commands(&field.source.disk, "EXTENTS 0+20");
    fake_disk_check_commands(&field.target.disk, "");
    draw(&field.source, "####..######....####");
    draw(&field.target, "....########........");
    check(&field, "RRRRZZRRRRRRSSSSRRRR", 0);
    fake_disk_check_commands(&field.source.disk, "EXTENTS 0+20");
    fake_disk_check_commands(&field.target.disk, "EXTENTS 4+16");
    /* What it is slow to tell about is left out where it does not matter. */
    field.target.disk.extents_reach = 1;
    check(&field, "RRRRZZRRRRRRSSSSRRRR", 0);
    fake_disk_check_commands(&field.target.disk,
                             "EXTENTS 4+16; EXTENTS 5+15; EXTENTS 6+14; EXTENTS 12+8; "
                             "EXTENTS 13+7; EXTENTS 14+6; EXTENTS 15+5; EXTENTS 16+4");
    field.survey.zero_from = 13;
    check(&field, "RRRRZZRRRRRRSSSSRRRR", 0);
    fake_disk_check_commands(&field.source.disk, "EXTENTS 0+20; EXTENTS 0+20");
    fake_disk_check_commands(&field.target.disk,
                             "EXTENTS 4+9; EXTENTS 5+8; EXTENTS 6+7; EXTENTS 12+1");
    field_release(&field);
}

/* More runs than are ever held. */
static void test_many_runs(void **state)
{
    static char source[LONGEST + 1], target[LONGEST + 1], expected[LONGEST + 1];
    static struct field field;

    (void)state;
    for (unsigned i = 0; i < LONGEST; i++) {
        source[i] = i % 3 == 0 ? '#' : '.';
        target[i] = i % 2 == 0 ? '#' : '.';
        expected[i] = i % 3 == 0 ? 'R' : i % 2 == 0 ? 'Z' : 'S';
    }
    field_init(&field, LONGEST);
    draw(&field.source, source);
    draw(&field.target, target);
    check(&field, expected, 0);
    check_totals(&field);
    field_release(&field);
}

/* ---- Ends that come early --------------------------------------------------------------------- */

/* After so many answers. */
static void stop_after(struct field *field, unsigned answers)
{
    start(field);
    fake_settle(&field->fake);
    while (answers-- > 0 && field->fake.pending_count > 0) {
        fake_complete(&field->fake, 0);
        fake_settle(&field->fake);
    }
    if (field->done == 0) {
        stop(field);
        stop(field);
        finish(field, NULL);
        assert_int_equal(field->survey.error.code, ECANCELED);
    }
}

static void test_stop(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "..##..#.");
    draw(&field.target, ".#.#.#.#");
    field.source.disk.extents_reach = field.target.disk.extents_reach = 1;
    for (unsigned answers = 0; answers < 16; answers++)
        stop_after(&field, answers);
    /* Before the loop's first turn, and inside run(). */
    start(&field);
    stop(&field);
    finish(&field, NULL);
    assert_int_equal(field.survey.error.code, ECANCELED);
    for (field.stop_at = 1; field.stop_at <= 5; field.stop_at++) {
        start(&field);
        finish(&field, NULL);
        assert_int_equal(field.survey.error.code, ECANCELED);
        assert_int_equal(field.runs, field.stop_at);
    }
    field_release(&field);
}

/* The last run of all is told before the end: a stop in it comes too early still. */
static void test_stop_in_the_last_run(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "########");
    field.stop_at = 1;
    check(&field, "RRRRRRRR", ECANCELED);
    field_release(&field);
}

static void fail_number(struct field *field, unsigned number, const char *sentence)
{
    field->fake.fault = (struct fake_fault){.number = field->fake.submitted + number, .code = EIO};
    start(field);
    finish(field, NULL);
    assert_int_equal(field->survey.error.code, EIO);
    if (!strstr(field->survey.error.text, sentence))
        fail_msg("%s", field->survey.error.text);
}

static void test_errors(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "##..####");
    draw(&field.target, "########");
    fail_number(&field, 1, "asking for the extents of fake:source at offset 0");
    assert_string_equal(field.told, "");
    fail_number(&field, 2, "asking for the extents of fake:target at offset 2");
    assert_string_equal(field.told, "RR");
    field.source.disk.extents_reach = 2;
    fail_number(&field, 2, "asking for the extents of fake:source at offset 2");
    assert_string_equal(field.told, "RR");
    field_release(&field);
}

static void test_cancelled(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, 8);
    draw(&field.source, "##..####");
    start(&field);
    stop(&field);
    blk_cancel_all(field.source.dev);
    blk_cancel_all(field.target.dev);
    finish(&field, NULL);
    assert_int_equal(field.survey.error.code, ECANCELED);
    field_release(&field);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair),
        cmocka_unit_test(test_without_target),
        cmocka_unit_test(test_without_extents),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_asks_little),
        cmocka_unit_test(test_many_runs),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_in_the_last_run),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_cancelled),
    };

    return cmocka_run_group_tests_name("survey", tests, NULL, NULL);
}
