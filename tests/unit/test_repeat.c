/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole jobs over answers that are no success, lost sessions and servers that restart: each of them,
 * at each moment. The job ends as if nothing had been, and copies again just what was lost. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define GRANULE      (256 * KIB)
#define THIN         (64 * KIB)
#define SECOND       LOOP_SECOND
#define GIVE_UP      (60 * SECOND)

struct job {
    const char *name;
    bool file;     /* a new one; otherwise the target is a disk */
    uint64_t size; /* of the image */
    uint32_t chunk;
    unsigned depth;
    unsigned caps;         /* of the target; BLK_BARE: with a head */
    uint32_t max_transfer; /* of both; 0: no limit */
    unsigned max_depth;    /* of both; 0: no limit */
    uint64_t flush_bytes;
    bool epoch_of_session;
    bool in_order, sync, verify;
    bool holes; /* in the source, and, where the target has EXTENTS, in that */
};

static const struct job jobs[] = {
    {.name = "new file",
     .file = true,
     .size = 4 * GRANULE + 1000,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_CAN_FUA},
    {.name = "new file, flushed as it goes",
     .file = true,
     .size = 6 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_CAN_FUA,
     .flush_bytes = 2 * GRANULE},
    {.name = "new file, in small chunks",
     .file = true,
     .size = 2 * GRANULE + 1000,
     .chunk = GRANULE / 2,
     .depth = 3,
     .caps = BLK_CAN_FUA},
    {.name = "new file, in pieces, one at a time",
     .file = true,
     .size = 3 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_CAN_FUA,
     .max_transfer = GRANULE / 2,
     .max_depth = 1},
    {.name = "new file, in order",
     .file = true,
     .size = 4 * GRANULE,
     .chunk = GRANULE,
     .depth = 3,
     .caps = BLK_CAN_FUA,
     .in_order = true},
    {.name = "LUN with a volatile cache",
     .size = 7 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO,
     .epoch_of_session = true},
    {.name = "LUN, flushed as it goes",
     .size = 8 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO,
     .flush_bytes = GRANULE,
     .epoch_of_session = true},
    {.name = "LUN without FUA",
     .size = 7 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_ZERO},
    {.name = "LUN, all within the head",
     .size = 3 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO},
    {.name = "LUN, every write durable",
     .size = 6 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO,
     .sync = true,
     .epoch_of_session = true},
    {.name = "new file, read back",
     .file = true,
     .size = 4 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_CAN_FUA,
     .flush_bytes = 2 * GRANULE,
     .verify = true},
    {.name = "LUN, read back",
     .size = 6 * GRANULE + 512,
     .chunk = 2 * GRANULE,
     .depth = 1,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO,
     .epoch_of_session = true,
     .verify = true},
    {.name = "new file with holes",
     .file = true,
     .size = 6 * GRANULE + 1000,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_CAN_FUA,
     .flush_bytes = 2 * GRANULE,
     .holes = true},
    {.name = "thin LUN, holes",
     .size = 8 * GRANULE,
     .chunk = GRANULE / 2,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_EXTENTS,
     .flush_bytes = 2 * GRANULE,
     .epoch_of_session = true,
     .holes = true},
    {.name = "LUN that cannot zero, holes",
     .size = 8 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA,
     .holes = true},
    {.name = "thin LUN, holes, read back",
     .size = 8 * GRANULE,
     .chunk = GRANULE,
     .depth = 2,
     .caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_EXTENTS,
     .epoch_of_session = true,
     .verify = true,
     .holes = true},
};

struct scene {
    const struct job *job;
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, target;
    struct fake_end from, to;
    struct odometer odometer;
    struct run run;
    uint64_t give_up;
    bool away_for_good; /* once lost, a side is not found again */
    unsigned hits;
};

/* ---- One run ---------------------------------------------------------------------------------- */

static uint64_t head_of(const struct job *job)
{
    return (job->caps & BLK_BARE) && !job->in_order ? min_u64(TARGET_HEAD, job->size) : 0;
}

