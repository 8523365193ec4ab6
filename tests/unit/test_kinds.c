/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a copy does for each kind of source, knowledge of the target, and capability: held against the
 * whole list of commands that the target saw.
 *
 * Disks of 256 KiB in chunks of 64 KiB, without a head; the first 64 KiB are data in every case, so
 * that something is always written, and what is written where is seen.
 */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/runs.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define CHUNK        (64 * KIB)
#define SIZE         (4 * CHUNK)

struct scene {
    struct fake fake;
    struct fake_disk source, target;
    struct fake_end from, to;
    struct run run;
};

static void init(struct scene *scene, uint64_t size)
{
    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, size, 0);
    fake_disk_fill(&scene->source, 1);
    fake_disk_init(&scene->target, &scene->fake, size, 0);
    fake_disk_fill(&scene->target, 1000000);
    scene->target.caps = BLK_CAN_FUA;
    scene->target.limits.align = 512;
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    fake_end_disk(&scene->to, &scene->target, "fake", "b");
    scene->run = (struct run){
        .fake = &scene->fake,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .target = &scene->to.url,
                .depth = 2,
                .lanes = 1,
                .chunk = CHUNK,
                .zero_unit = 4096,
                .journal = "",
            },
    };
}

/* The bytes are zero, whatever EXTENTS says of them. */
static void blank(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    memset(disk->written + offset, 0, len);
    memset(disk->durable + offset, 0, len);
}

static void hole(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    disk->caps |= BLK_CAN_EXTENTS;
    fake_disk_set(disk, offset, len, BLK_ZEROS);
}

static void run_and_check(struct scene *scene, const char *source_saw, const char *target_saw)
{
    scene->source.logging = scene->target.logging = true;
    run_job(&scene->run);
    assert_int_equal(scene->run.result.status, 0);
    assert_true(fake_disk_holds(&scene->target, &scene->source, 0, scene->source.size));
    if (source_saw)
        fake_disk_check_commands(&scene->source, source_saw);
    fake_disk_check_commands(&scene->target, target_saw);
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->target);
    fake_release(&scene->fake);
}

/* ---- Every combination ------------------------------------------------------------------------ */

/* What the source has in its second and third chunk. */
enum source_kind { DATA, FOUND_ZEROS, KNOWN_ZEROS, SOURCE_KINDS };
/* What is known of the target there. */
enum knowledge { NOTHING, TOLD_ZERO, TOLD_DATA, PROMISED, KNOWLEDGES };
/* What it can do. */
enum means { WRITES_ONLY, ZERO, UNMAP, MEANS };

static void set_up(struct scene *scene, enum source_kind kind, enum knowledge knowledge,
                   enum means means)
{
    init(scene, SIZE);
    if (kind == FOUND_ZEROS)
        blank(&scene->source, CHUNK, 2 * CHUNK);
    else if (kind == KNOWN_ZEROS)
        hole(&scene->source, CHUNK, 2 * CHUNK);
    if (knowledge == TOLD_ZERO)
        hole(&scene->target, CHUNK, 2 * CHUNK);
    else if (knowledge == TOLD_DATA)
        scene->target.caps |= BLK_CAN_EXTENTS;
    else if (knowledge == PROMISED)
        blank(&scene->target, 0, SIZE);
    scene->run.options.target_is_zero = knowledge == PROMISED;
    if (means >= ZERO)
        scene->target.caps |= BLK_CAN_ZERO;
    if (means == UNMAP)
        scene->target.caps |= BLK_CAN_UNMAP;
    scene->target.limits.max_zero = SIZE;
}

/* The commands for the second and third chunk. */
static const char *middle_commands(enum source_kind kind, enum knowledge knowledge,
                                   enum means means)
{
    static const char written[] = "WRITE 64k+64k; WRITE 128k+64k; ";

