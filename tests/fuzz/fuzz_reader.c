/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz_reader.h"

#include "fuzz_change.h"
#include "fuzz_world.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <lunferry/image.h>
#include <lunferry/units.h>

#define READS     8                   /* that the control bytes choose */
#define LONGEST   (UINT64_C(1) << 16) /* bytes, of a READ */
#define MAX_FOUND 64                  /* extents that are remembered */
#define MAX_ROOM  16                  /* extents in an answer */
#define MAX_WALK  96                  /* EXTENTS, from end to end */
#define LAYERS    3                   /* the image, again.qcow2, another file */
#define OPEN_MOST (8 * LAYERS)        /* requests: header, its rest, snapshots, L1 table of each */
#define NO_CANCEL UINT_MAX
#define SHORTEST  UINT64_C(512) /* bytes of a cluster, and of a subcluster */

struct control {
    unsigned snapshot;       /* which of those below */
    bool other;              /* the other format than the one that the image begins with */
    size_t room;             /* extents in an answer */
    unsigned cancel;         /* after so many turns of the loop, while reading; NO_CANCEL: never */
    unsigned cancel_open;    /* the same, while opening */
    uint8_t reads[READS][3]; /* where, and how much */
};

struct range {
    uint64_t offset, len;
};

struct reader {
    struct fuzz_world world;
    struct control control;
    struct fuzz_reach *reach;
    struct url url;
    struct image image;
    bool opened;
    int status;
    struct blk_extent found[MAX_FOUND];
    size_t found_count;
    struct range ranges[READS + 1];
};

/* A request, and what has become of it. */
struct asked {
    struct blk_req req;
    struct iovec iov[3];
    struct blk_extents extents;
    struct blk_extent list[MAX_ROOM];
    unsigned char *bytes;
    unsigned done;
    bool submitting;
};

/* ---- What is done ----------------------------------------------------------------------------- */

static unsigned turns_of(uint8_t byte, unsigned from)
{
    return byte >= from && byte < from + 32 ? byte - from : NO_CANCEL;
}

/* The first of them: order (2 bits), blocks of the devices (2), snapshot (2), format (1). Then: which request fails;
 * whether it comes short, or what is cancelled; room for extents; the reads. */
static void take_control(struct reader *reader, const uint8_t *bytes)
{
    static const uint32_t aligns[] = {1, 1, 512, 4096};
    static const enum fuzz_order orders[] = {FUZZ_OLDEST_FIRST, FUZZ_NEWEST_FIRST, FUZZ_AT_ONCE,
                                             FUZZ_OLDEST_FIRST};
    struct control *control = &reader->control;

    reader->world.order = orders[bytes[0] & 3];
    reader->world.align = aligns[bytes[0] >> 2 & 3];
    control->snapshot = bytes[0] >> 4 & 3;
    control->other = bytes[0] >> 6 & 1;
    if (bytes[1] < 64)
        reader->world.fail_at = bytes[1];
    reader->world.cut = bytes[2] & 1;
    control->cancel = turns_of(bytes[2], 0xc0);
    control->cancel_open = turns_of(bytes[2], 0xe0);
    control->room = 1 + bytes[3] % MAX_ROOM;
    static_assert(sizeof(control->reads) == FUZZ_CONTROL - 4, "all of them are used");
    memcpy(control->reads, bytes + 4, sizeof(control->reads));
}

/* ---- Promises --------------------------------------------------------------------------------- */

static void check_error(int status, const struct blk_error *error)
{
    must(status <= 0);
    must(error->code == -status);
    if (status == 0 || status == -ECANCELED)
        return;
    must(error->text[0] != '\0');
    must(strnlen(error->text, sizeof(error->text)) < sizeof(error->text));
    for (const char *at = error->text; *at; at++)
        must((unsigned char)*at >= 0x20 && *at != 0x7f);
}

/* A prefix of what was asked for, in order and without gaps. */
static void check_answer(const struct asked *asked)
{
    const struct blk_extents *extents = &asked->extents;
    uint64_t at = asked->req.offset, left = asked->req.len;

    must(extents->count > 0 && extents->count <= extents->capacity);
    for (size_t i = 0; i < extents->count; i++) {
        const struct blk_extent *extent = &extents->list[i];

        must(extent->offset == at && extent->len > 0 && extent->len <= left);
        must(extent->kind == BLK_DATA || extent->host_offset == BLK_NO_OFFSET);
        must(extent->depth < LAYERS);
        at += extent->len;
        left -= extent->len;
    }
}

static void check_zeros(const unsigned char *bytes, uint64_t len)
{
    must(len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0));
}

