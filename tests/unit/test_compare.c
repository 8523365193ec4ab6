/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Comparisons of small disks under every order of completion, every single fault, and stopped at every
 * point: whatever the order, the answer is that of a comparison byte by byte from the start. */
#include "schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/compare.h>
#include <lunferry/units.h>

#include "src/copy/compare_runs.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define CHUNK        4096
#define MAX_RANGES   256

struct job {
    const char *name;
    unsigned sample;       /* so many orders are tried; 0: all */
    unsigned sample_wrong; /* and so many with each fault */
    uint64_t size[COMPARE_SIDES];
    unsigned depth;
    bool strict;
    uint32_t max_read; /* 0: no limit */
};

static const struct job jobs[] = {
    {.name = "one slot", .size = {3 * CHUNK, 3 * CHUNK}, .depth = 1},
    {.name = "all at once", .sample_wrong = 20, .size = {3 * CHUNK, 3 * CHUNK}, .depth = 3},
    {.name = "two slots",
     .size = {3 * CHUNK + 100, 3 * CHUNK + 100},
     .depth = 2,
     .sample_wrong = 20},
    {.name = "A is longer", .size = {2 * CHUNK + 700, CHUNK + 300}, .depth = 2},
    {.name = "B is longer", .size = {CHUNK + 1, 3 * CHUNK + 5}, .depth = 2},
    {.name = "A is empty", .size = {0, 2 * CHUNK}, .depth = 2},
    {.name = "both are empty", .size = {0, 0}, .depth = 2},
    {.name = "strict", .size = {CHUNK, CHUNK}, .depth = 1, .strict = true},
    {.name = "strict and longer", .size = {CHUNK, CHUNK + 1}, .depth = 1, .strict = true},
    {.name = "pieces",
     .sample = 300,
     .sample_wrong = 20,
     .size = {2 * CHUNK, 2 * CHUNK},
     .depth = 2,
     .max_read = 1500},
    {.name = "many",
     .sample = 300,
     .sample_wrong = 20,
     .size = {9 * CHUNK, 8 * CHUNK + 2000},
     .depth = 5},
};

/* Bytes that are changed: an offset on both sides' common part or beyond it. */
static const struct {
    const char *name;
    uint64_t at[8];
    unsigned count;
    bool wrong; /* with faults and stops too */
} patterns[] = {
    {.name = "none", .wrong = true},
    {.name = "first byte", .at = {0}, .count = 1},
    {.name = "around a chunk's end", .at = {CHUNK - 1, CHUNK}, .count = 2, .wrong = true},
    {.name = "just merged", .at = {CHUNK - 100, CHUNK - 100 + COMPARE_MERGE - 1}, .count = 2},
    {.name = "just not merged", .at = {CHUNK - 100, CHUNK - 100 + COMPARE_MERGE}, .count = 2},
    {.name = "everywhere",
     .at = {5, 300, 2000, CHUNK + 7, CHUNK + 1100, 2 * CHUNK + 3, 2 * CHUNK + 600, 3 * CHUNK},
     .count = 8,
     .wrong = true},
    {.name = "second and third chunk", .at = {CHUNK + 999, 2 * CHUNK + 50}, .count = 2},
    {.name = "far",
     .at = {7 * CHUNK + 1, 8 * CHUNK + 1999, 8 * CHUNK + 2000},
     .count = 3,
     .wrong = true},
};

struct scene {
    const struct job *job;
    const char *pattern;
    struct fake fake;
    struct fake_disk disks[COMPARE_SIDES];
    struct fake_end ends[COMPARE_SIDES];
    struct odometer odometer;
    struct compare_options options;
    unsigned stop_at;    /* before this completion; UINT_MAX: never */
    unsigned stop_turns; /* of the loop between the completion before and the stop */
    unsigned completions;

    /* What came of it. */
    struct compare_result result;
    unsigned done;
    bool stopped;
    struct {
        uint64_t offset, len;
    } ranges[MAX_RANGES];
    unsigned range_count;
    /* The operation that failed. */
    bool faulted_open, faulted_read;
    uint64_t fault_offset;
    unsigned fault_side;
};

static struct scene scene;

/* ---- One run ---------------------------------------------------------------------------------- */

