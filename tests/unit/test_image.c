/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images and chains of them, from opening to closing: of local files, and, for faults at every operation, of a
 * disk of the fake world. */
#include "desk.h"
#include "ground.h"
#include "qcow2_make.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/image.h>
#include <lunferry/units.h>

#define CLUSTER 4096
#define SIZE    (16 * CLUSTER)

static const struct blk_settings settings = {.timeout = 60 * LOOP_SECOND};

/* ---- Files ------------------------------------------------------------------------------------ */

struct spec {
    unsigned version, cluster_bits;
    const char *backing, *backing_format, *data_file;
    uint64_t data[3]; /* clusters that hold `fill` */
    unsigned data_count;
    unsigned char fill;
};

static void make_init(struct qcow2_make *make, const struct spec *spec)
{
    const struct qcow2_make_options options = {
        .version = spec->version,
        .cluster_bits = spec->cluster_bits ? spec->cluster_bits : 12,
        .size = SIZE,
        .backing = spec->backing,
        .backing_format = spec->backing_format,
        .data_file = spec->data_file,
        .incompatible = spec->data_file ? QCOW2_DATA_FILE : 0,
    };
    unsigned char cluster[CLUSTER];

    qcow2_make_init(make, &options);
    memset(cluster, spec->fill, sizeof(cluster));
    for (unsigned i = 0; i < spec->data_count; i++)
        qcow2_make_data(make, spec->data[i] * CLUSTER, cluster);
}

static void make_file(const struct ground *ground, const char *name, const struct spec *spec)
{
    struct qcow2_make make;

    make_init(&make, spec);
    ground_make(ground, name, make.bytes, make.len);
    qcow2_make_release(&make);
}

static void make_raw(const struct ground *ground, const char *name, unsigned char fill)
{
    unsigned char bytes[CLUSTER];

    memset(bytes, fill, sizeof(bytes));
    ground_make(ground, name, bytes, sizeof(bytes));
}

/* ---- Opening ---------------------------------------------------------------------------------- */

struct opening {
    struct image image;
    struct url url;
    bool done;
    int status;
};

static void opened(struct image *image, int status)
{
    struct opening *opening = image->opaque;

    assert_false(opening->done);
    assert_int_equal(status == 0, image->dev != NULL);
    assert_int_equal(status, -image->error.code);
    opening->done = true;
    opening->status = status;
}

static void begin(const struct ground *ground, struct opening *opening, const char *name,
                  const struct image_choice *choice)
{
    char *path = ground_path(ground, name);

    memset(opening, 0, sizeof(*opening));
    assert_int_equal(url_parse(path, &opening->url, NULL), 0);
    free(path);
    opening->image = (struct image){
        .loop = ground->loop,
        .args = {.url = &opening->url, .choice = *choice, .settings = &settings},
        .done = opened,
        .opaque = opening,
    };
    image_open(&opening->image);
    assert_false(opening->done);
}

static void open_image(const struct ground *ground, struct opening *opening, const char *name,
                       const struct image_choice *choice)
{
    begin(ground, opening, name, choice);
    ground_wait(ground, &opening->done);
}

static void end(const struct ground *ground, struct opening *opening)
{
    if (opening->image.dev)
        ground_close(ground, opening->image.dev);
    image_release(&opening->image);
    image_release(&opening->image);
    url_release(&opening->url);
}

/* It is refused, with these words. */
static void refused(const struct ground *ground, const char *name,
                    const struct image_choice *choice, int status, const char *words)
{
    struct opening opening;

    open_image(ground, &opening, name, choice);
    if (opening.status != status || !strstr(opening.image.error.text, words))
        fail_msg("%s: %d, %s", name, opening.status, opening.image.error.text);
    assert_non_null(strstr(opening.image.error.text, "opening "));
    assert_non_null(strstr(opening.image.error.text, ground->dir)); /* some file of the chain */
    assert_null(opening.image.dev);
    end(ground, &opening);
}

static const struct image_choice by_name = {.format = IMAGE_BY_NAME};