static void limit(const struct job *job, struct fake_disk *disk)
{
    if (job->max_transfer)
        disk->limits.max_read = disk->limits.max_write = job->max_transfer;
    if (job->max_depth)
        disk->limits.max_depth = job->max_depth;
}

static void scene_init(struct scene *scene, const struct job *job)
{
    memset(scene, 0, sizeof(*scene));
    scene->job = job;
    scene->give_up = GIVE_UP;
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, job->size, THIN);
    limit(job, &scene->source);
    scene->source.zero_between = job->verify || job->holes;
    fake_disk_fill(&scene->source, 1);
    if (job->holes) { /* a granule, and parts of others; all behind any head */
        scene->source.caps |= BLK_CAN_EXTENTS;
        fake_disk_set(&scene->source, 4 * GRANULE + THIN, GRANULE + THIN, BLK_ZEROS);
    }
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_release(&scene->fake);
}

static const struct fake_disk *written_disk(const struct scene *scene)
{
    const struct fake_file *file;

    if (!scene->job->file)
        return &scene->target;
    file = fake_fs_find((struct fake_fs *)&scene->fs, "image");
    return file ? file->disk : NULL;
}

/* At every moment: what can be taken for finished is. */
static void look(struct run *run)
{
    struct scene *scene = run->opaque;
    uint64_t head = head_of(scene->job), size = scene->job->size;
    const struct fake_disk *disk = written_disk(scene);

    if (scene->job->file)
        must(run->fake, !disk || fake_disk_holds(disk, &scene->source, 0, size));
    else if (head > 0 && head < size && fake_disk_resembles(disk, &scene->source, 0, head))
        must(run->fake, fake_disk_holds(disk, &scene->source, head, size));
}

static void prepare(struct scene *scene)
{
    const struct job *job = scene->job;

    scene->fake.submitted = 0;
    scene->fake.failed_opens = 0;
    scene->fake.fault_hit = false;
    scene->fake.fault = (struct fake_fault){0};
    scene->source.recover_lost = scene->away_for_good ? UINT32_MAX : 0;
    fake_fs_init(&scene->fs, &scene->fake);
    scene->fs.thin = THIN;
    scene->fs.like.caps = job->caps;
    scene->fs.like.epoch_of_session = job->epoch_of_session;
    scene->fs.like.recover_lost = scene->fs.recover_lost = scene->source.recover_lost;
    limit(job, &scene->fs.like);
    fake_disk_init(&scene->target, &scene->fake, job->size + 4096, THIN);
    fake_disk_fill(&scene->target, 1000000);
    limit(job, &scene->target);
    scene->target.caps = job->caps;
    scene->target.limits.align = 512;
    scene->target.epoch_of_session = job->epoch_of_session;
    scene->target.zero_between = job->verify || job->holes;
    if (job->holes && (job->caps & BLK_CAN_EXTENTS))
        fake_disk_set(&scene->target, 5 * GRANULE, GRANULE, BLK_ZEROS);
    scene->target.recover_lost = scene->source.recover_lost;
    if (job->file)
        fake_end_file(&scene->to, &scene->fs, "image");
    else
        fake_end_disk(&scene->to, &scene->target, "fake", "b");
}

/* What was prepared, after which a test may change a little; the target is there afterwards. */
static void run(struct scene *scene, const struct disturbance *first,
                const struct disturbance *then)
{
    const struct job *job = scene->job;

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
                .sync = job->sync,
                .verify = job->verify,
                .overwrite = true,
                .zero_unit = job->holes ? 4096 : 0,
                .flush_bytes = job->flush_bytes,
                .settings = {.timeout = 20 * SECOND, .give_up = scene->give_up},
            },
        .source = &scene->source,
        .target = job->file ? NULL : &scene->target,
        .fs = job->file ? &scene->fs : NULL,
        .odometer = &scene->odometer,
        .chosen = CHOOSE_REQS,
        .disturbance = first ? *first : (struct disturbance){0},
        .then = then ? *then : (struct disturbance){0},
        .look = look,
        .opaque = scene,
        .granule = GRANULE,
        .head = head_of(job),
        .name = job->name,
    };
    run_job(&scene->run);
    must(&scene->fake, scene->source.open == 0 && scene->target.open == 0 && scene->fs.open == 0);
}

