/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A new file gets its final name when all of it is durable, and not before; what had the name is
 * untouched until then. Files written in place. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define SIZE         10240 /* of the source: two chunks and a half */
#define OLD_SIZE     16384
#define OLD_MODE     0640
#define NEW_MODE     0604

struct scene {
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, old; /* old: what the file that is replaced held */
    struct fake_end from, to;
    struct odometer odometer;
    struct run run;
    /* What a test may set after scene_init(). */
    bool exists; /* a file of the final name */
    enum store_type type;
    bool overwrite, in_place;
    uint64_t old_size;
    int refuse[STORE_LIST + 1];
    const char *name;
    bool made_meanwhile; /* by somebody else: a file of the final name */
    unsigned hits, failures;
};

static void scene_init(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, SIZE, 0);
    fake_disk_init(&scene->old, &scene->fake, OLD_SIZE, 0);
    fake_disk_fill(&scene->source, 1);
    fake_disk_fill(&scene->old, 1000000);
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    scene->old_size = OLD_SIZE;
    scene->name = "image";
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->old);
    fake_release(&scene->fake);
}

static const struct fake_file *final_file(struct scene *scene)
{
    return fake_fs_find(&scene->fs, scene->name);
}

static bool is_new(const struct scene *scene, const struct fake_file *file)
{
    return file && file->disk->size == SIZE && fake_disk_holds(file->disk, &scene->source, 0, SIZE);
}

static bool is_old(const struct scene *scene, const struct fake_file *file)
{
    return file && file->disk->size == scene->old_size && file->attr.mode == OLD_MODE &&
           memcmp(file->disk->written, scene->old.written, scene->old_size) == 0 &&
           memcmp(file->disk->durable, scene->old.durable, scene->old_size) == 0;
}

/* At every moment the final name is what it was, or the whole new file, durably. */
static void look(struct run *run)
{
    struct scene *scene = run->opaque;
    const struct fake_file *file = final_file(scene);

    if (scene->in_place || scene->made_meanwhile)
        return;
    if (scene->exists)
        must(run->fake, is_old(scene, file) || is_new(scene, file));
    else
        must(run->fake, !file || is_new(scene, file));
}

static void prepare(struct scene *scene)
{
    fake_fs_init(&scene->fs, &scene->fake);
    memcpy(scene->fs.refuse, scene->refuse, sizeof(scene->refuse));
    if (scene->exists) {
        struct fake_file *file = fake_fs_make(&scene->fs, scene->name, scene->old_size);

        file->attr.mode = OLD_MODE;
        file->attr.type = scene->type;
        memcpy(file->disk->written, scene->old.written, scene->old_size);
        memcpy(file->disk->durable, scene->old.written, scene->old_size);
    }
    fake_end_file(&scene->to, &scene->fs, scene->name);
}

/* The directory is still there afterwards; for clean_up(). */
static void run_once(struct scene *scene, const struct fake_fault *fault,
                     const struct disturbance *disturbance)
{
    prepare(scene);
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
                .depth = 2,
                .lanes = 1,
                .chunk = 4096,
                .mode = NEW_MODE,
                .overwrite = scene->overwrite,
                .in_place = scene->in_place,
            },
        .fs = &scene->fs,
        .odometer = &scene->odometer,
        .chosen = CHOOSE_REQS | 1u << FAKE_STORE,
        .disturbance = disturbance ? *disturbance : (struct disturbance){0},
        .look = look,
        .opaque = scene,
        .name = "publish",
    };
    run_job(&scene->run);
    must(&scene->fake, scene->fs.open == 0 && scene->source.open == 0);
    scene->hits += atomic_load(&scene->fake.fault_hit) || scene->run.disturbed;
    scene->failures += scene->run.result.status < 0;
}

static void clean_up(struct scene *scene)
{
    for (size_t i = 0; i < FAKE_MAX_FILES; i++)
        must(&scene->fake, !scene->fs.files[i].name[0] || scene->fs.files[i].disk->open == 0);
    fake_fs_release(&scene->fs);
}