/* One letter for each cluster, '.' for zeros. */
static void check_reads(const struct ground *ground, struct blk_dev *dev, const char *letters)
{
    unsigned char cluster[CLUSTER], wanted[CLUSTER];

    assert_int_equal(dev->size, strlen(letters) * CLUSTER);
    for (uint64_t i = 0; letters[i]; i++) {
        struct blk_req req =
            ground_do(ground, dev, BLK_READ, 0, i * CLUSTER, cluster, sizeof(cluster));

        assert_int_equal(req.status, 0);
        memset(wanted, letters[i] == '.' ? 0 : letters[i], sizeof(wanted));
        assert_memory_equal(cluster, wanted, sizeof(wanted));
    }
}

static void opens(const struct ground *ground, const char *name, const struct image_choice *choice,
                  const char *letters)
{
    struct opening opening;

    open_image(ground, &opening, name, choice);
    if (opening.status < 0)
        fail_msg("%s: %s", name, opening.image.error.text);
    assert_string_equal(opening.image.dev->name, opening.url.text);
    check_reads(ground, opening.image.dev, letters);
    end(ground, &opening);
}

/* ---- What opens ------------------------------------------------------------------------------- */

static void make_chain(const struct ground *ground)
{
    make_file(ground, "top.qcow2",
              &(struct spec){.backing = "mid.img",
                             .backing_format = "qcow2",
                             .data = {1},
                             .data_count = 1,
                             .fill = 't'});
    make_file(
        ground, "mid.img",
        &(struct spec){
            .version = 2, .backing = "./base.raw", .data = {1, 2}, .data_count = 2, .fill = 'm'});
    make_raw(ground, "base.raw", 'b');
}

static void test_chain(void **state)
{
    const struct ground *ground = *state;
    const struct image_layer *layer;
    struct opening opening;

    make_chain(ground);
    open_image(ground, &opening, "top.qcow2", &by_name);
    assert_int_equal(opening.status, 0);
    check_reads(ground, opening.image.dev, "btm.............");
    layer = image_layer(&opening.image, 0);
    assert_int_equal(layer->format, IMAGE_QCOW2);
    assert_int_equal(layer->version, 3);
    assert_int_equal(layer->cluster_size, CLUSTER);
    assert_int_equal(layer->size, SIZE);
    assert_string_equal(layer->backing, "mid.img");
    assert_string_equal(layer->backing_format, "qcow2");
    assert_string_equal(layer->file->name, opening.url.text);
    layer = image_layer(&opening.image, 1);
    assert_int_equal(layer->version, 2);
    assert_null(layer->backing_format);
    layer = image_layer(&opening.image, 2);
    assert_int_equal(layer->format, IMAGE_RAW);
    assert_int_equal(layer->size, CLUSTER);
    assert_non_null(strstr(layer->file->name, "/base.raw"));
    assert_null(image_layer(&opening.image, 3));
    end(ground, &opening);
}

static void test_formats(void **state)
{
    const struct ground *ground = *state;
    const struct spec plain = {.data = {0}, .data_count = 1, .fill = 'x'};
    const struct spec old = {.version = 1, .data = {0}, .data_count = 1, .fill = 'x'};
    const struct image_choice raw = {.format = IMAGE_RAW}, qcow2 = {.format = IMAGE_QCOW2},
                              qcow = {.format = IMAGE_QCOW};

    make_file(ground, "a.qcow2", &plain);
    make_file(ground, "a.img", &plain);
    make_file(ground, "a.qcow", &old);
    make_raw(ground, "b.img", 'r');
    make_raw(ground, "b.qcow2", 'r');
    opens(ground, "a.qcow2", &by_name, "x...............");
    opens(ground, "a.img", &qcow2, "x...............");
    opens(ground, "a.qcow", &by_name, "x...............");
    opens(ground, "b.img", &by_name, "r");
    opens(ground, "b.qcow2", &raw, "r");
    refused(ground, "a.img", &by_name, -EINVAL,
            "it begins like a qcow2 image; -f qcow2 reads it as one, -f raw copies it as it is");
    refused(ground, "b.qcow2", &by_name, -EINVAL, "opening ");
    refused(ground, "a.qcow", &qcow2, -EINVAL, "opening ");
    refused(ground, "a.qcow2", &qcow, -EINVAL, "opening ");
    /* Too short for any header, and for being looked at. */
    ground_make(ground, "c.img", "QFI", 3);
    ground_make(ground, "c.qcow2", "QFI\xfb", 4);
    refused(ground, "c.qcow2", &by_name, -EINVAL, "shorter than any header");
    refused(ground, "c.img", &qcow2, -EINVAL, "shorter than any header");
    refused(ground, "none.qcow2", &by_name, -ENOENT, "none.qcow2");
}

