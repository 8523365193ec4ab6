/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine with a source that has no size and cannot be read again: every order of completion, every
 * fault, every restart of the target's server, and stopped at every point. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define KI           *1024
#define MI           *(1024 * 1024)
#define THIN         .stride = 64 KI

struct job {
    const char *name;
    unsigned sample;            /* so many orders are tried; 0: all */
    uint64_t size, target_size; /* of the stream; of the target, 0: a new file */
    uint32_t chunk;
    unsigned depth;
    unsigned caps; /* of the target */
    uint32_t align;
    uint32_t max_transfer; /* of the target; 0: no limit */
    uint64_t stride;
    bool in_order, verify;
    int outcome; /* of a job to which nothing happens */
};

static const struct job jobs[] = {
    {.name = "new file", .size = 20 KI, .chunk = 4 KI, .depth = 3, .caps = BLK_CAN_FUA},
    {.name = "new file, odd", .size = 17 KI + 5, .chunk = 4 KI, .depth = 2, .caps = BLK_CAN_FUA},
    {.name = "new file, one slot", .size = 9 KI, .chunk = 4 KI, .depth = 1, .caps = BLK_CAN_FUA},
    {.name = "new file, less than a chunk",
     .size = 100,
     .chunk = 4 KI,
     .depth = 4,
     .caps = BLK_CAN_FUA},
    {.name = "new file without FUA", .size = 10 KI, .chunk = 4 KI, .depth = 2},
    {.name = "new file in pieces",
     .sample = 300,
     .size = 10 KI,
     .chunk = 4 KI,
     .depth = 2,
     .max_transfer = 2 KI,
     .caps = BLK_CAN_FUA},
    {.name = "new file in order",
     .size = 14 KI,
     .chunk = 4 KI,
     .depth = 3,
     .caps = BLK_CAN_FUA,
     .in_order = true},
    {.name = "new file, verified",
     .sample = 100,
     .size = 700 KI + 11,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_CAN_FUA,
     .verify = true},
    {.name = "new file of many granules",
     .sample = 20,
     .size = 50 MI + 3,
     .chunk = 4 MI,
     .depth = 3,
     .caps = BLK_CAN_FUA,
     THIN},
    {.name = "what exists and has no head",
     .size = 14 KI,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 3,
     .caps = BLK_CAN_FUA},
    {.name = "as long as what exists",
     .size = 16 KI,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 3,
     .caps = BLK_CAN_FUA},
    {.name = "LUN",
     .size = 1536 KI + 100,
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
    {.name = "LUN, stream within the head",
     .size = 5 KI,
     .target_size = 2 MI,
     .chunk = 4 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 512},
    {.name = "LUN, stream as long as the head",
     .size = 1 MI,
     .target_size = 2 MI,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 512,
     THIN},
    {.name = "LUN, stream longer by a byte",
     .size = 2 MI + 1,
     .target_size = 2 MI,
     .chunk = 256 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 512,
     THIN,
     .outcome = -ENOSPC},
    {.name = "LUN no longer than a head, stream longer",
     .size = 20 KI,
     .target_size = 16 KI,
     .chunk = 4 KI,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .align = 512,
     .outcome = -ENOSPC},
};

/* ---- One run ---------------------------------------------------------------------------------- */

struct scene {
    const struct job *job;
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, target, before;
    struct fake_end from, to;
    struct odometer odometer;
    struct run run;
    unsigned hits;
};

static void init_disk(struct scene *scene, struct fake_disk *disk, uint64_t size)
{
    fake_disk_init(disk, &scene->fake, size, scene->job->stride);
    disk->caps = scene->job->caps;
    if (scene->job->align)
        disk->limits.align = scene->job->align;
    if (scene->job->max_transfer)
        disk->limits.max_read = disk->limits.max_write = scene->job->max_transfer;
}

static bool is_new(const struct scene *scene)
{
    return scene->job->target_size == 0;
}

static uint64_t head_of(const struct job *job)
{
    return job->caps & BLK_BARE ? min_u64(TARGET_HEAD, min_u64(job->size, job->target_size)) : 0;
}

static void scene_init(struct scene *scene, const struct job *job)
{
    memset(scene, 0, sizeof(*scene));
    scene->job = job;
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, job->size, job->stride);
    fake_disk_fill(&scene->source, 1);
    fake_end_disk(&scene->from, &scene->source, "stream", "a");
    if (is_new(scene))
        return;
    init_disk(scene, &scene->before, job->target_size);
    fake_disk_fill(&scene->before, 1000000);
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    if (!is_new(scene))
        fake_disk_release(&scene->before);
    fake_release(&scene->fake);
}