static void explain(void *opaque)
{
    (void)opaque;
    fprintf(stderr, "job: %s, pattern: %s, all: %d\nfault: operation %u, errno %d; stop: %u\n",
            scene.job->name, scene.pattern, scene.options.all, scene.fake.fault.number,
            scene.fake.fault.code, scene.stop_at);
    fprintf(stderr, "result: %d %s, different %d at %" PRIu64 "\nchoices:", scene.result.status,
            scene.result.error.text, scene.result.different, scene.result.offset);
    for (unsigned i = 0; i < scene.odometer.at; i++)
        fprintf(stderr, " %u/%u", scene.odometer.digit[i], scene.odometer.base[i]);
    fprintf(stderr, "\n");
}

static void before(struct fake *fake, const struct fake_op *op)
{
    if (op->number != fake->fault.number || op->cancelled)
        return;
    if (op->kind == FAKE_OPEN && fake->fault.code)
        scene.faulted_open = true;
    if (op->kind != FAKE_REQ)
        return;
    scene.faulted_read = true;
    scene.fault_offset = op->req->offset;
    scene.fault_side = strcmp(op->req->dev->name, scene.ends[COMPARE_B].text) == 0;
}

static void range(void *opaque, uint64_t offset, uint64_t len)
{
    must(&scene.fake, opaque == &scene && scene.done == 0);
    must(&scene.fake, scene.range_count < MAX_RANGES);
    scene.ranges[scene.range_count].offset = offset;
    scene.ranges[scene.range_count++].len = len;
}

static void done(struct compare_job *job, void *opaque)
{
    must(&scene.fake, opaque == &scene);
    scene.result = *compare_result(job);
    scene.done++;
}

/* Only about READs is there a choice. */
static unsigned choose(void)
{
    for (unsigned i = 0; i < scene.fake.pending_count; i++) {
        if (scene.fake.pending[i].kind != FAKE_REQ)
            return i;
    }
    return odometer_choose(&scene.odometer, scene.fake.pending_count);
}

static uint64_t asked(void)
{
    return scene.disks[0].bytes_asked + scene.disks[1].bytes_asked;
}

static void run(void)
{
    struct compare_job *job;
    uint64_t asked_then = 0;

    scene.fake.explain = explain;
    scene.fake.before = before;
    scene.fake.submitted = 0;
    atomic_store(&scene.fake.fault_hit, false);
    scene.done = scene.completions = scene.range_count = 0;
    scene.stopped = scene.faulted_open = scene.faulted_read = false;
    job = compare_start(scene.fake.loop, &scene.options);
    must(&scene.fake, job);
    for (;;) {
        for (unsigned i = 0; scene.completions == scene.stop_at && i < scene.stop_turns; i++)
            loop_turn(scene.fake.loop, 0);
        if (scene.completions == scene.stop_at && scene.done == 0) {
            scene.stopped = true;
            asked_then = asked();
            compare_stop(job);
        }
        fake_settle(&scene.fake);
        if (scene.done > 0)
            break;
        must(&scene.fake, scene.fake.pending_count > 0); /* or it would hang */
        must(&scene.fake, scene.fake.pending_count <= 2 * scene.job->depth * 4);
        fake_complete(&scene.fake, choose());
        scene.completions++;
    }
    must(&scene.fake, scene.done == 1 && scene.fake.pending_count == 0);
    must(&scene.fake, !scene.stopped || asked() == asked_then); /* no READ was begun since */
    must(&scene.fake, scene.disks[0].open == 0 && scene.disks[1].open == 0);
    compare_free(job);
}

/* ---- The model -------------------------------------------------------------------------------- */

static int byte_at(unsigned side, uint64_t offset)
{
    return offset < scene.job->size[side] ? scene.disks[side].written[offset] : COMPARE_NO_BYTE;
}

static bool differs(uint64_t offset)
{
    int a = byte_at(COMPARE_A, offset), b = byte_at(COMPARE_B, offset);

    if (a == COMPARE_NO_BYTE)
        return b != 0;
    return b == COMPARE_NO_BYTE ? a != 0 : a != b;
}

static uint64_t longer(void)
{
    const uint64_t *size = scene.job->size;

    return size[0] > size[1] ? size[0] : size[1];
}