static void clean_up(struct scene *scene)
{
    fake_fs_release(&scene->fs);
    fake_disk_release(&scene->target);
}

/* All is there, durably, and nothing else is. */
static void check_complete(struct scene *scene)
{
    const struct run *run = &scene->run;

    must(&scene->fake, run->result.status == 0 && run->result.error.code == 0);
    must(&scene->fake, run->result.bytes == scene->job->size);
    must(&scene->fake, fake_disk_holds(written_disk(scene), &scene->source, 0, scene->job->size));
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        const char *name = scene->fs.files[i].name;

        /* What could not be removed is told of. */
        must(&scene->fake, !name[0] || strcmp(name, "image") == 0 ||
                               (scene->away_for_good && strstr(run->notice, " is still there")));
    }
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

/* So many are tried. Digests take a thousand times as long as all the rest. */
static unsigned orders(const struct scene *scene, unsigned most)
{
    return scene->job->verify || scene->job->holes ? 1 : SAMPLE(most);
}

/* And so many moments are passed over. */
static unsigned stride(const struct scene *scene)
{
    return scene->job->verify || scene->job->holes ? 3 : 1;
}

/* Operations of a job to which nothing happens. */
static unsigned operations(struct scene *scene)
{
    unsigned count;

    scene->odometer = (struct odometer){0};
    prepare(scene);
    run(scene, NULL, NULL);
    check_complete(scene);
    count = scene->fake.submitted;
    must(&scene->fake, scene->run.completions == count && scene->run.notices == 0);
    must(&scene->fake, scene->run.begun == scene->run.ended);
    must(&scene->fake, scene->run.result.repeated == 0 && scene->run.result.lost == 0);
    clean_up(scene);
    return count;
}

/* ---- Answers that are no success -------------------------------------------------------------- */

/* What fails while it is opened for the first time is not repeated. */
static bool failed_to_open(struct scene *scene)
{
    if (scene->fake.failed_opens == 0)
        return false;
    must(&scene->fake, scene->run.result.status < 0);
    must(&scene->fake, scene->run.result.kept || !scene->job->file);
    return true;
}

/* One answer, as the class wants it. */
static void check_answer(struct scene *scene, const struct fake_fault *fault)
{
    const struct copy_result *result = &scene->run.result;

    if (!atomic_load(&scene->fake.fault_hit) || failed_to_open(scene))
        return;
    check_complete(scene);
    scene->hits++;
    /* What is lost while all is closed is not counted any more. */
    must(&scene->fake, result->losses == (fault->retry == BLK_LOST) ||
                           scene->fake.faulted_store_op == STORE_READ ||
                           scene->fake.faulted_store_op == STORE_REMOVE);
    must(&scene->fake, result->mended == 0 && result->bad == 0);
}

static void one_answer(struct scene *scene, const struct fake_fault *fault)
{
    scene->odometer = (struct odometer){.sample = orders(scene, 4)};
    do {
        prepare(scene);
        scene->fake.fault = *fault;
        run(scene, NULL, NULL);
        check_answer(scene, fault);
        clean_up(scene);
    } while (odometer_next(&scene->odometer));
}

static void all_answers(struct scene *scene)
{
    static const enum blk_retry kinds[] = {BLK_AGAIN, BLK_REPEAT, BLK_RECHECK, BLK_LOST};
    unsigned count = operations(scene);

    for (unsigned number = 1; number <= count; number++) {
        for (size_t kind = 0; kind < 2 * COUNT(kinds); kind++) {
            struct fake_fault fault = {
                .number = number, .code = EIO, .retry = kinds[kind / 2], .applies = kind % 2};

            one_answer(scene, &fault);
        }
    }
    must(&scene->fake, scene->hits > 3 * count);
}