static void set_stage(struct scene *scene)
{
    if (!is_new(scene)) {
        init_disk(scene, &scene->target, scene->job->target_size);
        fake_disk_copy(&scene->target, &scene->before);
        fake_end_disk(&scene->to, &scene->target, "fake", "b");
        return;
    }
    fake_fs_init(&scene->fs, &scene->fake);
    scene->fs.thin = scene->job->stride;
    scene->fs.like.caps = scene->job->caps;
    if (scene->job->max_transfer)
        scene->fs.like.limits.max_write = scene->job->max_transfer;
    fake_end_file(&scene->to, &scene->fs, "b");
}

static void clear_stage(struct scene *scene)
{
    if (is_new(scene))
        fake_fs_release(&scene->fs);
    else
        fake_disk_release(&scene->target);
}

static bool is_stopped(const struct run *run)
{
    return run->disturbed && run->disturbance.what != DISTURB_RESTART;
}

/* Who may say nothing for ever is not waited for. */
static void check_waiting(const struct run *run)
{
    for (unsigned i = 0; i < run->fake->pending_count && is_stopped(run); i++) {
        const struct fake_op *op = &run->fake->pending[i];
        bool streams = op->kind == FAKE_REQ && strcmp(op->req->dev->driver->scheme, "stream") == 0;

        must(run->fake, !streams || op->cancelled);
    }
}

/* At every moment: what has the name, or a head, is all there. */
static void look(struct run *run)
{
    struct scene *scene = run->opaque;
    const struct job *job = scene->job;
    uint64_t head = head_of(job);

    check_waiting(run);
    if (is_new(scene)) {
        const struct fake_file *file = fake_fs_find(&scene->fs, "b");

        must(run->fake, !file || (file->disk->size == job->size &&
                                  fake_disk_holds(file->disk, &scene->source, 0, job->size)));
    } else if (head > 0 && fake_disk_resembles(&scene->target, &scene->source, 0, head)) {
        must(run->fake,
             job->outcome == 0 && fake_disk_holds(&scene->target, &scene->source, head, job->size));
    }
}

static void check_success(const struct scene *scene)
{
    const struct run *run = &scene->run;
    const struct job *job = scene->job;
    const struct fake_disk *target = &scene->target;

    if (is_new(scene))
        target = fake_fs_find((struct fake_fs *)(uintptr_t)&scene->fs, "b")->disk;
    must(run->fake, job->outcome == 0);
    must(run->fake, run->result.bytes == job->size);
    must(run->fake, fake_disk_holds(target, &scene->source, 0, job->size));
    /* What a directory refuses may be of no consequence. */
    must(run->fake, is_new(scene) || !atomic_load(&run->fake->fault_hit));
}

/* What lies behind the stream stays, whatever comes of it. */
static void check_end(struct scene *scene)
{
    const struct run *run = &scene->run;
    uint64_t first, len;

    must(run->fake, scene->source.open == 0);
    must(run->fake, !run->result.resumable);
    if (run->result.status == 0)
        check_success(scene);
    else if (is_new(scene))
        must(run->fake, !run->result.kept || !fake_fs_find(&scene->fs, "b"));
    if (is_new(scene) || scene->job->size >= scene->job->target_size)
        return;
    first = fake_disk_index(&scene->before, scene->job->size);
    len = fake_disk_index(&scene->before, scene->job->target_size) - first;
    must(run->fake, memcmp(scene->target.written + first, scene->before.written + first, len) == 0);
}

