/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine with one lane: small jobs under every order of completion, every single fault, every
 * restart of the server, and stopped at every point. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct job {
    const char *name;
    unsigned sample;            /* so many orders are tried; 0: all */
    uint64_t size, target_size; /* of the image, of the target */
    uint32_t chunk;
    unsigned depth;
    bool in_order;
    unsigned caps;         /* of the target; BLK_BARE: with a head */
    uint32_t align;        /* of the target; 0: 1 */
    uint32_t max_transfer; /* of both; 0: no limit */
    unsigned max_depth;    /* of both; 0: no limit */
    uint64_t stride;       /* thin disks; 0: every byte exists */
    bool write_through;
};

/* ---- One run ---------------------------------------------------------------------------------- */

struct scene {
    const struct job *job;
    struct fake fake;
    struct fake_disk source, target, before; /* before: the target as it was */
    struct fake_end from, to;
    struct odometer odometer;
    struct run run;
    uint64_t most_held; /* bytes that were read, or being read, and not written, at any time */
    unsigned hits;      /* runs that a fault or a disturbance came to pass in */
    unsigned failures;
};

static void init_disk(struct scene *scene, struct fake_disk *disk, uint64_t size)
{
    const struct job *job = scene->job;

    fake_disk_init(disk, &scene->fake, size, job->stride);
    if (job->max_transfer)
        disk->limits.max_read = disk->limits.max_write = job->max_transfer;
    if (job->max_depth)
        disk->limits.max_depth = job->max_depth;
}

static uint64_t head_of(const struct job *job)
{
    return (job->caps & BLK_BARE) && !job->in_order ? min_u64(TARGET_HEAD, job->size) : 0;
}

static void scene_init(struct scene *scene, const struct job *job)
{
    memset(scene, 0, sizeof(*scene));
    scene->job = job;
    fake_init(&scene->fake);
    init_disk(scene, &scene->source, job->size);
    init_disk(scene, &scene->before, job->target_size);
    fake_disk_fill(&scene->source, 1);
    fake_disk_fill(&scene->before, 1000000);
    /* The same system was deployed before: what it would boot from is there, the rest is not. */
    if (head_of(job) < job->size)
        memcpy(scene->before.written, scene->source.durable,
               fake_disk_index(&scene->source, head_of(job)));
    memcpy(scene->before.durable, scene->before.written,
           fake_disk_index(&scene->before, job->target_size));
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->before);
    fake_release(&scene->fake);
}

static bool unchanged(const struct scene *scene, uint64_t from)
{
    uint64_t first = fake_disk_index(&scene->before, from);
    uint64_t len = fake_disk_index(&scene->before, scene->job->target_size) - first;

    return memcmp(scene->target.written + first, scene->before.written + first, len) == 0 &&
           memcmp(scene->target.durable + first, scene->before.durable + first, len) == 0;
}

/* At every moment: a target that can be taken for a finished one is one, and the job holds no more
 * than its slots. */
static void look(struct run *run)
{
    struct scene *scene = run->opaque;
    const struct job *job = scene->job;
    uint64_t head = head_of(job), size = job->size;
    uint64_t held = scene->source.bytes_asked - scene->target.bytes_landed;

    if (head > 0 && fake_disk_resembles(&scene->target, &scene->source, 0, head))
        must(run->fake, head == size || unchanged(scene, head) ||
                            fake_disk_holds(&scene->target, &scene->source, head, size));
    if (job->caps & BLK_BARE)
        return; /* reads for other reasons, and writes twice */
    must(run->fake, held <= (uint64_t)job->depth * job->chunk);
    if (held > scene->most_held)
        scene->most_held = held;
}

