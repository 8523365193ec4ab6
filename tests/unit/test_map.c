/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Map jobs from start to end in the fake world; a byte of the map is a letter: '#' is data, '.' zeros. */
#include "ground.h"
#include "qcow2_make.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/map.h>

#define SIZE 12

struct field {
    struct fake fake;
    struct fake_disk disk;
    struct fake_end end;
    struct map_options options;
    struct map_job *job;
    struct map_result result; /* once it is done */
    char told[SIZE + 1];
    char notices[1000];
    unsigned runs, done; /* calls */
    unsigned stop_at;    /* in this call of run(), from 1; 0: in none */
    unsigned takes_back; /* at this EXTENTS, from 1, the device finds out that it cannot tell */
    unsigned asked;      /* EXTENTS that were completed */
    bool inside;         /* map_start() or map_stop() is running */
};

static struct field *field_of(struct fake *fake)
{
    return container_of(fake, struct field, fake);
}

static void on_notice(void *opaque, bool important, const char *text)
{
    struct field *field = opaque;
    size_t at = strlen(field->notices);

    assert_false(important);
    snprintf(field->notices + at, sizeof(field->notices) - at, "%s\n", text);
}

static void stop(struct field *field)
{
    field->inside = true;
    map_stop(field->job);
    field->inside = false;
}

static void on_run(void *opaque, const struct map_run *run)
{
    struct field *field = opaque;
    char letter = run->zeros ? '.' : '#';

    assert_false(field->inside);
    assert_int_equal(map_phase(field->job), MAP_WALKING);
    assert_int_equal(run->offset, strlen(field->told));
    assert_true(run->len > 0 && run->offset + run->len <= SIZE);
    assert_true(run->host_offset == (run->zeros ? BLK_NO_OFFSET : run->offset));
    assert_true(run->offset == 0 || field->told[run->offset - 1] != letter);
    memset(field->told + run->offset, letter, run->len);
    field->told[run->offset + run->len] = '\0';
    if (++field->runs == field->stop_at)
        stop(field);
}

static void on_done(struct map_job *job, void *opaque)
{
    struct field *field = opaque;

    assert_false(field->inside);
    assert_ptr_equal(job, field->job);
    assert_int_equal(map_phase(job), MAP_ENDED);
    field->result = *map_result(job);
    field->done++;
}

static void before(struct fake *fake, const struct fake_op *op)
{
    struct field *field = field_of(fake);

    if (op->kind == FAKE_REQ && ++field->asked == field->takes_back)
        op->req->dev->caps &= ~(unsigned)BLK_CAN_EXTENTS;
}

static void field_init(struct field *field, const char *map)
{
    memset(field, 0, sizeof(*field));
    fake_init(&field->fake);
    field->fake.before = before;
    fake_disk_init(&field->disk, &field->fake, SIZE, 0);
    field->disk.caps = BLK_CAN_EXTENTS;
    fake_end_disk(&field->end, &field->disk, "fake", "d");
    for (uint64_t at = 0; at < SIZE; at++)
        fake_disk_set(&field->disk, at, 1, map[at] == '#' ? BLK_DATA : BLK_ZEROS);
    field->options = (struct map_options){
        .url = &field->end.url,
        .image.format = IMAGE_RAW, /* nothing is read to be sure */
        .notice = on_notice,
        .run = on_run,
        .done = on_done,
        .opaque = field,
    };
}

static void field_release(struct field *field)
{
    fake_disk_release(&field->disk);
    fake_release(&field->fake);
}

static void start(struct field *field)
{
    field->told[0] = field->notices[0] = '\0';
    field->runs = field->done = field->asked = 0;
    field->inside = true;
    field->job = map_start(field->fake.loop, &field->options);
    field->inside = false;
    assert_non_null(field->job);
}

static bool is_done(void *opaque)
{
    return ((const struct field *)opaque)->done > 0;
}

static void finish(struct field *field)
{
    fake_finish(&field->fake);
    while (field->done == 0) {
        fake_pass_time(&field->fake, is_done, field);
        fake_finish(&field->fake);
    }
    assert_int_equal(field->done, 1);
    map_free(field->job);
    assert_int_equal(field->disk.open, 0);
}

