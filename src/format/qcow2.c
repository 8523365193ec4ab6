/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 device: its life, and what those below are asked to do, all of them at once. */
#include "qcow2_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

static const char *const place_keys[] = {"file", "data-file", "backing"};
static const char *const place_labels[] = {"file", "data file", "backing"};

/* ---- What it is like -------------------------------------------------------------------------- */

static struct qcow2_core *new_core(const struct qcow2_parts *parts)
{
    struct qcow2_core *core = calloc(1, sizeof(*core));

    if (!core)
        return NULL;
    core->users = 1;
    core->header = parts->header;
    core->l1 = parts->l1;
    return core;
}

static void drop_core(struct qcow2_core *core)
{
    if (atomic_fetch_sub(&core->users, 1) > 1)
        return;
    qcow2_header_free(&core->header);
    free(core->l1);
    free(core);
}

/* The size is that of the disk and of all files together: never smaller than the disk, and another one as soon
 * as a file's is. Times are added up, for the latest would hide that another file has changed. */
static struct blk_stamp stamp(const struct qcow2 *qcow2, bool opened)
{
    struct blk_stamp sum = {.size = qcow2->core->header.size};

    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *dev = qcow2->below[i].dev;
        const struct blk_stamp *one;

        if (!dev)
            continue;
        one = opened ? &dev->opened : &dev->seen;
        sum.size = one->size > UINT64_MAX - sum.size ? UINT64_MAX : sum.size + one->size;
        sum.mtime_ns = (int64_t)((uint64_t)sum.mtime_ns + (uint64_t)one->mtime_ns);
        sum.ctime_ns = (int64_t)((uint64_t)sum.ctime_ns + (uint64_t)one->ctime_ns);
    }
    return sum;
}

/* Of all devices, and of the L1 table, which is another one for each snapshot. NULL: there is one that is not
 * known; or out of memory, which comes to the same. */
static char *identity(const struct qcow2 *qcow2)
{
    const struct qcow2_header *header = &qcow2->core->header;
    size_t room = 3 * 21 + sizeof("qcow2:@()"), at;
    char *text;

    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *dev = qcow2->below[i].dev;

        if (dev && !dev->identity)
            return NULL;
        room += dev ? strlen(dev->identity) + 1 : 1;
    }
    text = malloc(room);
    if (!text)
        return NULL;
    at = (size_t)snprintf(text, room, "qcow2:%" PRIu64 "@%" PRIu64 "(", header->size,
                          header->l1_offset);
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *dev = qcow2->below[i].dev;

        at +=
            (size_t)snprintf(text + at, room - at, "%s%s", i ? "," : "", dev ? dev->identity : "");
    }
    snprintf(text + at, room - at, ")");
    return text;
}

/* Blocks are those of the devices below, as far as clusters are made of them: then what is asked for in whole blocks
 * needs no buffer in between. */
static struct blk_limits common_limits(const struct qcow2 *qcow2)
{
    struct blk_limits common = {
        .align = 1,
        .mem_align = 1,
        .max_read = 16 * MIB,
        .max_depth = 128,
    };

    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *dev = qcow2->below[i].dev;

        if (!dev)
            continue;
        if (dev->limits.align > common.align && dev->limits.align <= qcow2_cluster_size(qcow2))
            common.align = dev->limits.align;
        if (dev->limits.mem_align > common.mem_align)
            common.mem_align = dev->limits.mem_align;
        common.max_read = (uint32_t)min_u64(common.max_read, dev->limits.max_read);
    }
    common.max_read = (uint32_t)round_down(common.max_read, common.align);
    if (common.max_read == 0)
        common.max_read = common.align;
    return common;
}