static void test_raw_is_obeyed(void **state)
{
    const struct ground *ground = *state;
    const struct image_choice raw = {.format = IMAGE_RAW};
    struct opening opening;
    unsigned char head[4];

    make_file(ground, "a.img", &(struct spec){.fill = 0});
    open_image(ground, &opening, "a.img", &raw);
    assert_int_equal(opening.status, 0);
    ground_do(ground, opening.image.dev, BLK_READ, 0, 0, head, sizeof(head));
    assert_memory_equal(head, "QFI\xfb", 4);
    end(ground, &opening);
}

/* ---- Backing files ---------------------------------------------------------------------------- */

static void test_backing_format(void **state)
{
    const struct ground *ground = *state;
    const struct spec behind = {.data = {0}, .data_count = 1, .fill = 'x'};
    struct opening opening;
    unsigned char head[4];

    make_file(ground, "x.img", &behind);
    make_file(ground, "x.qcow2", &behind);
    make_file(ground, "top.qcow2", &(struct spec){.backing = "x.qcow2"});
    opens(ground, "top.qcow2", &by_name, "x...............");
    make_file(ground, "top.qcow2", &(struct spec){.backing = "x.img", .backing_format = "qcow2"});
    opens(ground, "top.qcow2", &by_name, "x...............");
    /* Never found out: what a guest has written into a raw image is not read as a header. */
    make_file(ground, "top.qcow2", &(struct spec){.backing = "x.img"});
    refused(ground, "top.qcow2", &by_name, -EINVAL, "neither its name nor the image above says");
    make_file(ground, "top.qcow2", &(struct spec){.backing = "x.img", .backing_format = "raw"});
    open_image(ground, &opening, "top.qcow2", &by_name);
    assert_int_equal(opening.status, 0);
    ground_do(ground, opening.image.dev, BLK_READ, 0, 0, head, sizeof(head));
    assert_memory_equal(head, "QFI\xfb", 4);
    end(ground, &opening);
}

static void test_unknown_backing_format(void **state)
{
    const struct ground *ground = *state;

    make_file(ground, "top.qcow2", &(struct spec){.backing = "x.img", .backing_format = "vmdk"});
    refused(ground, "top.qcow2", &by_name, -ENOTSUP,
            "its backing file is of the format \"vmdk\"; those that can be read are raw");
}

static void test_backing_names(void **state)
{
    const struct ground *ground = *state;
    static const char *const up[] = {".."}, *const any[] = {"any"};
    const struct image_choice allow_up = {.allowed = up, .allowed_count = 1},
                              allow_any = {.allowed = any, .allowed_count = 1};
    char *dir = ground_path(ground, "sub");
    char *absolute = ground_path(ground, "base.raw");

    assert_int_equal(mkdir(dir, 0700), 0);
    make_raw(ground, "base.raw", 'b');
    make_raw(ground, "sub/base.raw", 's');
    make_file(ground, "top.qcow2", &(struct spec){.backing = "sub/base.raw"});
    opens(ground, "top.qcow2", &by_name, "s...............");
    make_file(ground, "sub/top.qcow2", &(struct spec){.backing = "../base.raw"});
    refused(ground, "sub/top.qcow2", &by_name, -EPERM, "--allow-backing=.. allows it");
    opens(ground, "sub/top.qcow2", &allow_up, "b...............");
    opens(ground, "sub/top.qcow2", &allow_any, "b...............");
    make_file(ground, "top.qcow2", &(struct spec){.backing = absolute});
    refused(ground, "top.qcow2", &by_name, -EPERM, "a path from the root of this machine");
    refused(ground, "top.qcow2", &allow_up, -EPERM, "a path from the root of this machine");
    opens(ground, "top.qcow2", &allow_any, "b...............");
    make_file(ground, "top.qcow2", &(struct spec){.backing = "json:{}"});
    refused(ground, "top.qcow2", &allow_any, -EINVAL, "in the way of a driver of QEMU");
    make_file(ground, "top.qcow2", &(struct spec){.backing = "none.raw"});
    refused(ground, "top.qcow2", &by_name, -ENOENT, "none.raw");
    refused(ground, "top.qcow2", &by_name, -ENOENT, "backing file of ");
    free(absolute);
    free(dir);
}