static void check_host(const struct reader *reader, const unsigned char *bytes, uint64_t host,
                       uint64_t len)
{
    const struct fuzz_world *world = &reader->world;
    uint64_t there = host < world->size ? min_u64(len, world->size - host) : 0;

    must(there == 0 || memcmp(bytes, world->bytes + host, there) == 0);
    check_zeros(bytes + there, len - there);
}

/* What was read, against what EXTENTS has said of it. */
static void check_bytes(const struct reader *reader, const struct asked *asked)
{
    uint64_t from = asked->req.offset, end = from + asked->req.len;
    bool data_file = image_layer(&reader->image, 0)->data;

    for (size_t i = 0; i < reader->found_count; i++) {
        const struct blk_extent *extent = &reader->found[i];
        uint64_t low = extent->offset > from ? extent->offset : from;
        uint64_t high = min_u64(extent->offset + extent->len, end);

        if (low >= high)
            continue;
        if (extent->kind != BLK_DATA)
            check_zeros(asked->bytes + (low - from), high - low);
        else if (extent->depth == 0 && !extent->compressed && !data_file)
            check_host(reader, asked->bytes + (low - from),
                       extent->host_offset + (low - extent->offset), high - low);
    }
}

/* ---- Requests --------------------------------------------------------------------------------- */

/* In each layer, for each of its clusters in the range: itself, and the tables that are looked for ahead of it; and
 * the same for what comes as a prefix and has to be asked for again. */
static uint64_t most_requests(uint64_t len)
{
    uint64_t runs = len / SHORTEST + 2;

    return LAYERS * 20 * min_u64(runs, 16384);
}

static void was_asked(struct blk_req *req)
{
    struct asked *asked = req->opaque;

    must(!asked->submitting && asked->done == 0);
    asked->done++;
}

static void ask(struct reader *reader, struct blk_dev *dev, struct asked *asked)
{
    reader->world.budget += most_requests(asked->req.len);
    asked->req.done = was_asked;
    asked->req.opaque = asked;
    asked->submitting = true;
    blk_submit(dev, &asked->req);
    asked->submitting = false;
}

static void ask_extents(struct reader *reader, struct blk_dev *dev, struct asked *asked,
                        uint64_t offset, uint64_t len)
{
    memset(asked, 0, sizeof(*asked));
    asked->extents = (struct blk_extents){asked->list, reader->control.room, 0};
    asked->req = (struct blk_req){
        .op = BLK_EXTENTS, .offset = offset, .len = len, .extents = &asked->extents};
    reader->reach->extents++;
    ask(reader, dev, asked);
}

/* Into so many buffers, which together are of just that size, so that a sanitizer sees who writes beyond. */
static void ask_read(struct reader *reader, struct blk_dev *dev, struct asked *asked,
                     const struct range *range, int buffers)
{
    uint64_t each = range->len / 3, at = 0;

    memset(asked, 0, sizeof(*asked));
    asked->bytes = malloc(range->len);
    must(asked->bytes);
    memset(asked->bytes, 0xa5, range->len);
    if (each == 0)
        buffers = 1;
    for (int i = 0; i < buffers; i++) {
        uint64_t part = i + 1 < buffers ? each : range->len - at;

        asked->iov[i] = (struct iovec){asked->bytes + at, part};
        at += part;
    }
    asked->req = (struct blk_req){.op = BLK_READ,
                                  .offset = range->offset,
                                  .len = range->len,
                                  .iov = asked->iov,
                                  .iovcnt = buffers};
    reader->reach->reads++;
    ask(reader, dev, asked);
}

/* Where nothing happens any more, it will never be done. */
static void await(struct reader *reader, const struct asked *asked)
{
    while (asked->done == 0)
        must(loop_turn(reader->world.loop, 0));
    check_error(asked->req.status, &asked->req.error);
    must(asked->req.status != -ECANCELED || reader->control.cancel != NO_CANCEL);
    if (asked->req.status < 0)
        reader->reach->failed++;
    fuzz_world_check_memory(&reader->world);
}

/* ---- What lies where -------------------------------------------------------------------------- */

static void count_extent(struct fuzz_reach *reach, const struct blk_extent *extent)
{
    reach->data += extent->kind == BLK_DATA && !extent->compressed;
    reach->compressed += extent->compressed;
    reach->zeros += extent->kind == BLK_ZEROS;
    reach->unallocated += extent->kind == BLK_UNALLOCATED;
    reach->backing += extent->depth > 0;
}

static void remember(struct reader *reader, const struct asked *asked)
{
    for (size_t i = 0; i < asked->extents.count; i++) {
        count_extent(reader->reach, &asked->list[i]);
        if (reader->found_count < MAX_FOUND)
            reader->found[reader->found_count++] = asked->list[i];
    }
}