    if (kind == DATA)
        return written;
    if (knowledge == TOLD_ZERO || knowledge == PROMISED)
        return "";
    if (means == WRITES_ONLY)
        return written;
    if (kind == FOUND_ZEROS)
        return means == UNMAP ? "ZERO 64k+64k unmap; ZERO 128k+64k unmap; "
                              : "ZERO 64k+64k; ZERO 128k+64k; ";
    return means == UNMAP ? "ZERO 64k+128k unmap; " : "ZERO 64k+128k; ";
}

static void test_every_combination(void **state)
{
    (void)state;
    for (enum source_kind kind = 0; kind < SOURCE_KINDS; kind++) {
        for (enum knowledge knowledge = 0; knowledge < KNOWLEDGES; knowledge++) {
            for (enum means means = 0; means < MEANS; means++) {
                struct scene scene;
                char source[200], target[400];
                bool asked = knowledge == TOLD_ZERO || knowledge == TOLD_DATA;

                print_message("source %d, knowledge %d, means %d\n", kind, knowledge, means);
                set_up(&scene, kind, knowledge, means);
                snprintf(source, sizeof(source), "%s",
                         kind == KNOWN_ZEROS
                             ? "EXTENTS 0+256k; READ 0+64k; READ 192k+64k"
                             : "READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k");
                snprintf(target, sizeof(target), "%sWRITE 0+64k; %sWRITE 192k+64k; FLUSH",
                         asked ? "EXTENTS 0+256k; " : "", middle_commands(kind, knowledge, means));
                run_and_check(&scene, source, target);
            }
        }
    }
}

/* With -S 0 all is written, as data, though holes are not read; nobody is asked about the target. */
static void test_everything_is_written(void **state)
{
    (void)state;
    for (enum source_kind kind = 0; kind < SOURCE_KINDS; kind++) {
        for (enum knowledge knowledge = 0; knowledge < KNOWLEDGES; knowledge++) {
            struct scene scene;

            set_up(&scene, kind, knowledge, UNMAP);
            scene.run.options.zero_unit = 0;
            run_and_check(&scene,
                          kind == KNOWN_ZEROS
                              ? "EXTENTS 0+256k; READ 0+64k; READ 192k+64k"
                              : "READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k",
                          "WRITE 0+64k; WRITE 64k+64k; WRITE 128k+64k; WRITE 192k+64k; FLUSH");
        }
    }
}

static void counts(const struct scene *scene, uint64_t moved, uint64_t zeroed, uint64_t skipped)
{
    assert_int_equal(scene->run.result.moved, moved);
    assert_int_equal(scene->run.result.zeroed, zeroed);
    assert_int_equal(scene->run.result.skipped, skipped);
    assert_int_equal(scene->run.result.bytes, SIZE);
}

static void test_counts(void **state)
{
    struct scene scene;

    (void)state;
    set_up(&scene, KNOWN_ZEROS, NOTHING, ZERO);
    run_and_check(&scene, NULL, "WRITE 0+64k; ZERO 64k+128k; WRITE 192k+64k; FLUSH");
    counts(&scene, 2 * CHUNK, 2 * CHUNK, 0);
    set_up(&scene, FOUND_ZEROS, PROMISED, ZERO);
    run_and_check(&scene, NULL, "WRITE 0+64k; WRITE 192k+64k; FLUSH");
    counts(&scene, 2 * CHUNK, 0, 2 * CHUNK);
}

/* ---- Borders ---------------------------------------------------------------------------------- */

/* A hole that begins and ends in the middle of units: what is not whole units of it is read. */
static void test_hole_within_units(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    hole(&scene.source, 10 * KIB + 512, 100 * KIB);
    scene.run.options.target_is_zero = true;
    blank(&scene.target, 0, SIZE);
    run_and_check(&scene, "EXTENTS 0+256k; READ 0+12k; READ 108k+64k; READ 172k+64k; READ 236k+20k",
                  "WRITE 0+12k; WRITE 108k+64k; WRITE 172k+64k; WRITE 236k+20k; FLUSH");
}

