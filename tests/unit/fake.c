/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The world and its disks. */
#include "fake_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* ---- The world -------------------------------------------------------------------------------- */

void fake_broken(struct fake *fake, const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, condition);
    if (fake->explain)
        fake->explain(fake->opaque);
    /* cmocka's way out is a longjmp(), which must not leave another thread. */
    if (fake->automatic)
        abort();
    _fail(file, line);
}

void fake_init(struct fake *fake)
{
    memset(fake, 0, sizeof(*fake));
    fake->loop = loop_new_manual();
    must(fake, fake->loop);
}

void fake_release(struct fake *fake)
{
    must(fake, fake->pending_count == 0);
    loop_free(fake->loop);
}

void fake_settle(struct fake *fake)
{
    for (unsigned turns = 0; loop_turn(fake->loop, 0); turns++)
        must(fake, turns < 10000);
}

/* ---- Sessions --------------------------------------------------------------------------------- */

static int lost(struct blk_error *error)
{
    return blk_error_set_retry(error, ECONNRESET, BLK_LOST, "the fake has hung up");
}

void fake_hang_up(struct fake *fake, const struct fake_dev *dev, const struct fake_disk *disk,
                  const struct fake_store *store, bool applies)
{
    for (unsigned i = 0; i < fake->pending_count; i++) {
        struct fake_op *op = &fake->pending[i];

        if (op->kind == FAKE_CLOSE || op->kind == FAKE_STORE_CLOSE || op->lost ||
            !((dev && op->dev == dev) || (store && op->store == store) ||
              (disk && op->dev && fake_dev_is_on(op->dev, disk))))
            continue;
        op->lost = true;
        op->lost_applies = applies;
    }
}

void fake_end_session(struct fake *fake, const struct fake_op *op, bool applies)
{
    if (op->dev) {
        fake_dev_end_session(op->dev, applies);
    } else {
        op->store->session = 0;
        fake_hang_up(fake, NULL, NULL, op->store, applies);
    }
}

void fake_disk_lose(struct fake_disk *disk, bool applies)
{
    disk->session++;
    fake_hang_up(disk->fake, NULL, disk, NULL, applies);
}

static bool is_away(const struct fake_op *op)
{
    switch (op->kind) {
    case FAKE_RESIZE:
    case FAKE_FINISH:
    case FAKE_RESERVE:
    case FAKE_REQ:
        return fake_dev_is_away(op->dev);
    case FAKE_STORE:
        return op->store->session != op->store->fs->session;
    default:
        return false;
    }
}

static int fault(struct fake *fake, const struct fake_op *op, struct blk_error *error,
                 bool *applies)
{
    fake->faulted_store_op = op->kind == FAKE_STORE ? (int)op->store_req->op : -1;
    atomic_store(&fake->fault_hit, true);
    if (fake->fault.code == 0)
        return 0;
    *applies = fake->fault.applies;
    if (fake->fault.retry == BLK_LOST)
        fake_end_session(fake, op, fake->fault.applies);
    return blk_error_set_retry(error, fake->fault.code, fake->fault.retry, "the fake says no");
}

int fake_outcome(struct fake *fake, const struct fake_op *op, struct blk_error *error,
                 bool *applies)
{
    bool is_read = op->kind == FAKE_REQ && op->req->op == BLK_READ;

    *applies = true;
    if (op->cancelled) {
        *applies = fake->cancel_applies;
        return -ECANCELED;
    }
    if (op->number == fake->fault.number && (fake->fault.code != 0 || is_read))
        return fault(fake, op, error, applies);
    if (op->lost || is_away(op)) {
        *applies = op->lost && op->lost_applies;
        return lost(error);
    }
    return 0;
}

/* Lanes take from it at once. */
static bool take_one(atomic_uint *count)
{
    unsigned left = atomic_load(count);

    while (left > 0 && !atomic_compare_exchange_weak(count, &left, left - 1))
        ;
    return left > 0;
}

int fake_look_again(struct fake *fake, const struct fake_op *op, bool away, atomic_uint *count,
                    bool other, struct blk_error *error)
{
    bool applies;
    int status = fake_outcome(fake, op, error, &applies);

    if (status < 0)
        return status;
    if (away && take_one(count))
        return blk_error_set_retry(error, ECONNREFUSED, BLK_LOST, "the fake is not at home");
    return other ? blk_error_set(error, ESTALE, "it is another one") : 0;
}

/* ---- Operations ------------------------------------------------------------------------------- */

void fake_cancel(struct fake *fake, const struct fake_dev *dev, const struct fake_store *store)
{
    for (unsigned i = 0; i < fake->pending_count; i++) {
        struct fake_op *op = &fake->pending[i];

        if (op->kind != FAKE_CLOSE && op->kind != FAKE_STORE_CLOSE &&
            ((dev && op->dev == dev) || (store && op->store == store)))
            op->cancelled = true;
    }
}

static void complete(struct fake *fake, const struct fake_op *op)
{
    if (fake->before)
        fake->before(fake, op);
    if (op->dev)
        fake_complete_device(fake, op);
    else
        fake_complete_store(fake, op);
}

void fake_add(struct fake *fake, struct fake_op *op)
{
    op->number = atomic_fetch_add_explicit(&fake->submitted, 1, memory_order_relaxed) + 1;
    if (fake->automatic) {
        complete(fake, op);
        return;
    }
    must(fake, fake->pending_count < FAKE_MAX_PENDING);
    fake->pending[fake->pending_count++] = *op;
}