static void run_once(struct scene *scene, const struct fake_fault *fault,
                     const struct disturbance *disturbance, unsigned chosen)
{
    const struct job *job = scene->job;

    set_stage(scene);
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
                .verify = job->verify,
                .overwrite = true,
            },
        .source = &scene->source,
        .target = is_new(scene) ? NULL : &scene->target,
        .fs = is_new(scene) ? &scene->fs : NULL,
        .odometer = &scene->odometer,
        .chosen = chosen,
        .disturbance = disturbance ? *disturbance : (struct disturbance){0},
        .look = look,
        .opaque = scene,
        .name = job->name,
    };
    run_job(&scene->run);
    check_end(scene);
    clear_stage(scene);
    scene->hits += atomic_load(&scene->fake.fault_hit) || scene->run.disturbed;
}

static void each_job(void (*with)(struct scene *scene))
{
    for (size_t i = 0; i < COUNT(jobs); i++) {
        struct scene scene;

        scene_init(&scene, &jobs[i]);
        with(&scene);
        scene_release(&scene);
    }
}

static void each_order(struct scene *scene, const struct fake_fault *fault,
                       const struct disturbance *disturbance, unsigned most)
{
    scene->odometer = (struct odometer){.sample = most};
    do
        run_once(scene, fault, disturbance, CHOOSE_REQS);
    while (odometer_next(&scene->odometer));
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void all_orders(struct scene *scene)
{
    scene->odometer = (struct odometer){.sample = scene->job->sample};
    do {
        run_once(scene, NULL, NULL, CHOOSE_REQS);
        must(&scene->fake, scene->run.result.status == scene->job->outcome);
    } while (odometer_next(&scene->odometer));
}

static void test_orders(void **state)
{
    (void)state;
    each_job(all_orders);
}

/* Operations of a job to which nothing happens. */
static unsigned operations(struct scene *scene)
{
    scene->odometer = (struct odometer){0};
    run_once(scene, NULL, NULL, 0);
    must(&scene->fake, scene->run.result.status == scene->job->outcome);
    return scene->fake.submitted;
}

static void all_faults(struct scene *scene)
{
    unsigned count = operations(scene);

    for (unsigned i = 1; i <= 2 * count; i++) {
        struct fake_fault fault = {.number = (i + 1) / 2, .code = EDQUOT, .applies = i % 2};

        each_order(scene, &fault, NULL, SAMPLE(6));
    }
}

static void test_faults(void **state)
{
    (void)state;
    each_job(all_faults);
}

static void disturb_each(struct scene *scene, enum disturb what)
{
    unsigned count = operations(scene);

    for (unsigned i = 0; i < 2 * count; i++) {
        struct disturbance disturbance = {.what = what, .when = i / 2, .late = i % 2};

        scene->hits = 0;
        each_order(scene, NULL, &disturbance, SAMPLE(6));
        must(&scene->fake, scene->hits > 0);
        /* Nothing is at risk where each write is durable by itself. (ZERO of a head is not.) */
        if (what == DISTURB_RESTART && (scene->job->caps & BLK_CAN_FUA))
            must(&scene->fake, scene->run.result.status == scene->job->outcome ||
                                   strstr(scene->run.result.error.text, "blanking the head"));
    }
}

static void all_restarts(struct scene *scene)
{
    disturb_each(scene, DISTURB_RESTART);
}

static void test_restarts(void **state)
{
    (void)state;
    each_job(all_restarts);
}

static void all_stops(struct scene *scene)
{
    disturb_each(scene, DISTURB_STOP);
    disturb_each(scene, DISTURB_ABORT);
}

static void test_stop(void **state)
{
    (void)state;
    each_job(all_stops);
}

static void all_stuck(struct scene *scene)
{
    disturb_each(scene, DISTURB_STUCK);
}

static void test_stop_when_stuck(void **state)
{
    (void)state;
    each_job(all_stuck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),          cmocka_unit_test(test_faults),
        cmocka_unit_test(test_restarts),        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_when_stuck),
    };

    return cmocka_run_group_tests_name("streamed", tests, NULL, NULL);
}