/* Where the chunk begins that holds `offset`; the shorter disk's end cuts one in two. */
static uint64_t chunk_of(uint64_t offset)
{
    uint64_t common = min_u64(scene.job->size[0], scene.job->size[1]);
    uint64_t begin = offset - offset % CHUNK;

    return offset >= common && begin < common ? common : begin;
}

static uint64_t model_first(void)
{
    uint64_t at = 0;

    while (at < longer() && !differs(at))
        at++;
    return at;
}

/* The ranges in [0, end) are what was told. */
static void check_ranges(uint64_t end)
{
    unsigned count = 0;
    uint64_t sum = 0;

    for (uint64_t at = 0; at < end; at++) {
        uint64_t last = at;

        if (!differs(at))
            continue;
        for (uint64_t next = at + 1; next < end && next - last < COMPARE_MERGE; next++) {
            if (differs(next))
                last = next;
        }
        must(&scene.fake, count < scene.range_count);
        must(&scene.fake, scene.ranges[count].offset == at);
        must(&scene.fake, scene.ranges[count].len == last - at + 1);
        sum += last - at + 1;
        count++;
        at = last;
    }
    must(&scene.fake, count == scene.range_count && count == scene.result.ranges);
    must(&scene.fake, sum == scene.result.range_bytes);
}

static void check_first(uint64_t first)
{
    must(&scene.fake, scene.result.different && scene.result.offset == first);
    must(&scene.fake, scene.result.byte[COMPARE_A] == byte_at(COMPARE_A, first));
    must(&scene.fake, scene.result.byte[COMPARE_B] == byte_at(COMPARE_B, first));
}

static void check_answer(uint64_t first)
{
    bool sizes = scene.job->strict && scene.job->size[0] != scene.job->size[1];

    must(&scene.fake, scene.result.status == 0 && scene.result.error.code == 0);
    must(&scene.fake, scene.result.opened && scene.result.sizes == sizes);
    must(&scene.fake, scene.result.size[0] == scene.job->size[0]);
    must(&scene.fake, scene.result.size[1] == scene.job->size[1]);
    if (sizes) {
        must(&scene.fake, scene.result.different && scene.disks[0].bytes_asked == 0);
        return;
    }
    if (first < longer()) {
        check_first(first);
    } else {
        must(&scene.fake, !scene.result.different);
        must(&scene.fake, scene.result.bytes == longer());
    }
    if (scene.options.all)
        check_ranges(longer());
}

/* Who is said to have failed, where, and why. */
static void check_fault(void)
{
    const char *text = scene.result.error.text;
    char where[64];

    must(&scene.fake, scene.result.status == -EIO && scene.result.error.code == EIO);
    must(&scene.fake, strncmp(text, scene.fault_side ? "B: " : "A: ", 3) == 0);
    must(&scene.fake, strstr(text, scene.ends[scene.fault_side].text));
    must(&scene.fake, strstr(text, scene.fake.fault.code ? "the fake says no" : "ended at offset"));
    if (scene.fake.fault.code && !scene.job->max_read) {
        snprintf(where, sizeof(where), "at offset %" PRIu64 ":", scene.fault_offset);
        must(&scene.fake, strstr(text, where));
    }
    must(&scene.fake, scene.result.opened);
    if (!scene.options.all)
        must(&scene.fake, !scene.result.different);
    else
        check_ranges(chunk_of(scene.fault_offset));
}

static void check(void)
{
    uint64_t first = model_first();
    bool answered = scene.result.status == 0;

    if (scene.stopped && !answered && scene.result.status == -ECANCELED) {
        must(&scene.fake, scene.options.all || !scene.result.different);
        must(&scene.fake, scene.result.bytes < longer() || longer() == 0);
        /* What it said before is true. */
        if (scene.range_count > 0)
            must(&scene.fake, scene.ranges[0].offset == first);
        return;
    }
    if (scene.faulted_open) {
        must(&scene.fake, scene.result.status == -EIO && !scene.result.opened);
        must(&scene.fake, strstr(scene.result.error.text, ": opening fake:"));
    } else if (scene.faulted_read && !(first < longer() && !scene.options.all &&
                                       chunk_of(first) < chunk_of(scene.fault_offset))) {
        check_fault();
    } else {
        check_answer(first);
    }
}