/* A short hole is read like the data around it; being found then, it is not written. */
static void test_short_hole(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    hole(&scene.source, 16 * KIB, 32 * KIB);
    hole(&scene.target, 0, SIZE);
    run_and_check(
        &scene, "EXTENTS 0+256k; READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k",
        "EXTENTS 0+256k; WRITE 0+16k; WRITE 48k+16k; WRITE 64k+64k; WRITE 128k+64k; WRITE "
        "192k+64k; FLUSH");
}

/* Answers that are cut anywhere make no difference to what is read. */
static void test_answers_cut(void **state)
{
    (void)state;
    for (uint64_t cut = 4096; cut <= SIZE; cut += 20 * KIB) {
        struct scene scene;

        init(&scene, SIZE);
        hole(&scene.source, 80 * KIB, 100 * KIB);
        scene.source.extents_cut = cut;
        scene.source.extents_reach = cut;
        scene.source.logging = true;
        scene.run.options.target_is_zero = true;
        blank(&scene.target, 0, SIZE);
        run_and_check(&scene, NULL,
                      "WRITE 0+64k; WRITE 64k+16k; WRITE 180k+64k; WRITE 244k+12k; FLUSH");
    }
}

static void test_hole_at_start_and_end(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    hole(&scene.source, 0, CHUNK);
    hole(&scene.source, SIZE - 2 * CHUNK, 2 * CHUNK);
    scene.target.caps |= BLK_CAN_ZERO;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, "EXTENTS 0+256k; READ 64k+64k",
                  "ZERO 0+64k; WRITE 64k+64k; ZERO 128k+128k; FLUSH");
}

static void test_nothing_but_a_hole(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    hole(&scene.source, 0, SIZE);
    hole(&scene.target, 0, SIZE);
    run_and_check(&scene, "EXTENTS 0+256k", "EXTENTS 0+256k");
}

/* An image that does not end with a block: its last zeros too are made. */
static void test_odd_end(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE - 100);
    hole(&scene.source, CHUNK, SIZE - 100 - CHUNK);
    scene.target.caps |= BLK_CAN_ZERO;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, "EXTENTS 0+262044; READ 0+64k", "WRITE 0+64k; ZERO 64k+196508; FLUSH");
}

/* Where the target is zero in a part of what the source has: each part its way. */
static void test_target_zero_in_part(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    hole(&scene.source, CHUNK, 3 * CHUNK);
    hole(&scene.target, 2 * CHUNK, CHUNK);
    scene.target.caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, "EXTENTS 0+256k; READ 0+64k",
                  "EXTENTS 0+256k; WRITE 0+64k; ZERO 64k+64k unmap; ZERO 192k+64k unmap; FLUSH");
}

/* Zeros found in data, where the target is zero up to the middle of the chunk: of one that is zero in
 * part only, nothing is taken to be. */
static void test_target_zero_in_part_of_a_chunk(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    blank(&scene.source, 0, SIZE);
    hole(&scene.target, 96 * KIB, 128 * KIB);
    run_and_check(&scene, NULL,
                  "EXTENTS 0+256k; WRITE 0+64k; WRITE 64k+64k; WRITE 192k+64k; FLUSH");
}

/* ---- Zeros that are found --------------------------------------------------------------------- */

static void test_least_that_is_zeroed(void **state)
{
    struct scene scene;

    (void)state;
    /* A target that frees nothing: zeros of less than 64 KiB are written. */
    init(&scene, CHUNK);
    blank(&scene.source, 4 * KIB, 32 * KIB);
    scene.target.caps |= BLK_CAN_ZERO;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, NULL, "WRITE 0+64k; FLUSH");
    /* One that does: everything from a unit on... */
    init(&scene, CHUNK);
    blank(&scene.source, 4 * KIB, 32 * KIB);
    scene.target.caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, NULL, "WRITE 0+4k; ZERO 4k+32k unmap; WRITE 36k+28k; FLUSH");
    /* ... or from what it frees at once on. */
    init(&scene, CHUNK);
    blank(&scene.source, 0, 16 * KIB);
    blank(&scene.source, 32 * KIB, 4 * KIB);
    scene.target.caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP;
    scene.target.limits.max_zero = SIZE;
    scene.target.limits.unmap_granule = 16 * KIB;
    run_and_check(&scene, NULL, "ZERO 0+16k unmap; WRITE 16k+48k; FLUSH");
}