/* All those below are there. */
static void set_up(struct qcow2 *qcow2)
{
    struct qcow2_core *core = qcow2->core;
    struct blk_dev *dev = &qcow2->dev, *file = qcow2->below[QCOW2_FILE].dev;

    dev->size = core->header.size;
    dev->caps = BLK_CAN_EXTENTS;
    dev->limits = common_limits(qcow2);
    dev->identity = identity(qcow2);
    dev->opened = stamp(qcow2, true);
    dev->session_id = file->session_id;
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *below = qcow2->below[i].dev;

        if (below && below->round_trip > dev->round_trip)
            dev->round_trip = below->round_trip;
    }
    qcow2_map_init(&qcow2->map, &core->header, core->l1, file, qcow2_data(qcow2)->size);
}

/* ---- What those below are asked to do --------------------------------------------------------- */

static void answered(struct qcow2 *qcow2)
{
    assert(qcow2->awaited > 0);
    if (--qcow2->awaited == 0)
        qcow2->then(qcow2);
}

/* A real reason beats "cancelled", otherwise the first one wins. Below, all has been tried: it is
 * final. */
static void note_failure(struct qcow2 *qcow2, int status, const struct blk_error *error)
{
    if (qcow2->status < 0 && !(qcow2->status == -ECANCELED && status != -ECANCELED))
        return;
    qcow2->status = status;
    qcow2->error = *error;
    qcow2->error.retry = BLK_FATAL;
}

static void task_done(struct blk_task *task)
{
    struct qcow2_below *below = container_of(task, struct qcow2_below, task);

    if (task->status < 0)
        note_failure(below->qcow2, task->status, &task->error);
    answered(below->qcow2);
}

static void begin(struct qcow2 *qcow2, void (*then)(struct qcow2 *qcow2))
{
    assert(qcow2->awaited == 0);
    qcow2->then = then;
    qcow2->awaited = 1;
    qcow2->status = 0;
    blk_error_clear(&qcow2->error);
}

static struct blk_task *ask(struct qcow2_below *below)
{
    below->qcow2->awaited++;
    below->task = (struct blk_task){.done = task_done};
    return &below->task;
}

static void report_look(struct qcow2 *qcow2)
{
    if (qcow2->status == 0)
        qcow2->dev.seen = stamp(qcow2, false);
    blk_recovered(&qcow2->dev, qcow2->status, &qcow2->error);
}

static void look_now(struct qcow2_map *map)
{
    struct qcow2 *qcow2 = container_of(map, struct qcow2, map);

    begin(qcow2, report_look);
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        if (qcow2->below[i].dev)
            blk_recheck(qcow2->below[i].dev, ask(&qcow2->below[i]));
    }
    answered(qcow2);
}

/* Only ever asked for: what is lost below is found again there. Tables that were asked for ahead may still be on
 * their way. */
static void look_below(struct blk_dev *dev)
{
    qcow2_map_settle(&qcow2_of(dev)->map, look_now);
}

static void hurry_below(struct blk_dev *dev, uint64_t ns)
{
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        if (qcow2_of(dev)->below[i].dev)
            blk_hurry(qcow2_of(dev)->below[i].dev, ns);
    }
}

static void cancel_below(struct blk_dev *dev)
{
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        if (qcow2_of(dev)->below[i].dev)
            blk_cancel_all(qcow2_of(dev)->below[i].dev);
    }
}

/* ---- Description ------------------------------------------------------------------------------ */

/* A device below: its facts have the keys of this one with the place in front, "backing-backing-format". */
struct nested {
    struct blk_report report;
    struct blk_report *outer;
    enum qcow2_place place;
};

static void nested_fact(struct blk_report *report, const char *key, const char *label,
                        const char *value)
{
    const struct nested *nested = container_of(report, struct nested, report);
    char long_key[512], long_label[512];

    snprintf(long_key, sizeof(long_key), "%s-%s", place_keys[nested->place], key);
    snprintf(long_label, sizeof(long_label), "%s: %s", place_labels[nested->place], label);
    nested->outer->fact(nested->outer, long_key, long_label, value);
}

struct feature {
    uint64_t bit;
    const char *name;
};