/* To the end of the disk; where that is far, by leaps. What cannot be told is gone over. */
static void walk(struct reader *reader, struct blk_dev *dev)
{
    uint64_t at = 0, size = dev->size;

    for (unsigned i = 0; i < MAX_WALK && at < size; i++) {
        struct asked asked;

        ask_extents(reader, dev, &asked, at, i % 4 == 3 ? min_u64(size - at, MIB) : size - at);
        await(reader, &asked);
        if (asked.req.status == 0) {
            const struct blk_extent *last = &asked.list[asked.extents.count - 1];

            check_answer(&asked);
            remember(reader, &asked);
            at = last->offset + last->len;
        } else {
            at += min_u64(size - at, 64 * KIB);
        }
        if (i > MAX_WALK / 2 && at < size)
            at += (size - at) / 8;
    }
}

/* ---- Reading ---------------------------------------------------------------------------------- */

/* Somewhere on the disk, or in one of the extents that were found. */
static struct range choose(const struct reader *reader, const uint8_t *bytes, uint64_t size)
{
    uint64_t place = (uint64_t)(bytes[0] & 0x7f) << 8 | bytes[1], offset;
    uint64_t wanted = bytes[2], len = wanted < 128 ? 1 + 7 * wanted : (wanted - 127) * 509;

    if ((bytes[0] & 0x80) && reader->found_count > 0)
        offset = reader->found[place % reader->found_count].offset + (place >> 7) * 61;
    else
        offset = (size >> 15) * place + (size & 0x7fff) * place / 0x8000;
    if (offset >= size)
        offset = size - 1;
    return (struct range){offset, min_u64(len, size - offset)};
}

static void choose_all(struct reader *reader, uint64_t size)
{
    for (unsigned i = 0; i < READS; i++)
        reader->ranges[i] = choose(reader, reader->control.reads[i], size);
    reader->ranges[READS] = (struct range){0, min_u64(size, LONGEST)};
}

/* Both may have failed, each in its own way; what both have read is the same. */
static void check_same(const struct asked *a, const struct asked *b)
{
    if (a->req.status == 0 && b->req.status == 0)
        must(memcmp(a->bytes, b->bytes, a->req.len) == 0);
}

static void read_one(struct reader *reader, struct blk_dev *dev, unsigned index,
                     const struct asked *before)
{
    struct asked again;

    ask_read(reader, dev, &again, &reader->ranges[index], 1);
    await(reader, &again);
    check_same(before, &again);
    if (reader->world.fail_at == 0)
        must(before->req.status == again.req.status);
    free(again.bytes);
}

static void turn(struct reader *reader, unsigned turns)
{
    while (turns-- > 0)
        loop_turn(reader->world.loop, 0);
}

/* All ranges at once, and EXTENTS of the whole disk beside them; then one by one, on a clone if there is one. */
static void read_all(struct reader *reader, struct blk_dev *dev, struct blk_dev *clone)
{
    struct asked reads[READS + 1], extents;
    bool cancelled = reader->control.cancel != NO_CANCEL;

    choose_all(reader, dev->size);
    for (unsigned i = 0; i <= READS; i++)
        ask_read(reader, dev, &reads[i], &reader->ranges[i], 3);
    ask_extents(reader, dev, &extents, 0, dev->size);
    if (cancelled) {
        turn(reader, reader->control.cancel);
        blk_cancel_all(dev);
    }
    await(reader, &extents);
    if (extents.req.status == 0)
        check_answer(&extents);
    for (unsigned i = 0; i <= READS; i++) {
        await(reader, &reads[i]);
        must(reads[i].req.status < 0 || reads[i].req.got == reads[i].req.len);
        if (reads[i].req.status == 0)
            check_bytes(reader, &reads[i]);
    }
    for (unsigned i = 0; i <= READS && !cancelled && clone; i++)
        read_one(reader, clone, i, &reads[i]);
    for (unsigned i = 0; i <= READS; i++)
        free(reads[i].bytes);
}

/* ---- Life ------------------------------------------------------------------------------------- */

static void task_done(struct blk_task *task)
{
    unsigned *done = task->opaque;

    ++*done;
}

static int finish_task(struct reader *reader, const struct blk_task *task, const unsigned *done)
{
    while (*done == 0)
        must(loop_turn(reader->world.loop, 0));
    must(*done == 1);
    check_error(task->status, &task->error);
    return task->status;
}