static void test_loops(void **state)
{
    const struct ground *ground = *state;
    const struct spec to_a = {.backing = "a.qcow2"}, to_b = {.backing = "b.qcow2"};
    char *a = ground_path(ground, "a.qcow2"), *other = ground_path(ground, "link.qcow2");

    make_file(ground, "a.qcow2", &to_a);
    refused(ground, "a.qcow2", &by_name, -ELOOP, "it is the same file as");
    make_file(ground, "a.qcow2", &to_b);
    make_file(ground, "b.qcow2", &to_a);
    refused(ground, "a.qcow2", &by_name, -ELOOP, "it is the same file as");
    /* By another name. */
    make_file(ground, "a.qcow2", &(struct spec){.backing = "link.qcow2"});
    assert_int_equal(link(a, other), 0);
    refused(ground, "a.qcow2", &by_name, -ELOOP, "it is the same file as");
    free(a);
    free(other);
}

/* A chain of so many images, the last one raw. */
static void make_long_chain(const struct ground *ground, unsigned count)
{
    char name[32], backing[32];

    for (unsigned i = 0; i + 1 < count; i++) {
        snprintf(name, sizeof(name), "%u.qcow2", i);
        snprintf(backing, sizeof(backing), i + 2 < count ? "%u.qcow2" : "%u.raw", i + 1);
        make_file(ground, name, &(struct spec){.cluster_bits = 12, .backing = backing});
    }
    snprintf(name, sizeof(name), "%u.raw", count - 1);
    make_raw(ground, name, 'z');
}

static void test_depth(void **state)
{
    const struct ground *ground = *state;

    make_long_chain(ground, IMAGE_MAX_DEPTH);
    opens(ground, "0.qcow2", &by_name, "z...............");
    make_long_chain(ground, IMAGE_MAX_DEPTH + 1);
    refused(ground, "0.qcow2", &by_name, -ELOOP, "a chain of more than 64 images");
    opens(ground, "1.qcow2", &by_name, "z...............");
}

/* ---- Data files, snapshots, and tables that are too large --------------------------------------- */

static void test_data_file(void **state)
{
    const struct ground *ground = *state;
    static const char *const up[] = {"../x"};
    const struct image_choice allow = {.allowed = up, .allowed_count = 1};
    struct opening opening;

    make_raw(ground, "x.data", 'd');
    make_file(ground, "a.qcow2",
              &(struct spec){.data_file = "x.data", .data = {0}, .data_count = 1});
    open_image(ground, &opening, "a.qcow2", &by_name);
    assert_int_equal(opening.status, 0);
    check_reads(ground, opening.image.dev, "d...............");
    assert_non_null(strstr(image_layer(&opening.image, 0)->data->name, "/x.data"));
    assert_string_equal(image_layer(&opening.image, 0)->data_file, "x.data");
    end(ground, &opening);
    make_file(ground, "a.qcow2", &(struct spec){.data_file = "../x.data"});
    refused(ground, "a.qcow2", &by_name, -EPERM, "its data file is \"../x.data\"");
    refused(ground, "a.qcow2", &allow, -EPERM, "its data file is \"../x.data\"");
    make_file(ground, "a.qcow2", &(struct spec){.data_file = "none"});
    refused(ground, "a.qcow2", &by_name, -ENOENT, "data file of ");
    make_file(ground, "a.qcow2", &(struct spec){.data_file = "a.qcow2"});
    refused(ground, "a.qcow2", &by_name, -ELOOP, "names itself as its data file");
}