static void describe_features(struct blk_report *report, const char *key, const char *label,
                              const struct feature *known, size_t count, uint64_t bits)
{
    char text[256] = "";

    for (size_t i = 0; i < count; i++) {
        if (bits & known[i].bit)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", *text ? ", " : "",
                     known[i].name);
        bits &= ~known[i].bit;
    }
    if (bits)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%sunknown 0x%" PRIx64,
                 *text ? ", " : "", bits);
    if (*text)
        blk_report_fact(report, key, label, "%s", text);
}

static void describe_all_features(const struct qcow2_header *header, struct blk_report *report)
{
    static const struct feature incompatible[] = {
        {QCOW2_DIRTY, "dirty"},
        {QCOW2_CORRUPT, "corrupt"},
        {QCOW2_DATA_FILE, "external data file"},
        {QCOW2_COMPRESSION_TYPE, "compression type"},
        {QCOW2_EXTENDED_L2, "extended L2 entries"},
    };
    static const struct feature compatible[] = {{1, "lazy refcounts"}};
    static const struct feature autoclear[] = {{1, "bitmaps"}, {2, "raw external data"}};

    describe_features(report, "incompatible-features", "incompatible features", incompatible,
                      sizeof(incompatible) / sizeof(*incompatible), header->incompatible);
    describe_features(report, "compatible-features", "compatible features", compatible, 1,
                      header->compatible);
    describe_features(report, "autoclear-features", "autoclear features", autoclear, 2,
                      header->autoclear);
}

/* Which may be longer than other facts. */
static void describe_name(struct blk_report *report, const char *key, const char *label,
                          const char *name)
{
    if (name)
        report->fact(report, key, label, name);
}

static void describe(struct blk_dev *dev, struct blk_report *report)
{
    struct qcow2 *qcow2 = qcow2_of(dev);
    const struct qcow2_header *header = &qcow2->core->header;

    blk_report_fact(report, "format", "format", "%s", header->version == 1 ? "qcow" : "qcow2");
    blk_report_fact(report, "version", "version", "%u", header->version);
    blk_report_fact(report, "virtual-size", "virtual size", "%" PRIu64, header->size);
    blk_report_fact(report, "cluster-size", "cluster size", "%" PRIu64, qcow2_cluster_size(qcow2));
    blk_report_fact(report, "compression", "compression", "%s",
                    header->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    describe_all_features(header, report);
    if (header->version > 1)
        blk_report_fact(report, "snapshots", "snapshots", "%" PRIu32, header->snapshot_count);
    describe_name(report, "backing-name", "backing name", header->backing);
    describe_name(report, "backing-name-format", "backing format", header->backing_format);
    describe_name(report, "data-file-name", "data file name", header->data_file);
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        struct nested nested = {{nested_fact}, report, (enum qcow2_place)i};

        if (qcow2->below[i].dev)
            blk_describe(qcow2->below[i].dev, &nested.report);
    }
}

/* ---- From open to close ----------------------------------------------------------------------- */

static void report_closed(struct qcow2 *qcow2)
{
    qcow2_map_release(&qcow2->map);
    qcow2_free_shares(qcow2);
    qcow2_free_compressed(qcow2);
    drop_core(qcow2->core);
    blk_closed(&qcow2->dev);
}

static void close_now(struct qcow2_map *map)
{
    struct qcow2 *qcow2 = container_of(map, struct qcow2, map);

    begin(qcow2, report_closed);
    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        struct qcow2_below *below = &qcow2->below[i];

        if (below->dev)
            blk_close(below->dev, ask(below));
        below->dev = NULL;
    }
    answered(qcow2);
}

static void close_below(struct blk_dev *dev)
{
    struct qcow2 *qcow2 = qcow2_of(dev);

    if (qcow2->map.reading > 0)
        blk_cancel_all(qcow2->below[QCOW2_FILE].dev);
    qcow2_map_settle(&qcow2->map, close_now);
}