static void check_text(const struct scene *scene, const char *part)
{
    if (!strstr(scene->run.result.error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", scene->run.result.error.text, part);
}

/* One run that ends like this; the target is not there, or what it was. */
static void check_refused(struct scene *scene, int code, const char *part, bool touched)
{
    run_once(scene, NULL, NULL);
    assert_int_equal(scene->run.result.status, -code);
    check_text(scene, part);
    assert_int_equal(scene->run.result.touched, touched);
    assert_null(fake_fs_temporary(&scene->fs));
    if (scene->exists)
        assert_true(is_old(scene, final_file(scene)));
}

/* What the directory is asked about the name, and about its lock. */
#define LOOK   "STAT image\n"
#define LOCK   "CREATE (lock)\nWRITE (lock)\n"
#define CHECK  "READ (lock)\n"
#define UNLOCK "READ (lock)\nREMOVE (lock)\n"

/* ---- Without faults --------------------------------------------------------------------------- */

static void test_new_file(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(is_new(&scene, final_file(&scene)));
    assert_int_equal(final_file(&scene)->attr.mode, NEW_MODE);
    assert_null(fake_fs_temporary(&scene.fs));
    assert_int_equal(scene.run.notices, 0);
    assert_string_equal(scene.fs.log,
                        LOOK LOCK "CREATE (temporary)\n" CHECK "LINK (temporary) image\n"
                                  "REMOVE (temporary)\n" UNLOCK);
    clean_up(&scene);
    scene_release(&scene);
}

static void test_overwrite_keeps_the_mode(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    scene.exists = scene.overwrite = true;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(is_new(&scene, final_file(&scene)));
    assert_int_equal(final_file(&scene)->attr.mode, OLD_MODE);
    assert_string_equal(scene.fs.log,
                        LOOK LOCK "CREATE (temporary)\n" CHECK "RENAME (temporary) image\n" UNLOCK);
    clean_up(&scene);
    scene_release(&scene);
}

static void test_overwrite_of_nothing(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    scene.overwrite = true;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(is_new(&scene, final_file(&scene)));
    assert_int_equal(final_file(&scene)->attr.mode, NEW_MODE);
    clean_up(&scene);
    scene_release(&scene);
}

/* The temporary name is longer than the final one, and has to be legal all the same. */
static void test_long_name(void **state)
{
    struct scene scene;
    char name[256];

    (void)state;
    scene_init(&scene);
    memset(name, 'n', 255);
    name[255] = '\0';
    scene.name = name;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(is_new(&scene, final_file(&scene)));
    clean_up(&scene);
    scene_release(&scene);
}

/* A name that stands for a device is opened, and written as it is. */
static void test_device_node(void **state)
{
    struct scene scene;
    const struct fake_file *file;

    (void)state;
    scene_init(&scene);
    scene.exists = scene.overwrite = scene.in_place = true;
    scene.type = STORE_OTHER;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_string_equal(scene.fs.log, "STAT image\n");
    file = final_file(&scene);
    assert_int_equal(file->disk->size, OLD_SIZE);
    assert_true(fake_disk_holds(file->disk, &scene.source, 0, SIZE));
    clean_up(&scene);
    scene_release(&scene);
}

/* ---- Refusals --------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    static const struct {
        bool exists, overwrite, in_place;
        enum store_type type;
        uint64_t old_size;
        int code;
        const char *text;
    } cases[] = {
        {true, false, false, STORE_FILE, OLD_SIZE, EEXIST,
         "target: fakefs:/dir/image exists (16.00 KiB); --overwrite would replace it"},
        {true, true, false, STORE_SYMLINK, 0, EEXIST,
         "target: fakefs:/dir/image is a symbolic link; name the file that it stands for"},
        {true, true, false, STORE_DIRECTORY, 0, EISDIR,
         "target: fakefs:/dir/image is a directory; name a file in it"},
        {true, false, true, STORE_FILE, OLD_SIZE, EEXIST, "--overwrite would replace it"},
        {false, true, true, STORE_FILE, 0, ENOENT,
         "fakefs:/dir/image does not exist: -n writes into a file that is there"},
        {true, true, true, STORE_FILE, SIZE - 1, ENOSPC,
         "fakefs:/dir/image is too small: it has 10239 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct scene scene;

        scene_init(&scene);
        scene.exists = cases[i].exists;
        scene.overwrite = cases[i].overwrite;
        scene.in_place = cases[i].in_place;
        scene.type = cases[i].type;
        scene.old_size = cases[i].old_size;
        check_refused(&scene, cases[i].code, cases[i].text, false);
        assert_string_equal(scene.fs.log, "STAT image\n");
        clean_up(&scene);
        scene_release(&scene);
    }
}

/* ---- Another one makes a file of the same name ------------------------------------------------ */

#define OTHER_SIZE 5

static void make_another(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);

    if (op->kind != FAKE_STORE || op->store_req->op != STORE_LINK)
        return;
    fake_disk_fill(fake_fs_make(&scene->fs, scene->name, OTHER_SIZE)->disk, 77);
    scene->made_meanwhile = true;
}

static void check_made_meanwhile(int refuse_link, const char *log)
{
    struct scene scene;
    struct fake_disk other;

    scene_init(&scene);
    scene.refuse[STORE_LINK] = refuse_link;
    scene.fake.before = make_another;
    fake_disk_init(&other, &scene.fake, OTHER_SIZE, 0);
    fake_disk_fill(&other, 77);
    check_refused(&scene, EEXIST,
                  "target: fakefs:/dir/image was made by someone else meanwhile and is left alone",
                  true);
    assert_true(scene.made_meanwhile);
    assert_int_equal(final_file(&scene)->disk->size, OTHER_SIZE);
    assert_memory_equal(final_file(&scene)->disk->durable, other.durable, OTHER_SIZE);
    assert_string_equal(scene.fs.log, log);
    fake_disk_release(&other);
    clean_up(&scene);
    scene_release(&scene);
}

static void test_made_meanwhile(void **state)
{
    (void)state;
    check_made_meanwhile(0, LOOK LOCK "CREATE (temporary)\n" CHECK "LINK (temporary) image\n"
                                      "REMOVE (temporary)\n" UNLOCK);
    /* Without hard links it is looked up once more. */
    check_made_meanwhile(ENOTSUP,
                         LOOK LOCK "CREATE (temporary)\n" CHECK "LINK (temporary) image\n" LOOK
                                   "REMOVE (temporary)\n" UNLOCK);
}

/* ---- Servers that cannot do something --------------------------------------------------------- */

static void test_without_links(void **state)
{
    static const int codes[] = {ENOTSUP, EPERM, ENOSYS, EMLINK};

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++) {
        struct scene scene;

        scene_init(&scene);
        scene.refuse[STORE_LINK] = codes[i];
        run_once(&scene, NULL, NULL);
        assert_int_equal(scene.run.result.status, 0);
        assert_true(is_new(&scene, final_file(&scene)));
        assert_null(fake_fs_temporary(&scene.fs));
        assert_string_equal(scene.fs.log,
                            LOOK LOCK "CREATE (temporary)\n" CHECK "LINK (temporary) image\n" LOOK
                                      "RENAME (temporary) image\n" UNLOCK);
        clean_up(&scene);
        scene_release(&scene);
    }
}