/* Whose fault it was, and what it was. */
static void check_reason(const struct scene *scene)
{
    const struct run *run = &scene->run;
    const char *text = run->result.error.text;

    if (atomic_load(&run->fake->fault_hit)) {
        must(run->fake,
             run->result.status == -(run->fake->fault.code ? run->fake->fault.code : EIO));
        must(run->fake,
             strstr(text, run->fake->fault.code ? "the fake says no" : "ended at offset"));
    } else {
        must(run->fake, run->disturbance.what == DISTURB_RESTART && run->disturbed);
        must(run->fake, run->result.status == -EIO && strstr(text, "restarted"));
    }
    if (strncmp(text, "source: ", 8) == 0)
        must(run->fake, strstr(text, "fake:a"));
    else
        must(run->fake, strncmp(text, "target: ", 8) == 0 && strstr(text, "fake:b"));
}

static bool stopped(const struct run *run)
{
    return run->disturbed && run->disturbance.what != DISTURB_RESTART;
}

static void check_failure(const struct scene *scene)
{
    const struct run *run = &scene->run;
    uint64_t head = head_of(scene->job);

    must(run->fake, run->result.error.code == -run->result.status && run->result.error.text[0]);
    if (!stopped(run)) {
        check_reason(scene);
        return;
    }
    must(run->fake, run->result.status == -ECANCELED);
    /* What was aborted may have happened all the same; what was drained is known. */
    if (run->disturbance.what == DISTURB_STOP && head > 0)
        must(run->fake, !fake_disk_resembles(&scene->target, &scene->source, 0, head) ||
                            unchanged(scene, head));
}

static void check_end(const struct scene *scene)
{
    const struct run *run = &scene->run;
    const struct job *job = scene->job;

    must(run->fake, scene->source.open == 0 && scene->target.open == 0);
    must(run->fake, unchanged(scene, job->size));
    if (!run->result.touched)
        must(run->fake, unchanged(scene, 0));
    if (run->result.status < 0) {
        check_failure(scene);
        return;
    }
    must(run->fake, run->result.error.code == 0 && run->result.error.text[0] == '\0');
    must(run->fake, run->result.bytes == job->size);
    must(run->fake, run->result.buffer_bytes == (uint64_t)job->depth * job->chunk);
    must(run->fake, fake_disk_holds(&scene->target, &scene->source, 0, job->size));
    must(run->fake, !atomic_load(&run->fake->fault_hit));
}

static void run_once(struct scene *scene, const struct fake_fault *fault,
                     const struct disturbance *disturbance, unsigned chosen)
{
    const struct job *job = scene->job;
    struct fake_disk *target = &scene->target;

    init_disk(scene, target, job->target_size);
    fake_disk_copy(target, &scene->before);
    target->caps = job->caps;
    target->write_through = job->write_through;
    if (job->align)
        target->limits.align = job->align;
    if (job->in_order)
        target->in_order = job->chunk;
    target->ascending_from = head_of(job);
    fake_end_disk(&scene->to, target, "fake", "b");
    scene->source.bytes_asked = 0;
    scene->fake.submitted = 0;
    scene->fake.fault_hit = false;
    scene->fake.fault = fault ? *fault : (struct fake_fault){0};
    scene->run = (struct run){
        .fake = &scene->fake,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .target = &scene->to.url,
                .depth = job->depth,
                .lanes = 1,
                .chunk = job->chunk,
                .in_order = job->in_order,
                .overwrite = true,
            },
        .target = target,
        .odometer = &scene->odometer,
        .chosen = chosen,
        .disturbance = disturbance ? *disturbance : (struct disturbance){0},
        .look = look,
        .opaque = scene,
        .name = job->name,
    };
    run_job(&scene->run);
    check_end(scene);
    fake_disk_release(target);
    scene->hits += atomic_load(&scene->fake.fault_hit) || scene->run.disturbed;
    scene->failures += scene->run.result.status < 0;
}

/* ---- Every order ------------------------------------------------------------------------------ */

#define KI   *1024
#define MI   *(1024 * 1024)
#define THIN .stride = 64 KI