static void test_snapshots(void **state)
{
    const struct ground *ground = *state;
    const struct image_choice one = {.snapshot = "one"}, two = {.snapshot = "two"};
    unsigned char cluster[CLUSTER];
    struct qcow2_make make;
    struct opening now, then;

    /* The image behind it has no such snapshot, and none is asked of it. */
    make_file(ground, "x.qcow2", &(struct spec){.data = {0, 2}, .data_count = 2, .fill = 'x'});
    make_init(&make,
              &(struct spec){.backing = "x.qcow2", .data = {0}, .data_count = 1, .fill = 'a'});
    qcow2_make_snapshot(&make, &(struct qcow2_make_snapshot){.id = "1", .name = "one"});
    memset(cluster, 'b', sizeof(cluster));
    qcow2_make_data(&make, CLUSTER, cluster);
    ground_make(ground, "a.qcow2", make.bytes, make.len);
    qcow2_make_release(&make);
    make_raw(ground, "b.img", 'r');
    open_image(ground, &now, "a.qcow2", &by_name);
    open_image(ground, &then, "a.qcow2", &one);
    check_reads(ground, now.image.dev, "abx.............");
    check_reads(ground, then.image.dev, "a.x.............");
    assert_int_equal(image_layer(&now.image, 0)->snapshots, 1);
    /* A copy of the one is not resumed from the other. */
    assert_string_not_equal(now.image.dev->identity, then.image.dev->identity);
    end(ground, &now);
    end(ground, &then);
    refused(ground, "a.qcow2", &two, -ENOENT, "there is \"one\" (id 1)");
    refused(ground, "b.img", &one, -EINVAL, "a raw image has no internal snapshots");
    make_file(ground, "a.qcow2", &(struct spec){.fill = 0});
    refused(ground, "a.qcow2", &one, -ENOENT, "no internal snapshots");
}

/* Images whose L1 tables alone are as large as they may be, and almost all holes. */
static void test_large_tables(void **state)
{
    const struct ground *ground = *state;
    char name[32], backing[32];

    for (unsigned i = 0; i < 5; i++) {
        struct qcow2_make make;
        char *path;

        snprintf(name, sizeof(name), "%u.qcow2", i);
        snprintf(backing, sizeof(backing), "%u.qcow2", i + 1);
        qcow2_make_init(&make, &(struct qcow2_make_options){
                                   .cluster_bits = 9,
                                   .size = SIZE,
                                   .backing = i < 4 ? backing : NULL,
                               });
        qcow2_make_put64(&make, QCOW2_AT_SIZE, (uint64_t)(QCOW2_MAX_L1 / 8) * 64 * 512);
        qcow2_make_put32(&make, QCOW2_AT_L1_ENTRIES, QCOW2_MAX_L1 / 8);
        qcow2_make_put64(&make, QCOW2_AT_L1_OFFSET, MIB);
        ground_make(ground, name, make.bytes, make.len);
        path = ground_path(ground, name);
        assert_int_equal(truncate(path, MIB + QCOW2_MAX_L1), 0);
        free(path);
        qcow2_make_release(&make);
    }
    refused(ground, "0.qcow2", &by_name, -EFBIG, "its L1 table takes 33554432 bytes, and for all");
    {
        struct opening opening;

        open_image(ground, &opening, "1.qcow2", &by_name);
        assert_int_equal(opening.status, 0);
        end(ground, &opening);
    }
}

/* ---- Cancelling ------------------------------------------------------------------------------- */

/* After so many turns of the loop. False: it had ended. */
static bool cancel_after(const struct ground *ground, unsigned turns)
{
    struct opening opening;
    bool ended;

    begin(ground, &opening, "top.qcow2", &by_name);
    for (unsigned i = 0; i < turns && !opening.done; i++)
        loop_turn(ground->loop, LOOP_NEVER);
    ended = opening.done;
    image_cancel(&opening.image);
    image_cancel(&opening.image);
    ground_wait(ground, &opening.done);
    /* The last of what it waited for may have been on its way. */
    assert_true(opening.status == (ended ? 0 : -ECANCELED));
    if (!ended)
        assert_non_null(strstr(opening.image.error.text, "cancelled"));
    end(ground, &opening);
    return !ended;
}

static void test_cancel(void **state)
{
    const struct ground *ground = *state;
    unsigned turns = 0;

    make_chain(ground);
    while (cancel_after(ground, turns))
        turns++;
    assert_true(turns > 3);
}

/* ---- Faults ----------------------------------------------------------------------------------- */

struct scene {
    struct fake fake;
    struct fake_disk disk;
    struct fake_end end;
    struct opening opening;
};

static void start_scene(struct scene *scene, const struct image_choice *choice)
{
    memset(&scene->opening, 0, sizeof(scene->opening));
    scene->opening.image = (struct image){
        .loop = scene->fake.loop,
        .args = {.url = &scene->end.url, .choice = *choice, .settings = &settings},
        .done = opened,
        .opaque = &scene->opening,
    };
    image_open(&scene->opening.image);
}