/* -S counts in whole units, and never in parts of the target's blocks. */
static void test_units(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, CHUNK);
    blank(&scene.source, 4 * KIB, 8 * KIB);
    blank(&scene.target, 0, CHUNK);
    scene.run.options.target_is_zero = true;
    scene.run.options.zero_unit = 16 * KIB;
    run_and_check(&scene, NULL, "WRITE 0+64k; FLUSH");
    init(&scene, CHUNK);
    blank(&scene.source, 5 * KIB, 2 * KIB);
    blank(&scene.source, 16 * KIB, 4 * KIB);
    blank(&scene.target, 0, CHUNK);
    scene.run.options.target_is_zero = true;
    scene.run.options.zero_unit = 512;
    scene.target.limits.align = 4096;
    run_and_check(&scene, NULL, "WRITE 0+16k; WRITE 20k+44k; FLUSH");
}

/* A chunk does not shatter: the shortest zeros are written. */
static void test_shattered(void **state)
{
    struct scene scene;
    size_t writes = 0;

    (void)state;
    init(&scene, CHUNK);
    for (uint64_t i = 0; i < CHUNK; i += 2048)
        blank(&scene.source, i, 1024);
    blank(&scene.target, 0, CHUNK);
    scene.run.options.target_is_zero = true;
    scene.run.options.zero_unit = 512;
    scene.target.logging = true;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(fake_disk_holds(&scene.target, &scene.source, 0, CHUNK));
    for (size_t i = 0; i < scene.target.command_count; i++)
        writes += scene.target.commands[i].op == BLK_WRITE;
    assert_in_range(writes, 1, RUNS_MAX / 2 + 1);
    fake_disk_release(&scene.source);
    fake_disk_release(&scene.target);
    fake_release(&scene.fake);
}

/* In order, the runs of a chunk too wait for each other; so there is one command at a time. */
static void only_one(struct fake *fake, const struct fake_op *op)
{
    unsigned writes = 0;

    (void)op;
    for (unsigned i = 0; i < fake->pending_count; i++)
        writes += fake->pending[i].kind == FAKE_REQ && fake->pending[i].req->op != BLK_READ;
    assert_in_range(writes, 0, 1);
}

static void test_in_order(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    blank(&scene.source, 8 * KIB, 8 * KIB);
    blank(&scene.source, 32 * KIB, 8 * KIB);
    hole(&scene.source, 2 * CHUNK, CHUNK);
    scene.target.caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP;
    scene.target.limits.max_zero = SIZE;
    scene.run.options.in_order = true;
    scene.fake.before = only_one;
    run_and_check(&scene, NULL,
                  "WRITE 0+8k; ZERO 8k+8k unmap; WRITE 16k+16k; ZERO 32k+8k unmap; WRITE 40k+24k; "
                  "WRITE 64k+64k; ZERO 128k+64k unmap; WRITE 192k+64k; FLUSH");
}

/* ---- What does not hold for ever -------------------------------------------------------------- */

/* A target that refuses: what it has promised is made up for, and not asked for again. */
static void test_zero_refused(void **state)
{
    struct scene scene;

    (void)state;
    set_up(&scene, FOUND_ZEROS, NOTHING, UNMAP);
    scene.run.options.depth = 1;
    scene.target.refuses = BLK_CAN_ZERO;
    run_and_check(&scene, NULL,
                  "WRITE 0+64k; ZERO 64k+64k unmap; WRITE 64k+64k; WRITE 128k+64k; WRITE 192k+64k; "
                  "FLUSH");
}