static const struct job jobs[] = {
    {.name = "three chunks", .size = 12 KI, .target_size = 16 KI, .chunk = 4 KI, .depth = 3},
    {.name = "five chunks", .size = 20 KI, .target_size = 20 KI, .chunk = 4 KI, .depth = 2},
    {.name = "one slot", .size = 17 KI, .target_size = 20 KI, .chunk = 4 KI, .depth = 1},
    {.name = "every write durable at once",
     .size = 12 KI,
     .target_size = 12 KI,
     .chunk = 4 KI,
     .depth = 2,
     .write_through = true},
    {.name = "in order",
     .size = 16 KI,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 3,
     .in_order = true},
    {.name = "in order, in pieces",
     .sample = 300,
     .size = 12 KI,
     .target_size = 12 KI,
     .chunk = 4 KI,
     .depth = 2,
     .in_order = true,
     .max_transfer = 2 KI},
    {.name = "pieces",
     .size = 8 KI,
     .target_size = 9 KI,
     .chunk = 4 KI,
     .depth = 2,
     .max_transfer = 2 KI},
    {.name = "pieces, one at a time",
     .size = 12 KI,
     .target_size = 12 KI,
     .chunk = 4 KI,
     .depth = 2,
     .max_transfer = 2 KI,
     .max_depth = 1},
    {.name = "LUN",
     .size = 1536 KI,
     .target_size = 2 MI,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO,
     .align = 512,
     THIN},
    {.name = "LUN without FUA and ZERO",
     .size = 1536 KI,
     .target_size = 2 MI,
     .chunk = 256 KI,
     .depth = 3,
     .caps = BLK_BARE,
     .align = 512,
     THIN},
    {.name = "LUN, head in pieces",
     .size = 1280 KI,
     .target_size = 1280 KI,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_BARE,
     .align = 512,
     .max_transfer = 256 KI,
     .max_depth = 2,
     THIN},
    {.name = "LUN, image within the head",
     .size = 12 KI,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 3,
     .caps = BLK_BARE,
     .align = 512},
    {.name = "LUN, head ends within a chunk",
     .sample = 300,
     .size = 12 MI,
     .target_size = 12 MI,
     .chunk = 768 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 512,
     THIN},
    {.name = "LUN, odd image in the head",
     .size = 4 KI + 100,
     .target_size = 8 KI,
     .chunk = 4 KI,
     .depth = 2,
     .caps = BLK_BARE,
     .align = 512},
    {.name = "LUN of 4096-byte blocks, odd image in the head",
     .size = 4 KI + 100,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 4 KI},
    {.name = "LUN of 4096-byte blocks, odd image",
     .size = 1280 KI + 8,
     .target_size = 2 MI,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_ZERO,
     .align = 4 KI,
     THIN},
    {.name = "LUN in order",
     .size = 12 KI + 100,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 2,
     .in_order = true,
     .caps = BLK_BARE,
     .align = 512},
};

static void each_job(void (*with)(struct scene *scene))
{
    for (size_t i = 0; i < COUNT(jobs); i++) {
        struct scene scene;

        scene_init(&scene, &jobs[i]);
        with(&scene);
        scene_release(&scene);
    }
}

/* No more orders than `most`. */
static void each_order(struct scene *scene, const struct fake_fault *fault,
                       const struct disturbance *disturbance, unsigned most)
{
    unsigned sample = scene->job->sample;

    scene->odometer = (struct odometer){.sample = sample && sample < most ? sample : most};
    do
        run_once(scene, fault, disturbance, CHOOSE_REQS);
    while (odometer_next(&scene->odometer));
}

/* ---- Without any fault ------------------------------------------------------------------------ */

static void all_orders(struct scene *scene)
{
    scene->odometer = (struct odometer){.sample = scene->job->sample};
    do {
        run_once(scene, NULL, NULL, CHOOSE_REQS);
        must(&scene->fake, scene->run.result.status == 0);
    } while (odometer_next(&scene->odometer));
    if (!(scene->job->caps & BLK_BARE)) /* and uses the slots that it has */
        must(&scene->fake, scene->most_held == (uint64_t)scene->job->depth * scene->job->chunk);
}