static void finish_scene(struct scene *scene)
{
    struct desk_task closing;

    fake_finish(&scene->fake);
    assert_true(scene->opening.done);
    if (scene->opening.image.dev) {
        blk_close(scene->opening.image.dev, desk_task(&closing));
        fake_finish(&scene->fake);
        assert_int_equal(closing.done, 1);
    }
    image_release(&scene->opening.image);
    assert_int_equal(scene->disk.open, 0);
}

static void scene_init(struct scene *scene)
{
    struct qcow2_make make;

    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    make_init(&make, &(struct spec){.data = {0}, .data_count = 1, .fill = 'a'});
    qcow2_make_snapshot(&make, &(struct qcow2_make_snapshot){.id = "1", .name = "one"});
    qcow2_make_to_disk(&make, &scene->disk, &scene->fake);
    qcow2_make_release(&make);
    fake_end_disk(&scene->end, &scene->disk, "fake", "a");
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->disk);
    fake_release(&scene->fake);
}

/* The header, the snapshot table, the L1 table: as few READs as there are tables. */
static void test_commands(void **state)
{
    const struct image_choice one = {.format = IMAGE_QCOW2, .snapshot = "one"};
    struct scene scene;

    (void)state;
    scene_init(&scene);
    start_scene(&scene, &one);
    finish_scene(&scene);
    assert_int_equal(scene.opening.status, 0);
    assert_int_equal(scene.fake.submitted, 5); /* open, three READs, close */
    scene_release(&scene);
}

static void test_faults(void **state)
{
    const struct image_choice one = {.format = IMAGE_QCOW2, .snapshot = "one"};
    struct scene scene;
    unsigned number = 0;

    (void)state;
    scene_init(&scene);
    do {
        scene.fake.fault =
            (struct fake_fault){.number = scene.fake.submitted + ++number, .code = EIO};
        start_scene(&scene, &one);
        finish_scene(&scene);
        assert_int_equal(scene.opening.status, number <= 4 ? -EIO : 0);
        if (number <= 4)
            assert_non_null(strstr(scene.opening.image.error.text, "fake:a"));
    } while (scene.opening.status < 0);
    assert_int_equal(number, 5);
    scene_release(&scene);
}

/* A READ that comes short. */
static void test_short(void **state)
{
    const struct image_choice qcow2 = {.format = IMAGE_QCOW2};
    struct scene scene;

    (void)state;
    scene_init(&scene);
    for (unsigned number = 2; number <= 3; number++) {
        scene.fake.fault = (struct fake_fault){.number = scene.fake.submitted + number};
        start_scene(&scene, &qcow2);
        finish_scene(&scene);
        assert_int_equal(scene.opening.status, -EIO);
    }
    scene_release(&scene);
}

/* A head that cannot be read is not the image's fault: --salvage is to have its chance. */
static void test_head_lost(void **state)
{
    const struct image_choice assumed = {.format = IMAGE_BY_NAME};
    struct scene scene;

    (void)state;
    scene_init(&scene);
    start_scene(&scene, &assumed);
    finish_scene(&scene);
    assert_int_equal(scene.opening.status, -EINVAL);
    scene.fake.fault = (struct fake_fault){.number = scene.fake.submitted + 2, .code = EIO};
    start_scene(&scene, &assumed);
    finish_scene(&scene);
    assert_int_equal(scene.opening.status, 0);
    scene_release(&scene);
}

int main(void)
{
#define ON_GROUND(test) cmocka_unit_test_setup_teardown(test, ground_setup, ground_teardown)
    const struct CMUnitTest tests[] = {
        ON_GROUND(test_chain),
        ON_GROUND(test_formats),
        ON_GROUND(test_raw_is_obeyed),
        ON_GROUND(test_backing_format),
        ON_GROUND(test_unknown_backing_format),
        ON_GROUND(test_backing_names),
        ON_GROUND(test_loops),
        ON_GROUND(test_depth),
        ON_GROUND(test_data_file),
        ON_GROUND(test_snapshots),
        ON_GROUND(test_large_tables),
        ON_GROUND(test_cancel),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_head_lost),
    };

    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