static void test_answers(void **state)
{
    (void)state;
    each_job(all_answers);
}

/* ---- Lost sessions, restarts, crashes --------------------------------------------------------- */

/* Each loss is told of when it comes and when it is over, and counted. */
static void check_notices(struct scene *scene)
{
    const struct run *run = &scene->run;
    unsigned away = 0, back = 0;

    for (const char *at = run->notice; (at = strstr(at, " is away: ")); at++)
        away++;
    for (const char *at = run->notice; (at = strstr(at, " is back after ")); at++)
        back++;
    must(&scene->fake, run->notices == away + back && away == back);
    /* What is lost while all is closed is not counted any more. */
    must(&scene->fake, run->result.losses == away || run->result.losses + 1 == away);
    /* A directory and a device in it have sessions of their own here. */
    must(&scene->fake, away <= 1 || (away == 2 && scene->job->file));
}

/* Only what was lost is copied again, and all of that. */
static void check_lost(struct scene *scene)
{
    const struct run *run = &scene->run;
    enum disturb what = run->disturbance.what;
    uint64_t head = head_of(scene->job), lost = run->result.lost;
    bool known = !run->disturbance.applies && (scene->job->caps & BLK_CAN_FUA);

    if (what == DISTURB_LOSE_SOURCE)
        must(&scene->fake, lost == 0);
    if (what == DISTURB_LOSE_TARGET && (!scene->job->epoch_of_session || scene->job->sync))
        must(&scene->fake, lost == 0);
    if (what == DISTURB_RESTART || (what == DISTURB_CRASH && known))
        must(&scene->fake, head == scene->job->size || lost == run->unflushed);
    if (scene->job->holes) /* not all of it lands */
        return;
    if (known && !scene->job->file)
        must(&scene->fake, scene->target.bytes_landed == scene->job->size + lost);
    must(&scene->fake, known || written_disk(scene)->bytes_landed >= scene->job->size + lost);
}

static void one_disturbance(struct scene *scene, const struct disturbance *disturbance)
{
    scene->odometer = (struct odometer){.sample = orders(scene, 4)};
    do {
        prepare(scene);
        run(scene, disturbance, NULL);
        if (!failed_to_open(scene)) {
            check_complete(scene);
            check_notices(scene);
            check_lost(scene);
            scene->hits += scene->run.result.losses > 0 || scene->run.result.lost > 0;
        }
        clean_up(scene);
    } while (odometer_next(&scene->odometer));
}

static void each_moment(struct scene *scene, enum disturb what)
{
    unsigned count = operations(scene);

    scene->hits = 0;
    for (unsigned i = 0; i < 4 * count; i += stride(scene)) {
        struct disturbance disturbance = {
            .what = what, .when = i / 4, .late = i / 2 % 2, .applies = i % 2};

        if (what != DISTURB_RESTART || !disturbance.applies)
            one_disturbance(scene, &disturbance);
    }
}

static void all_losses(struct scene *scene)
{
    each_moment(scene, DISTURB_LOSE_SOURCE);
    must(&scene->fake, scene->hits > 2);
    each_moment(scene, DISTURB_LOSE_TARGET);
    must(&scene->fake, scene->hits > 2);
}

static void test_losses(void **state)
{
    (void)state;
    each_job(all_losses);
}

static void all_restarts(struct scene *scene)
{
    each_moment(scene, DISTURB_RESTART);
    must(&scene->fake, scene->job->sync || head_of(scene->job) == scene->job->size
                           ? scene->hits == 0
                           : scene->hits > 1);
    each_moment(scene, DISTURB_CRASH);
    must(&scene->fake, scene->hits > 2);
}

static void test_restarts(void **state)
{
    (void)state;
    each_job(all_restarts);
}

/* ---- A target that loses all the time --------------------------------------------------------- */

/* Before each FLUSH, which then finds that all was in vain. */
static void restart_before_flush(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);

    if (op->kind != FAKE_REQ || op->req->op != BLK_FLUSH)
        return;
    fake_disk_restart(scene->job->file ? fake_fs_temporary(&scene->fs)->disk : &scene->target);
}