static void test_orders(void **state)
{
    (void)state;
    each_job(all_orders);
}

/* Operations of a job to which nothing happens, and so its completions; closing is the last two. */
static unsigned operations(struct scene *scene)
{
    scene->odometer = (struct odometer){0};
    run_once(scene, NULL, NULL, 0);
    must(&scene->fake,
         scene->run.result.status == 0 && scene->run.completions == scene->fake.submitted);
    return scene->fake.submitted;
}

/* ---- Faults ----------------------------------------------------------------------------------- */

static void fail_each(struct scene *scene, int code, bool applies)
{
    unsigned count = operations(scene);

    for (unsigned i = 1; i <= count; i++) {
        struct fake_fault fault = {.number = i, .code = code, .applies = applies};

        scene->hits = 0;
        each_order(scene, &fault, NULL, SAMPLE(8));
        if (code != 0)
            must(&scene->fake, scene->hits > 0 || i > count - 2);
    }
}

static void all_faults(struct scene *scene)
{
    fail_each(scene, ENOSPC, false);
    fail_each(scene, ENOSPC, true);
}

static void test_faults(void **state)
{
    (void)state;
    each_job(all_faults);
}

/* A source that ends early. (The look at its partition table does not mind.) */
static void all_short_reads(struct scene *scene)
{
    if (scene->job->caps & BLK_BARE)
        return;
    scene->failures = 0;
    fail_each(scene, 0, false);
    must(&scene->fake, scene->failures > 0);
}

static void test_short_reads(void **state)
{
    (void)state;
    each_job(all_short_reads);
}

/* ---- Restarts of the server ------------------------------------------------------------------- */

static unsigned disturb_each(struct scene *scene, enum disturb what)
{
    unsigned count = operations(scene), failures = scene->failures;

    for (unsigned i = 0; i < 2 * count; i++) {
        struct disturbance disturbance = {.what = what, .when = i / 2, .late = i % 2};

        scene->hits = 0;
        each_order(scene, NULL, &disturbance, SAMPLE(6));
        must(&scene->fake, scene->hits > 0);
    }
    return scene->failures - failures;
}

/* Never success without the data, and failure only where something was lost. */
static void all_restarts(struct scene *scene)
{
    const struct job *job = scene->job;
    bool fua_only = (job->caps & BLK_CAN_FUA) && head_of(job) == job->size;
    unsigned failures = disturb_each(scene, DISTURB_RESTART);

    must(&scene->fake, job->write_through || fua_only ? failures == 0 : failures > 0);
}

static void test_restarts(void **state)
{
    (void)state;
    each_job(all_restarts);
}

/* ---- Stopped ---------------------------------------------------------------------------------- */

static void all_stops(struct scene *scene)
{
    must(&scene->fake, disturb_each(scene, DISTURB_STOP) > 0);
}

static void all_stuck(struct scene *scene)
{
    must(&scene->fake, disturb_each(scene, DISTURB_STUCK) > 0);
}

static void all_aborts(struct scene *scene)
{
    must(&scene->fake, disturb_each(scene, DISTURB_ABORT) > 0);
    scene->fake.cancel_applies = true;
    must(&scene->fake, disturb_each(scene, DISTURB_ABORT) > 0);
}

static void test_stop(void **state)
{
    (void)state;
    each_job(all_stops);
}

static void test_stop_when_stuck(void **state)
{
    (void)state;
    each_job(all_stuck);
}

static void test_abort(void **state)
{
    (void)state;
    each_job(all_aborts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),      cmocka_unit_test(test_faults),
        cmocka_unit_test(test_short_reads), cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_stop),        cmocka_unit_test(test_stop_when_stuck),
        cmocka_unit_test(test_abort),
    };

    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