/* The file has its name; one that is left over is no reason to call that a failure. */
static void test_temporary_stays_after_success(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    scene.refuse[STORE_REMOVE] = EACCES;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(is_new(&scene, final_file(&scene)));
    assert_int_equal(scene.run.notices, 2); /* the lock stays too */
    assert_non_null(strstr(scene.run.notice, "removing fakefs:/dir/.image.lunferry-"));
    assert_null(strstr(scene.run.notice, "unfinished")); /* it is the same file */
    clean_up(&scene);
    scene_release(&scene);
}

static void test_temporary_stays_after_failure(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    scene.refuse[STORE_LINK] = EACCES;
    scene.refuse[STORE_REMOVE] = EROFS;
    run_once(&scene, NULL, NULL);
    assert_int_equal(scene.run.result.status, -EACCES);
    check_text(&scene, "target: linking fakefs:/dir/.image.lunferry-");
    assert_null(final_file(&scene));
    assert_int_equal(scene.run.notices, 2); /* the lock stays too */
    assert_non_null(strstr(scene.run.notice, "removing fakefs:/dir/.image.lunferry-"));
    assert_non_null(strstr(scene.run.notice, "still there"));
    clean_up(&scene);
    scene_release(&scene);
}

/* ---- Every fault, every restart, stopped everywhere ------------------------------------------- */

static bool may_have_happened(const struct run *run)
{
    return run->disturbed && run->disturbance.what != DISTURB_STOP &&
           run->disturbance.what != DISTURB_RESTART;
}

static void check_end(struct scene *scene)
{
    const struct run *run = &scene->run;
    const struct fake_file *file = final_file(scene);

    must(run->fake, !fake_fs_temporary(&scene->fs));
    /* All is done then. */
    must(run->fake, run->notices == 0 || strstr(run->notice, "lock"));
    if (run->result.status == 0) {
        /* That the temporary name stays for one more attempt, or the lock, is all that is harmless. */
        must(run->fake, !atomic_load(&run->fake->fault_hit) || run->notices == 1 ||
                            run->fake->faulted_store_op == STORE_REMOVE);
        must(run->fake, is_new(scene, file));
        must(run->fake, file->attr.mode == (scene->exists ? OLD_MODE : NEW_MODE));
        return;
    }
    must(run->fake, run->result.error.text[0]);
    if (!run->disturbed) {
        must(run->fake, run->result.status == -ENOSPC);
        must(run->fake, strstr(run->result.error.text, "the fake says no"));
    } else if (run->disturbance.what == DISTURB_RESTART) {
        must(run->fake, run->result.status == -EIO);
        must(run->fake, strstr(run->result.error.text, "restarted"));
    } else {
        must(run->fake, run->result.status == -ECANCELED);
    }
    if (!may_have_happened(run))
        must(run->fake, scene->exists ? is_old(scene, file) : !file);
}

static void each_order(struct scene *scene, const struct fake_fault *fault,
                       const struct disturbance *disturbance)
{
    scene->hits = 0;
    scene->odometer = (struct odometer){.sample = SAMPLE(20)};
    do {
        run_once(scene, fault, disturbance);
        check_end(scene);
        clean_up(scene);
    } while (odometer_next(&scene->odometer));
}