/* Four times over, and then each write is durable by itself. */
static void always_losing(struct scene *scene)
{
    const struct job *job = scene->job;
    const struct copy_result *result = &scene->run.result;
    bool fua = job->caps & BLK_CAN_FUA;
    uint64_t data = job->size - head_of(job);

    scene->odometer = (struct odometer){0};
    prepare(scene);
    scene->fake.before = restart_before_flush;
    run(scene, NULL, NULL);
    scene->fake.before = NULL;
    if (fua) {
        check_complete(scene);
        if (job->sync || data == 0)
            must(&scene->fake, result->lost == 0);
        else if (job->flush_bytes == 0)
            must(&scene->fake, result->lost == 4 * data);
        else
            must(&scene->fake, result->lost > 0 && result->lost <= 4 * data);
    } else {
        must(&scene->fake, result->status == -EIO);
        must(&scene->fake, strncmp(result->error.text, "target: ", 8) == 0);
        must(&scene->fake, strstr(result->error.text, "the server restarted between the write"));
        must(&scene->fake, !fake_disk_resembles(&scene->target, &scene->source, 0, TARGET_HEAD));
    }
    clean_up(scene);
}

static void test_always_losing(void **state)
{
    (void)state;
    each_job(always_losing);
}

/* Without repeating a loss is the end, which says what was lost. */
static void no_repeating(struct scene *scene)
{
    unsigned count = operations(scene), failures = 0;

    if (scene->job->sync || head_of(scene->job) == scene->job->size)
        return;
    scene->give_up = 0;
    for (unsigned i = 0; i < count; i++) {
        struct disturbance disturbance = {.what = DISTURB_RESTART, .when = i, .late = true};
        const struct copy_result *result = &scene->run.result;

        scene->odometer = (struct odometer){0};
        prepare(scene);
        run(scene, &disturbance, NULL);
        if (result->status == 0) {
            check_complete(scene);
            must(&scene->fake, scene->run.unflushed == 0 || head_of(scene->job) > 0);
        } else {
            must(&scene->fake, result->status == -EIO);
            must(&scene->fake, strstr(result->error.text, "restarted"));
            failures++;
        }
        must(&scene->fake, result->lost == 0);
        clean_up(scene);
    }
    must(&scene->fake, failures > 0);
}

static void test_no_repeating(void **state)
{
    (void)state;
    each_job(no_repeating);
}

/* ---- Stopped ---------------------------------------------------------------------------------- */

/* A session is lost, for good or not, and some moments later the job is stopped. What is on the wire
 * has its time, and so has the closing. */
static void stop_later(struct scene *scene, const struct disturbance *first, enum disturb what)
{
    for (unsigned later = 0; later < 10; later++) {
        struct disturbance then = {
            .what = what, .when = first->when + later / 2, .late = later % 2};
        const struct run *end = &scene->run;

        scene->odometer = (struct odometer){.sample = 1};
        prepare(scene);
        run(scene, first, &then);
        if (end->result.status == 0)
            check_complete(scene);
        else if (!failed_to_open(scene))
            must(&scene->fake, end->result.status == -ECANCELED);
        if (end->stopped)
            must(&scene->fake, end->ended - end->stopped <= 2 * COPY_DRAIN + SECOND);
        scene->hits += end->result.status == -ECANCELED;
        /* The temporary file goes, or is told of. */
        if (scene->job->file && fake_fs_temporary(&scene->fs))
            must(&scene->fake,
                 scene->away_for_good && strstr(end->notice, "the temporary file is still there"));
        clean_up(scene);
    }
}

static void stop_each_moment(struct scene *scene)
{
    static const enum disturb losses[] = {DISTURB_LOSE_SOURCE, DISTURB_LOSE_TARGET, DISTURB_CRASH};
    unsigned count = operations(scene);

    for (int how = 0; how < 4; how++) {
        scene->away_for_good = how % 2;
        scene->hits = 0;
        for (unsigned i = 0; i < count; i += stride(scene)) {
            struct disturbance first = {.what = losses[i % 3], .when = i, .late = i % 2};

            stop_later(scene, &first, how / 2 ? DISTURB_ABORT : DISTURB_STOP);
        }
        must(&scene->fake, scene->hits > count / stride(scene));
    }
}