void fake_complete(struct fake *fake, unsigned index)
{
    struct fake_op op = fake->pending[index];

    must(fake, index < fake->pending_count);
    fake->pending_count--;
    memmove(&fake->pending[index], &fake->pending[index + 1],
            (fake->pending_count - index) * sizeof(op));
    complete(fake, &op);
}

void fake_fail(struct fake *fake, unsigned index, int code, enum blk_retry retry, bool applies)
{
    fake->fault = (struct fake_fault){
        .number = fake->pending[index].number, .code = code, .retry = retry, .applies = applies};
    fake_complete(fake, index);
    fake_settle(fake);
}

static uint64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    return value < min ? min : min_u64(value, max);
}

/* Finely at first, where delays are short. */
void fake_pass_time(struct fake *fake, bool (*enough)(void *opaque), void *opaque)
{
    uint64_t passed = 0, step;

    fake_settle(fake);
    while (fake->pending_count == 0 && !(enough && enough(opaque))) {
        must(fake, passed < 3600 * LOOP_SECOND);
        step = clamp(passed / 8, 10 * LOOP_MSECOND, LOOP_SECOND);
        loop_advance(fake->loop, step);
        passed += step;
        fake_settle(fake);
    }
}

void fake_finish(struct fake *fake)
{
    fake_settle(fake);
    while (fake->pending_count > 0) {
        fake_complete(fake, 0);
        fake_settle(fake);
    }
}

/* ---- Disks ------------------------------------------------------------------------------------ */

static uint64_t compact_size(const struct fake_disk *disk)
{
    return fake_disk_index(disk, disk->size);
}

static void allocate(struct fake_disk *disk)
{
    disk->written = calloc(1, compact_size(disk) + 1);
    disk->durable = calloc(1, compact_size(disk) + 1);
    must(disk->fake, disk->written && disk->durable);
}

void fake_disk_init(struct fake_disk *disk, struct fake *fake, uint64_t size, uint64_t stride)
{
    memset(disk, 0, offsetof(struct fake_disk, log));
    disk->log[0] = '\0'; /* all of it would take longer than many a job */
    disk->fake = fake;
    disk->size = size;
    disk->stride = stride ? stride : UINT64_C(1) << 62;
    disk->width = stride ? FAKE_WIDTH : disk->stride;
    disk->epoch = FAKE_FIRST_EPOCH;
    disk->session = 1;
    disk->limits = (struct blk_limits){
        .align = 1,
        .mem_align = 1,
        .max_read = GIB,
        .max_write = GIB,
        .max_zero = GIB,
        .max_discard = GIB,
        .max_depth = 64,
    };
    disk->ascending_from = UINT64_MAX;
    pthread_mutex_init(&disk->lock, NULL);
    allocate(disk);
}

void fake_disk_release(struct fake_disk *disk)
{
    free(disk->written);
    free(disk->durable);
    free(disk->extents);
    free(disk->commands);
    disk->written = disk->durable = NULL;
    disk->extents = NULL;
    disk->commands = NULL;
    pthread_mutex_destroy(&disk->lock);
}

uint64_t fake_disk_index(const struct fake_disk *disk, uint64_t offset)
{
    return offset / disk->stride * disk->width + min_u64(offset % disk->stride, disk->width);
}

void fake_disk_fill(struct fake_disk *disk, uint32_t seed)
{
    for (uint64_t i = 0; i < compact_size(disk); i++)
        disk->written[i] = (unsigned char)((((uint32_t)i + seed) * 2654435761u >> 23) | 1);
    memcpy(disk->durable, disk->written, compact_size(disk));
    fake_space_correct(disk);
}

void fake_disk_copy(struct fake_disk *disk, const struct fake_disk *from)
{
    memcpy(disk->written, from->durable, compact_size(disk));
    memcpy(disk->durable, from->durable, compact_size(disk));
    fake_space_correct(disk);
}

void fake_disk_restart(struct fake_disk *disk)
{
    memcpy(disk->written, disk->durable, compact_size(disk));
    fake_space_correct(disk);
    disk->epoch++;
}

void fake_disk_resize(struct fake_disk *disk, uint64_t size)
{
    unsigned char *written = disk->written, *durable = disk->durable;
    uint64_t kept = min_u64(size, disk->size);

    fake_space_resize(disk, size);
    disk->size = size;
    allocate(disk);
    memcpy(disk->written, written, fake_disk_index(disk, kept));
    memcpy(disk->durable, durable, fake_disk_index(disk, kept));
    free(written);
    free(durable);
}

bool fake_disk_holds(const struct fake_disk *disk, const struct fake_disk *source, uint64_t from,
                     uint64_t to)
{
    uint64_t first = fake_disk_index(source, from), end = fake_disk_index(source, to);

    return disk->size >= to &&
           memcmp(disk->durable + first, source->durable + first, end - first) == 0;
}

bool fake_disk_resembles(const struct fake_disk *disk, const struct fake_disk *source,
                         uint64_t from, uint64_t to)
{
    uint64_t end = fake_disk_index(source, to);

    /* Eight bytes agree by chance less than once in 2^50. */
    for (uint64_t i = fake_disk_index(source, from); i + 8 <= end; i += 8) {
        if (memcmp(disk->written + i, source->durable + i, 8) == 0 ||
            memcmp(disk->durable + i, source->durable + i, 8) == 0)
            return true;
    }
    return false;
}