static unsigned operations(struct scene *scene)
{
    scene->odometer = (struct odometer){.sample = 1};
    run_once(scene, NULL, NULL);
    must(&scene->fake, scene->run.result.status == 0);
    clean_up(scene);
    return scene->fake.submitted;
}

/* The kinds of publishing: under a new name, over an old file, without hard links. */
static void each_kind(void (*with)(struct scene *scene))
{
    for (int kind = 0; kind < 4; kind++) {
        struct scene scene;

        scene_init(&scene);
        scene.exists = kind == 1;
        scene.overwrite = kind == 1 || kind == 2;
        scene.refuse[STORE_LINK] = kind == 3 ? ENOTSUP : 0;
        with(&scene);
        scene_release(&scene);
    }
}

static void all_faults(struct scene *scene)
{
    unsigned count = operations(scene), closings = 0;

    for (unsigned i = 1; i <= count; i++) {
        struct fake_fault fault = {.number = i, .code = ENOSPC};

        each_order(scene, &fault, NULL);
        closings += scene->hits == 0;
    }
    must(&scene->fake, closings <= 3);
}

static void test_faults(void **state)
{
    (void)state;
    each_kind(all_faults);
}

static void disturb_each(struct scene *scene, enum disturb what)
{
    unsigned count = operations(scene);

    scene->failures = 0;
    for (unsigned i = 0; i < 2 * count; i++) {
        struct disturbance disturbance = {.what = what, .when = i / 2, .late = i % 2};

        each_order(scene, NULL, &disturbance);
        must(&scene->fake, scene->hits > 0);
    }
    must(&scene->fake, scene->failures > 0);
}

static void all_disturbances(struct scene *scene)
{
    disturb_each(scene, DISTURB_RESTART);
    disturb_each(scene, DISTURB_STOP);
    disturb_each(scene, DISTURB_STUCK);
    disturb_each(scene, DISTURB_ABORT);
    scene->fake.cancel_applies = true;
    disturb_each(scene, DISTURB_ABORT);
    disturb_each(scene, DISTURB_STUCK);
}

static void test_disturbances(void **state)
{
    (void)state;
    each_kind(all_disturbances);
}

/* ---- In place --------------------------------------------------------------------------------- */

static void check_in_place(struct scene *scene)
{
    const struct run *run = &scene->run;
    const struct fake_file *file = final_file(scene);
    const size_t rest = OLD_SIZE - SIZE;

    must(run->fake, file && file->attr.mode == OLD_MODE && file->disk->size == OLD_SIZE);
    must(run->fake, memcmp(file->disk->durable + SIZE, scene->old.durable + SIZE, rest) == 0);
    must(run->fake, memcmp(file->disk->written + SIZE, scene->old.written + SIZE, rest) == 0);
    must(run->fake,
         !strstr(scene->fs.log, "(temporary)") && !strstr(scene->fs.log, "REMOVE image"));
    if (run->result.status == 0)
        must(run->fake, fake_disk_holds(file->disk, &scene->source, 0, SIZE));
    else if (!run->result.touched)
        must(run->fake, is_old(scene, file));
    /* All of this image is head, which is written last. */
    else if (!run->disturbed && !strstr(run->result.error.text, "writing the head"))
        must(run->fake, !fake_disk_resembles(file->disk, &scene->source, 0, SIZE));
}

static void test_in_place(void **state)
{
    struct scene scene;
    unsigned count;

    (void)state;
    scene_init(&scene);
    scene.exists = scene.overwrite = scene.in_place = true;
    count = operations(&scene);
    for (unsigned i = 0; i <= count; i++) {
        struct fake_fault fault = {.number = i, .code = ENOSPC};

        run_once(&scene, &fault, NULL);
        check_in_place(&scene);
        must(&scene.fake, (scene.run.result.status < 0 || scene.run.notices > 0) ==
                              atomic_load(&scene.fake.fault_hit));
        clean_up(&scene);
    }
    for (unsigned i = 0; i < 8 * count; i++) {
        struct disturbance disturbance = {
            .what = DISTURB_STOP + i % 4, .when = i / 8, .late = i / 4 % 2};

        run_once(&scene, NULL, &disturbance);
        check_in_place(&scene);
        clean_up(&scene);
    }
    scene_release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_file),
        cmocka_unit_test(test_overwrite_keeps_the_mode),
        cmocka_unit_test(test_overwrite_of_nothing),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_device_node),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_made_meanwhile),
        cmocka_unit_test(test_without_links),
        cmocka_unit_test(test_temporary_stays_after_success),
        cmocka_unit_test(test_temporary_stays_after_failure),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_disturbances),
        cmocka_unit_test(test_in_place),
    };

    return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