static void test_extents_refused(void **state)
{
    struct scene scene;

    (void)state;
    set_up(&scene, KNOWN_ZEROS, TOLD_ZERO, WRITES_ONLY);
    scene.source.refuses = scene.target.refuses = BLK_CAN_EXTENTS;
    run_and_check(
        &scene, "EXTENTS 0+256k; READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k",
        "EXTENTS 0+256k; WRITE 0+64k; WRITE 64k+64k; WRITE 128k+64k; WRITE 192k+64k; FLUSH");
}

/* In the middle of a chunk too, where what is known ends before the chunk does. */
static void test_extents_fail(void **state)
{
    unsigned failed = 0;
    bool hit = true;

    (void)state;
    for (unsigned number = 1; hit; number++) {
        struct scene scene;

        init(&scene, SIZE);
        hole(&scene.source, 80 * KIB, 100 * KIB);
        hole(&scene.target, 100 * KIB, 20 * KIB);
        scene.source.extents_cut = scene.source.extents_reach = 20 * KIB;
        scene.target.extents_cut = scene.target.extents_reach = 12 * KIB;
        scene.fake.fault =
            (struct fake_fault){.number = number, .code = EINVAL, .retry = BLK_FATAL};
        run_job(&scene.run);
        hit = atomic_load(&scene.fake.fault_hit);
        assert_true(hit || scene.run.result.status == 0);
        failed += scene.run.result.status == -EINVAL;
        fake_disk_release(&scene.source);
        fake_disk_release(&scene.target);
        fake_release(&scene.fake);
    }
    /* Questions alone there are more than that. */
    assert_true(failed > SIZE / (20 * KIB));
}

/* The source is read, the target is written to and forgets; and the source has zeros there by now. What
 * was promised of the target before it was written to does not hold any more. */
struct changing {
    struct scene scene;
    bool forgot;
};

static void forget(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);
    struct changing *changing = container_of(scene, struct changing, scene);

    if (op->kind != FAKE_REQ || op->req->op != BLK_FLUSH || changing->forgot)
        return;
    changing->forgot = true;
    scene->target.epoch++; /* it says so, and has not forgotten */
    blank(&scene->source, 0, SIZE);
}

static void test_again(void **state)
{
    struct changing changing = {.forgot = false};
    struct scene *scene = &changing.scene;

    (void)state;
    init(scene, SIZE);
    scene->target.caps |= BLK_CAN_ZERO;
    scene->target.limits.max_zero = SIZE;
    scene->run.options.target_is_zero = true;
    scene->run.options.settings = (struct blk_settings){.timeout = 1, .give_up = LOOP_NEVER};
    scene->fake.before = forget;
    run_and_check(scene, NULL,
                  "WRITE 0+64k; WRITE 64k+64k; WRITE 128k+64k; WRITE 192k+64k; FLUSH; ZERO 0+64k; "
                  "ZERO 64k+64k; ZERO 128k+64k; ZERO 192k+64k; FLUSH");
    assert_true(changing.forgot);
}

/* What was promised to be zero, and is not, is found out by --verify, and mended. */
static void test_broken_promise(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 4 * MIB);
    hole(&scene.source, MIB, 2 * MIB);
    scene.target.caps |= BLK_CAN_ZERO;
    scene.target.limits.max_zero = 4 * MIB;
    scene.run.options.chunk = COPY_VERIFY_CHUNK;
    scene.run.options.target_is_zero = scene.run.options.verify = true;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(fake_disk_holds(&scene.target, &scene.source, 0, scene.source.size));
    assert_int_equal(scene.run.result.mended, 2 * MIB / COPY_VERIFY_CHUNK);
    fake_disk_release(&scene.source);
    fake_disk_release(&scene.target);
    fake_release(&scene.fake);
}

/* ---- Before and behind ------------------------------------------------------------------------ */