/* ---- Scenes ----------------------------------------------------------------------------------- */

static void init_disks(const struct job *job, unsigned pattern, bool all)
{
    static const char *const names[] = {"a", "b"};
    uint64_t common = min_u64(job->size[0], job->size[1]);

    memset(&scene, 0, sizeof(scene));
    scene.job = job;
    scene.pattern = patterns[pattern].name;
    scene.stop_at = ~0u;
    fake_init(&scene.fake);
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        fake_disk_init(&scene.disks[side], &scene.fake, job->size[side], 0);
        fake_disk_fill(&scene.disks[side], 1);
        memset(scene.disks[side].written + common, 0, job->size[side] - common);
        if (job->max_read)
            scene.disks[side].limits.max_read = job->max_read;
        fake_end_disk(&scene.ends[side], &scene.disks[side], "fake", names[side]);
        scene.options.urls[side] = &scene.ends[side].url;
        scene.options.images[side].format = IMAGE_RAW; /* nothing is read to be sure */
    }
    for (unsigned i = 0; i < patterns[pattern].count; i++) {
        uint64_t at = patterns[pattern].at[i];
        unsigned side = job->size[0] < job->size[1];

        if (at < job->size[side])
            scene.disks[side].written[at] ^= 0x5a;
    }
    scene.options.depth = job->depth;
    scene.options.chunk = CHUNK;
    scene.options.all = all;
    scene.options.strict = job->strict;
    scene.options.range = range;
    scene.options.done = done;
    scene.options.opaque = &scene;
    scene.odometer.sample = SAMPLE(job->sample);
}

static void release_disks(void)
{
    fake_disk_release(&scene.disks[0]);
    fake_disk_release(&scene.disks[1]);
    fake_release(&scene.fake);
}

/* Calls `each` for every job, pattern and mode. */
static void everywhere(void (*each)(void), bool wrong)
{
    for (size_t job = 0; job < COUNT(jobs); job++) {
        for (unsigned pattern = 0; pattern < COUNT(patterns); pattern++) {
            for (unsigned all = 0; all < 2 && (!wrong || patterns[pattern].wrong); all++) {
                init_disks(&jobs[job], pattern, all == 1);
                each();
                release_disks();
            }
        }
    }
}

static void every_order(void)
{
    do {
        run();
        must(&scene.fake, scene.result.status == 0);
        check();
    } while (odometer_next(&scene.odometer));
}

static void test_every_order(void **state)
{
    (void)state;
    everywhere(every_order, false);
}

/* A fault in each operation, under every order; errno 0 is a READ that comes short. */
static void every_fault(void)
{
    static const int codes[] = {EIO, 0};

    scene.odometer.sample = SAMPLE(scene.job->sample_wrong);
    for (size_t code = 0; code < COUNT(codes); code++) {
        unsigned most = 0;

        for (unsigned number = 1; number == 1 || number <= most; number++) {
            scene.fake.fault = (struct fake_fault){.number = number, .code = codes[code]};
            do {
                run();
                check();
                most = scene.fake.submitted > most ? scene.fake.submitted : most;
            } while (odometer_next(&scene.odometer));
        }
    }
}

static void test_every_fault(void **state)
{
    (void)state;
    everywhere(every_fault, true);
}

static unsigned interrupted, too_late;

/* Was there something to stop, in any order? */
static bool every_stop_here(void)
{
    bool any = false;

    do {
        run();
        check();
        any |= scene.stopped;
        interrupted += scene.result.status == -ECANCELED;
        too_late += scene.stopped && scene.result.status == 0;
    } while (odometer_next(&scene.odometer));
    return any;
}

static void every_stop(void)
{
    bool any = true;

    scene.odometer.sample = SAMPLE(10);
    for (scene.stop_at = 0; any; scene.stop_at++) {
        any = false;
        for (scene.stop_turns = 0; scene.stop_turns < 4; scene.stop_turns++)
            any |= every_stop_here();
    }
}

static void test_every_stop(void **state)
{
    (void)state;
    interrupted = too_late = 0;
    everywhere(every_stop, true);
    assert_true(interrupted > 1000 && too_late > 1000);
}