static void report_cloned(struct qcow2 *qcow2)
{
    if (qcow2->status == 0)
        set_up(qcow2);
    blk_opened(&qcow2->dev, qcow2->status, &qcow2->error);
}

static void clone_below(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct qcow2 *from = (const struct qcow2 *)origin;
    struct qcow2 *qcow2 = qcow2_of(dev);

    begin(qcow2, report_cloned);
    qcow2->core = from->core;
    atomic_fetch_add(&qcow2->core->users, 1);
    for (unsigned i = 0; i < QCOW2_PLACES && qcow2->status == 0; i++) {
        struct qcow2_below *below = &qcow2->below[i];
        struct blk_error error;

        below->qcow2 = qcow2;
        if (!from->below[i].dev)
            continue;
        below->dev = blk_clone(dev->loop, from->below[i].dev, number, ask(below));
        if (below->dev)
            continue;
        qcow2->awaited--;
        note_failure(qcow2, blk_error_set(&error, ENOMEM, "out of memory"), &error);
    }
    answered(qcow2);
}

static const struct blk_driver qcow2_driver = {
    .name = "qcow2",
    .dev_size = sizeof(struct qcow2),
    .req_size = sizeof(struct qcow2_request),
    .relays = true,
    .clone = clone_below,
    .recover = look_below,
    .close = close_below,
    .submit = qcow2_submit,
    .cancel_all = cancel_below,
    .hurry = hurry_below,
    .describe = describe,
};

static int check(const struct qcow2 *qcow2, struct blk_error *error)
{
    const struct qcow2_header *header = &qcow2->core->header;
    unsigned reach = header->l2_bits + header->cluster_bits;

    for (unsigned i = 0; i < QCOW2_PLACES; i++) {
        const struct blk_dev *dev = qcow2->below[i].dev;

        if (dev && dev->size == BLK_SIZE_UNKNOWN)
            return blk_error_set(error, EINVAL, "%s cannot be its %s: its size is not known",
                                 dev->name, place_labels[i]);
    }
    if ((header->incompatible & QCOW2_DATA_FILE) && !qcow2->below[QCOW2_DATA].dev)
        return blk_error_set(error, EINVAL, "its data is in another file, which was not opened");
    if (header->size > INT64_MAX)
        return blk_error_set(error, EFBIG, "its disk is longer than 8 EiB");
    if (header->size > 0 && (header->size - 1) >> reach >= header->l1_entries)
        return blk_error_set(error, EINVAL,
                             "its L1 table has %" PRIu32 " entries, where a disk of %" PRIu64
                             " bytes needs %" PRIu64,
                             header->l1_entries, header->size, ((header->size - 1) >> reach) + 1);
    return 0;
}

struct blk_dev *qcow2_open(struct loop *loop, const struct qcow2_parts *parts,
                           struct blk_task *task)
{
    struct blk_dev *const devs[QCOW2_PLACES] = {parts->file, parts->data, parts->backing};
    struct qcow2_core *core = new_core(parts);
    struct blk_dev *dev = core ? blk_new(loop, &qcow2_driver, parts->name, false, task) : NULL;
    struct blk_error error;
    struct qcow2 *qcow2;
    int status;

    assert(parts->file);
    if (!dev) {
        free(core);
        return NULL;
    }
    qcow2 = qcow2_of(dev);
    qcow2->core = core;
    for (unsigned i = 0; i < QCOW2_PLACES; i++)
        qcow2->below[i] = (struct qcow2_below){.qcow2 = qcow2, .dev = devs[i]};
    status = check(qcow2, &error);
    if (status == 0) {
        set_up(qcow2);
        if (core->header.incompatible & QCOW2_CORRUPT)
            blk_warn(parts->file,
                     "this image is marked as corrupt; what is read from it may be wrong");
    }
    blk_opened(dev, status, status < 0 ? &error : NULL);
    return dev;
}