static void test_discard(void **state)
{
    struct scene scene;

    (void)state;
    /* All of it is unmapped; what it then reports as zeros is left alone. */
    set_up(&scene, KNOWN_ZEROS, TOLD_DATA, UNMAP);
    scene.target.caps |= BLK_CAN_DISCARD;
    scene.target.limits.max_discard = SIZE;
    scene.run.options.discard = true;
    run_and_check(&scene, NULL,
                  "DISCARD 0+256k; FLUSH; EXTENTS 0+256k; WRITE 0+64k; WRITE 192k+64k; FLUSH");
    /* One whose discarded blocks read as anything, and are not reported as zeros: believed. */
    set_up(&scene, KNOWN_ZEROS, TOLD_DATA, UNMAP);
    scene.target.caps |= BLK_CAN_DISCARD;
    scene.target.limits.max_discard = SIZE;
    scene.target.discard_scrambles = true;
    scene.run.options.discard = true;
    run_and_check(&scene, NULL,
                  "DISCARD 0+256k; FLUSH; EXTENTS 0+256k; WRITE 0+64k; ZERO 64k+128k unmap; WRITE "
                  "192k+64k; FLUSH");
    /* So is one that was promised to be zero, before. */
    set_up(&scene, KNOWN_ZEROS, TOLD_DATA, UNMAP);
    blank(&scene.target, 0, SIZE);
    scene.target.caps |= BLK_CAN_DISCARD;
    scene.target.limits.max_discard = SIZE;
    scene.target.discard_scrambles = true;
    scene.run.options.discard = scene.run.options.target_is_zero = true;
    run_and_check(&scene, NULL,
                  "DISCARD 0+256k; FLUSH; EXTENTS 0+256k; WRITE 0+64k; ZERO 64k+128k unmap; WRITE "
                  "192k+64k; FLUSH");
    /* One that cannot: that is told, and the copy goes on. */
    set_up(&scene, KNOWN_ZEROS, NOTHING, UNMAP);
    scene.run.options.discard = true;
    run_and_check(&scene, NULL, "WRITE 0+64k; ZERO 64k+128k unmap; WRITE 192k+64k; FLUSH");
    assert_int_equal(scene.run.notices, 1);
    assert_non_null(strstr(scene.run.notice, "--discard"));
}

static void test_zero_tail(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, SIZE);
    fake_disk_release(&scene.source);
    fake_disk_init(&scene.source, &scene.fake, 2 * CHUNK, 0);
    fake_disk_fill(&scene.source, 1);
    scene.target.caps |= BLK_CAN_ZERO;
    scene.target.limits.max_zero = SIZE;
    scene.run.options.zero_tail = true;
    run_and_check(&scene, "READ 0+64k; READ 64k+64k",
                  "WRITE 0+64k; WRITE 64k+64k; ZERO 128k+128k; FLUSH");
}

/* A LUN of which the head is blanked, unmapped behind it, and filled. */
static void test_lun(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 2 * MIB);
    hole(&scene.source, MIB, 512 * KIB);
    scene.target.caps |=
        BLK_BARE | BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS;
    scene.target.limits.max_zero = scene.target.limits.max_discard = 4 * MIB;
    scene.run.options.chunk = 512 * KIB;
    scene.run.options.overwrite = scene.run.options.discard = true;
    run_and_check(
        &scene, "READ 0+1M; EXTENTS 1M+1M; READ 1536k+512k",
        "ZERO 0+1M; FLUSH; DISCARD 1M+1M; FLUSH; EXTENTS 1M+1M; WRITE 1536k+512k; FLUSH; WRITE "
        "0+1M fua");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination),
        cmocka_unit_test(test_everything_is_written),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_hole_within_units),
        cmocka_unit_test(test_short_hole),
        cmocka_unit_test(test_answers_cut),
        cmocka_unit_test(test_hole_at_start_and_end),
        cmocka_unit_test(test_nothing_but_a_hole),
        cmocka_unit_test(test_odd_end),
        cmocka_unit_test(test_target_zero_in_part),
        cmocka_unit_test(test_target_zero_in_part_of_a_chunk),
        cmocka_unit_test(test_least_that_is_zeroed),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_shattered),
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_zero_refused),
        cmocka_unit_test(test_extents_refused),
        cmocka_unit_test(test_extents_fail),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_broken_promise),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_zero_tail),
        cmocka_unit_test(test_lun),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