static void check(struct field *field, int status, const char *told, bool tells)
{
    start(field);
    finish(field);
    assert_int_equal(field->result.status, status);
    assert_string_equal(field->told, told);
    assert_true(field->result.opened);
    assert_int_equal(field->result.size, SIZE);
    assert_int_equal(field->result.tells, tells);
    assert_true(field->result.used == MAP_USED_UNKNOWN);
    assert_int_equal(field->result.data.runs + field->result.zeros.runs, field->runs);
    assert_int_equal(field->result.data.bytes + field->result.zeros.bytes, strlen(told));
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void test_map(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    check(&field, 0, "..###.##....", true);
    assert_int_equal(field.result.data.bytes, 5);
    assert_int_equal(field.result.data.runs, 2);
    assert_int_equal(field.result.zeros.bytes, 7);
    assert_int_equal(field.result.zeros.runs, 3);
    /* A range is whole, in however many answers it came. */
    field.disk.extents_reach = 1;
    check(&field, 0, "..###.##....", true);
    field_release(&field);
}

static void test_not_told(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    field.disk.caps = 0;
    check(&field, 0, "############", false);
    /* It turns out to be so in the middle. */
    field.disk.caps = BLK_CAN_EXTENTS;
    field.disk.extents_reach = 2;
    field.takes_back = 3;
    check(&field, 0, "..###.######", false);
    field_release(&field);
}

static void test_does_not_open(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    field.fake.fault = (struct fake_fault){.number = 1, .code = EACCES};
    start(&field);
    finish(&field);
    assert_int_equal(field.result.status, -EACCES);
    assert_false(field.result.opened);
    assert_non_null(strstr(field.result.error.text, "opening fake:d"));
    assert_int_equal(field.runs, 0);
    field_release(&field);
}

static void test_error_on_the_way(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    field.disk.extents_reach = 3;
    field.fake.fault = (struct fake_fault){.number = 4, .code = EIO};
    check(&field, -EIO, "..###.", true);
    assert_non_null(
        strstr(field.result.error.text, "asking for the extents of fake:d at offset 6"));
    field_release(&field);
}

/* The session goes, and comes back: the map is the same. */
static void test_lost_on_the_way(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    field.disk.extents_reach = 3;
    field.options.settings =
        (struct blk_settings){.timeout = 60 * LOOP_SECOND, .give_up = 600 * LOOP_SECOND};
    field.fake.fault = (struct fake_fault){.number = 4, .code = EIO, .retry = BLK_LOST};
    check(&field, 0, "..###.##....", true);
    assert_non_null(strstr(field.notices, "source: fake:d is away: "));
    assert_non_null(strstr(field.notices, "source: fake:d is back after "));
    field_release(&field);
}

/* ---- Images with depth ------------------------------------------------------------------------- */

#define CLUSTER 4096

/* As told: "start+length kind depth offset", clusters and '-' where there is none. */
struct deep {
    char told[1000];
    bool done;
    struct map_result result;
};

static void deep_run(void *opaque, const struct map_run *run)
{
    struct deep *deep = opaque;
    size_t at = strlen(deep->told);

    at += (size_t)snprintf(deep->told + at, sizeof(deep->told) - at, "%u+%u %s%s%s %u",
                           (unsigned)(run->offset / CLUSTER), (unsigned)(run->len / CLUSTER),
                           run->zeros ? "zeros" : "data", run->compressed ? " compressed" : "",
                           run->allocated ? "" : " nowhere", run->depth);
    snprintf(deep->told + at, sizeof(deep->told) - at,
             run->host_offset == BLK_NO_OFFSET ? "\n" : " at %u\n",
             (unsigned)(run->host_offset / CLUSTER));
}

static void deep_notice(void *opaque, bool important, const char *text)
{
    (void)opaque, (void)important;
    fail_msg("%s", text);
}

static void deep_done(struct map_job *job, void *opaque)
{
    struct deep *deep = opaque;

    deep->result = *map_result(job);
    deep->done = true;
}

static void map_file(const struct ground *ground, struct deep *deep, const char *name)
{
    char *path = ground_path(ground, name);
    struct map_job *job;
    struct url url;

    memset(deep, 0, sizeof(*deep));
    assert_int_equal(url_parse(path, &url, NULL), 0);
    job = map_start(ground->loop, &(struct map_options){
                                      .url = &url,
                                      .settings.timeout = 60 * LOOP_SECOND,
                                      .notice = deep_notice,
                                      .run = deep_run,
                                      .done = deep_done,
                                      .opaque = deep,
                                  });
    assert_non_null(job);
    ground_wait(ground, &deep->done);
    map_free(job);
    url_release(&url);
    free(path);
}

/* Neighbours are one run only where all that is told of them is the same. */
static void test_depth(void **state)
{
    const struct ground *ground = *state;
    const struct qcow2_make_options below = {.cluster_bits = 12, .size = 10 * CLUSTER};
    struct qcow2_make_options above = below;
    unsigned char cluster[CLUSTER];
    struct qcow2_make make;
    struct deep deep;

    qcow2_make_pattern(cluster, sizeof(cluster), 1);
    qcow2_make_init(&make, &below);
    for (unsigned i = 0; i < 3; i++)
        qcow2_make_data(&make, i * CLUSTER, cluster);
    qcow2_make_zero(&make, 8 * CLUSTER, false);
    ground_make(ground, "below.qcow2", make.bytes, make.len);
    qcow2_make_release(&make);
    above.backing = "below.qcow2";
    qcow2_make_init(&make, &above);
    qcow2_make_data(&make, 2 * CLUSTER, cluster);
    qcow2_make_data(&make, 4 * CLUSTER, cluster);
    qcow2_make_data(&make, 3 * CLUSTER, cluster);
    qcow2_make_compressed(&make, 5 * CLUSTER, cluster);
    qcow2_make_compressed(&make, 6 * CLUSTER, cluster);
    qcow2_make_zero(&make, 7 * CLUSTER, false);
    ground_make(ground, "above.qcow2", make.bytes, make.len);
    qcow2_make_release(&make);
    map_file(ground, &deep, "above.qcow2");
    assert_int_equal(deep.result.status, 0);
    assert_int_equal(deep.result.format, IMAGE_QCOW2);
    assert_true(deep.result.tells);
    assert_string_equal(deep.told, "0+2 data 1 at 5\n"
                                   "2+1 data 0 at 5\n"
                                   "3+1 data 0 at 7\n"
                                   "4+1 data 0 at 6\n"
                                   "5+2 data compressed 0\n"
                                   "7+1 zeros 0\n"
                                   "8+1 zeros 1\n"
                                   "9+1 zeros nowhere 1\n");
    assert_int_equal(deep.result.data.bytes, 7 * CLUSTER);
    assert_int_equal(deep.result.zeros.runs, 3);
}

static void test_no_image(void **state)
{
    const struct ground *ground = *state;
    struct deep deep;

    ground_make(ground, "a.qcow2", "QFI\xfb and nothing else, far too little of it", 43);
    map_file(ground, &deep, "a.qcow2");
    assert_int_equal(deep.result.status, -EINVAL);
    assert_false(deep.result.opened);
    assert_string_equal(deep.told, "");
}

/* ---- Stopping ---------------------------------------------------------------------------------- */

/* Before the so manieth completion; 0: before the loop's first turn. False: it had ended. */
static bool stop_before(struct field *field, unsigned completions)
{
    unsigned submitted = field->fake.submitted;
    bool opened, complete;

    start(field);
    if (completions > 0)
        fake_settle(&field->fake);
    for (unsigned i = 1; i < completions && field->done == 0; i++) {
        fake_complete(&field->fake, 0);
        fake_settle(&field->fake);
    }
    opened = map_result(field->job)->opened;
    complete = map_phase(field->job) > MAP_WALKING;
    stop(field);
    stop(field);
    /* Nobody waits for a server's answer. */
    for (unsigned i = 0; i < field->fake.pending_count && !complete; i++)
        assert_true(field->fake.pending[i].cancelled);
    finish(field);
    assert_true(completions > 0 || field->fake.submitted == submitted);
    assert_int_equal(field->result.opened, opened);
    assert_int_equal(field->result.status, complete ? 0 : -ECANCELED);
    if (!complete)
        assert_string_equal(field->result.error.text, "interrupted");
    return !complete;
}

static void test_stop(void **state)
{
    unsigned completions = 0;
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    field.disk.extents_reach = 3;
    while (stop_before(&field, completions))
        completions++;
    assert_int_equal(completions, 6); /* opening, four answers */
    field_release(&field);
}

static void test_stop_inside_run(void **state)
{
    struct field field;

    (void)state;
    field_init(&field, "..###.##....");
    for (field.stop_at = 1; field.stop_at <= 5; field.stop_at++) {
        start(&field);
        finish(&field);
        assert_int_equal(field.result.status, -ECANCELED);
        assert_int_equal(field.runs, field.stop_at);
    }
    field_release(&field);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_not_told),
        cmocka_unit_test(test_does_not_open),
        cmocka_unit_test(test_error_on_the_way),
        cmocka_unit_test(test_lost_on_the_way),
        cmocka_unit_test_setup_teardown(test_depth, ground_setup, ground_teardown),
        cmocka_unit_test_setup_teardown(test_no_image, ground_setup, ground_teardown),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_inside_run),
    };

    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