static void test_stop(void **state)
{
    (void)state;
    each_job(stop_each_moment);
}

/* ---- Given up --------------------------------------------------------------------------------- */

/* A side goes for good: the job fails, and says which. */
static void give_up_on(struct scene *scene, enum disturb what)
{
    unsigned count = operations(scene);

    scene->hits = 0;
    scene->away_for_good = true;
    for (unsigned i = 0; i < 2 * count; i += stride(scene)) {
        struct disturbance first = {.what = what, .when = i / 2, .late = true, .applies = i % 2};
        const struct run *end = &scene->run;
        const char *text = end->result.error.text;

        scene->odometer = (struct odometer){0};
        prepare(scene);
        run(scene, &first, NULL);
        if (end->result.status == 0) {
            check_complete(scene);
        } else if (!failed_to_open(scene)) {
            must(&scene->fake, end->result.status == -ETIMEDOUT);
            must(&scene->fake,
                 strncmp(text, what == DISTURB_LOSE_SOURCE ? "source: " : "target: ", 8) == 0);
            must(&scene->fake, strstr(text, "given up after 1:00 without progress: "));
            must(&scene->fake, end->ended - end->begun >= GIVE_UP);
            must(&scene->fake, end->ended - end->begun <= GIVE_UP + COPY_DRAIN + 2 * SECOND);
            must(&scene->fake, strstr(end->notice, " is away: "));
            must(&scene->fake, !strstr(end->notice, " is back "));
            scene->hits++;
        }
        clean_up(scene);
    }
    must(&scene->fake, scene->hits > count / 4 / stride(scene));
    scene->away_for_good = false;
}

static void give_up_on_either(struct scene *scene)
{
    give_up_on(scene, DISTURB_LOSE_SOURCE);
    give_up_on(scene, DISTURB_LOSE_TARGET);
}

static void test_give_up(void **state)
{
    (void)state;
    each_job(give_up_on_either);
}

/* Another thing is there when a side is back: the end, at once. */
static void another_thing(struct scene *scene)
{
    unsigned count = operations(scene);

    for (unsigned i = 0; i < 2 * count; i += stride(scene)) {
        bool source = i % 2;
        struct disturbance first = {.what = source ? DISTURB_LOSE_SOURCE : DISTURB_LOSE_TARGET,
                                    .when = i / 2,
                                    .late = true};
        const struct copy_result *result = &scene->run.result;

        scene->odometer = (struct odometer){0};
        prepare(scene);
        scene->source.other = source;
        scene->target.other = scene->fs.other = scene->fs.like.other = !source;
        run(scene, &first, NULL);
        if (result->status == 0) {
            must(&scene->fake,
                 fake_disk_holds(written_disk(scene), &scene->source, 0, scene->job->size));
        } else if (!failed_to_open(scene)) {
            must(&scene->fake, result->status == -ESTALE);
            must(&scene->fake, strstr(result->error.text, "it is another one"));
            must(&scene->fake,
                 strncmp(result->error.text, source ? "source: " : "target: ", 8) == 0);
            must(&scene->fake, scene->run.ended - scene->run.begun <= SECOND);
        }
        scene->source.other = false;
        clean_up(scene);
    }
}

static void test_another_thing(void **state)
{
    (void)state;
    each_job(another_thing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),      cmocka_unit_test(test_losses),
        cmocka_unit_test(test_restarts),     cmocka_unit_test(test_always_losing),
        cmocka_unit_test(test_no_repeating), cmocka_unit_test(test_stop),
        cmocka_unit_test(test_give_up),      cmocka_unit_test(test_another_thing),
    };

    return cmocka_run_group_tests_name("repeat", tests, NULL, NULL);
}