/* What is cancelled once the answer is known does not become the answer. */
static void test_what_lies_beyond_is_not_waited_for(void **state)
{
    struct compare_job *job;

    (void)state;
    init_disks(&jobs[1], 1, false);
    job = compare_start(scene.fake.loop, &scene.options);
    for (unsigned i = 0; i < 4; i++) { /* both opens, both READs of the first chunk */
        fake_settle(&scene.fake);
        fake_complete(&scene.fake, 0);
    }
    fake_settle(&scene.fake);
    assert_int_equal(scene.fake.pending_count, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_true(scene.fake.pending[i].cancelled);
    fake_finish(&scene.fake);
    assert_int_equal(scene.done, 1);
    check_answer(0);
    compare_free(job);
    release_disks();
}

/* Nothing beyond the first difference is begun. */
static void test_reads_no_more_than_needed(void **state)
{
    (void)state;
    init_disks(&jobs[0], 1, false);
    run();
    check();
    assert_int_equal(scene.disks[0].bytes_asked, CHUNK);
    release_disks();
}

static void test_progress_and_depth(void **state)
{
    struct compare_progress progress;
    struct compare_job *job;

    (void)state;
    init_disks(&jobs[10], 0, false);
    scene.options.depth = 0;
    scene.disks[1].round_trip = LOOP_MSECOND;
    job = compare_start(scene.fake.loop, &scene.options);
    fake_settle(&scene.fake);
    compare_progress(job, &progress);
    assert_int_equal(progress.phase, COMPARE_OPENING);
    assert_int_equal(progress.total, 0);
    fake_complete(&scene.fake, 0);
    fake_complete(&scene.fake, 0);
    fake_settle(&scene.fake);
    compare_progress(job, &progress);
    assert_int_equal(progress.phase, COMPARE_READING);
    assert_int_equal(progress.total, 9 * CHUNK);
    assert_int_equal(progress.reading, scene.fake.pending_count);
    assert_int_equal(progress.done, 0);
    fake_complete(&scene.fake, 0);
    fake_complete(&scene.fake, 0);
    fake_settle(&scene.fake);
    compare_progress(job, &progress);
    assert_int_equal(progress.done, CHUNK);
    fake_finish(&scene.fake);
    assert_int_equal(scene.result.depth, 16);
    compare_free(job);
    release_disks();
}

/* ---- Runs ------------------------------------------------------------------------------------- */

static void tell_range(struct runs *runs, uint64_t offset, uint64_t len)
{
    (void)runs;
    range(&scene, offset, len);
}

/* Bytes that differ here and there, at every distance, cut into buffers at any place. */
static void test_runs(void **state)
{
    static const unsigned gaps[] = {1, 2, 510, 511, 512, 513, 514, 4000, 4096, 4097, 9000};
    static const struct job job = {.name = "runs", .size = {64 * KIB, 64 * KIB}};
    const unsigned cuts[] = {1, 511, 512, 4096, 5000, 64 * KIB};

    (void)state;
    for (size_t i = 0; i < COUNT(gaps) * COUNT(gaps); i++) {
        init_disks(&job, 0, true);
        for (uint64_t at = i; at < job.size[0];) {
            scene.disks[1].written[at] ^= 1;
            at += gaps[i % COUNT(gaps)];
            if (at < job.size[0])
                scene.disks[1].written[at] ^= 1;
            at += gaps[i / COUNT(gaps)];
        }
        for (size_t c = 0; c < COUNT(cuts); c++) {
            struct runs runs = {.tell = tell_range};
            unsigned cut = cuts[c];

            scene.range_count = 0;
            for (uint64_t at = 0; at < job.size[0]; at += cut)
                runs_add(&runs, at, scene.disks[0].written + at, scene.disks[1].written + at,
                         min_u64(cut, job.size[0] - at));
            runs_settle(&runs, UINT64_MAX);
            scene.result.ranges = scene.range_count;
            scene.result.range_bytes = 0;
            for (unsigned r = 0; r < scene.range_count; r++)
                scene.result.range_bytes += scene.ranges[r].len;
            check_ranges(job.size[0]);
        }
        release_disks();
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order),
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_every_stop),
        cmocka_unit_test(test_what_lies_beyond_is_not_waited_for),
        cmocka_unit_test(test_reads_no_more_than_needed),
        cmocka_unit_test(test_progress_and_depth),
        cmocka_unit_test(test_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