static void close_dev(struct reader *reader, struct blk_dev *dev)
{
    unsigned done = 0;
    struct blk_task task = {.done = task_done, .opaque = &done};

    blk_close(dev, &task);
    must(finish_task(reader, &task, &done) == 0);
}

/* NULL: it could not be opened, and is closed. */
static struct blk_dev *clone_dev(struct reader *reader, struct blk_dev *dev)
{
    unsigned done = 0;
    struct blk_task task = {.done = task_done, .opaque = &done};
    struct blk_dev *clone = blk_clone(reader->world.loop, dev, 1, &task);

    must(clone && done == 0);
    if (finish_task(reader, &task, &done) == 0) {
        reader->reach->cloned++;
        must(clone->size == dev->size);
        return clone;
    }
    close_dev(reader, clone);
    return NULL;
}

static void look_again(struct reader *reader, struct blk_dev *dev)
{
    unsigned done = 0;
    struct blk_task task = {.done = task_done, .opaque = &done};

    blk_recheck(dev, &task);
    must(finish_task(reader, &task, &done) == 0);
    must(memcmp(&dev->opened, &dev->seen, sizeof(dev->seen)) == 0);
}

static void note_fact(struct blk_report *report, const char *key, const char *label,
                      const char *value)
{
    (void)report;
    must(key[0] != '\0' && label[0] != '\0' && value);
}

static void opened(struct image *image, int status)
{
    struct reader *reader = image->opaque;

    must(!reader->opened);
    reader->opened = true;
    reader->status = status;
}

static void open_image(struct reader *reader)
{
    static const char *const snapshots[] = {NULL, "1", "one", "2"};
    static const char *const allowed[] = {"..", "nfs://host/dir"};
    const struct fuzz_world *world = &reader->world;
    bool first = world->size >= 8 && world->bytes[7] == 1;

    must(url_parse(FUZZ_URL, &reader->url, NULL) == 0);
    reader->image = (struct image){
        .loop = world->loop,
        .args = {.url = &reader->url,
                 .choice = {.format = first != reader->control.other ? IMAGE_QCOW : IMAGE_QCOW2,
                            .snapshot = snapshots[reader->control.snapshot],
                            .allowed = allowed,
                            .allowed_count = 2},
                 .settings = &world->settings},
        .done = opened,
        .opaque = reader,
    };
    reader->world.budget = OPEN_MOST;
    image_open(&reader->image);
    must(!reader->opened);
    if (reader->control.cancel_open != NO_CANCEL) {
        turn(reader, reader->control.cancel_open);
        image_cancel(&reader->image);
    }
    while (!reader->opened)
        must(loop_turn(world->loop, 0));
    must(reader->status == 0 || !reader->image.dev);
    check_error(reader->status, &reader->image.error);
    must(reader->status != -ECANCELED || reader->control.cancel_open != NO_CANCEL);
}

static void use(struct reader *reader)
{
    struct blk_report report = {note_fact};
    struct blk_dev *dev = reader->image.dev, *clone;

    reader->reach->opened++;
    must(dev->size <= INT64_MAX);
    blk_describe(dev, &report);
    walk(reader, dev);
    clone = clone_dev(reader, dev);
    if (dev->size > 0)
        read_all(reader, dev, clone);
    if (clone)
        close_dev(reader, clone);
    if (reader->control.cancel == NO_CANCEL)
        look_again(reader, dev);
    close_dev(reader, dev);
}

void fuzz_reader(const uint8_t *data, size_t size, struct fuzz_reach *reach)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    uint8_t control[FUZZ_CONTROL] = {0};
    unsigned char *bytes;

    must(reader);
    if (size > FUZZ_CONTROL) {
        size -= FUZZ_CONTROL;
        memcpy(control, data + size, sizeof(control));
    }
    /* In a buffer of just that size. */
    bytes = malloc(size);
    must(bytes || size == 0);
    if (size > 0)
        memcpy(bytes, data, size);
    fuzz_world_init(&reader->world);
    reader->world.bytes = bytes;
    reader->world.size = size;
    reader->reach = reach;
    take_control(reader, control);
    open_image(reader);
    if (reader->status == 0)
        use(reader);
    image_release(&reader->image);
    url_release(&reader->url);
    fuzz_world_release(&reader->world);
    free(bytes);
    free(reader);
}

/* libFuzzer's, and there only with it. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) __attribute__((weak));

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15) ^ seed;

    if (size <= FUZZ_CONTROL || fuzz_chance(&state, 4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    for (uint64_t changes = 1 + fuzz_chance(&state, 3); changes > 0; changes--)
        fuzz_change(&state, data, size, FUZZ_CONTROL);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_reach reach = {0};

    fuzz_reader(data, size, &reach);
    return 0;
}
