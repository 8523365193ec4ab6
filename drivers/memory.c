/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Devices without a device, for benchmarks and tests; and the template for a driver.
 *
 *   null:SIZE             reads as zeros, forgets what is written
 *   ram:SIZE              remembers it until the program ends
 *   random:SIZE[?seed=N]  reads as incompressible bytes, the same ones for the same seed
 *
 * Nothing here has to wait, so submit() completes at once; the middle sees to it that the caller
 * hears of it from the loop all the same.
 */
#include <lunferry/driver.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lunferry/units.h>

/* What clones share. Lanes touch disjoint ranges of `bytes`, so there is nothing to lock; two of them may
 * share a page, and more of them a word of bits. */
struct core {
    atomic_uint users;
    unsigned char *bytes; /* ram only: zeros wherever nothing was written */
    _Atomic uint64_t
        *written;  /* a bit for each page: something was, and has not been unmapped since */
    uint64_t page; /* bytes */
    uint64_t size;
    uint64_t seed; /* random only */
};

struct memory_dev {
    struct blk_dev dev;
    struct core *core;
};

static int parse_size(const struct url *url, uint64_t *size, struct blk_error *error)
{
    int rc = units_parse_size(url->path, size, error);

    if (rc < 0) {
        blk_error_prefix(error, "%s", url->text);
        return rc;
    }
    if (*size == 0 || *size > INT64_MAX)
        return blk_error_set(error, EINVAL, "%s: the size must be from 1 byte to 8 EiB", url->text);
    return 0;
}

static int check(const struct url *url, struct blk_error *error)
{
    uint64_t size, seed;
    int rc = parse_size(url, &size, error);

    return rc < 0 ? rc : url_param_number(url, "seed", 0, UINT64_MAX, 0, &seed, error);
}

static void drop(struct core *core)
{
    if (atomic_fetch_sub(&core->users, 1) > 1)
        return;
    if (core->bytes)
        munmap(core->bytes, core->size);
    free(core->written);
    free(core);
}

static void opened(struct blk_dev *dev, struct core *core)
{
    ((struct memory_dev *)dev)->core = core;
    dev->size = core->size;
    dev->caps = BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS;
    dev->limits = (struct blk_limits){
        .align = 1,
        .mem_align = 1,
        .max_read = 16 * MIB,
        .max_write = 16 * MIB,
        .max_zero = GIB,
        .max_discard = GIB,
        .unmap_granule = core->page,
        .max_depth = 1024,
    };
    blk_opened(dev, 0, NULL);
}

static int allocate(struct core *core, struct blk_error *error)
{
    void *bytes = mmap(NULL, core->size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    core->page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes != MAP_FAILED)
        core->bytes = bytes;
    if (core->bytes)
        core->written = calloc(core->size / core->page / 64 + 1, sizeof(*core->written));
    if (!core->written)
        return blk_error_set(error, ENOMEM, "%" PRIu64 " bytes of memory are not to be had",
                             core->size);
    return 0;
}

static void open_memory(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct core *core = calloc(1, sizeof(*core));
    struct blk_error error;
    int rc;

    if (!core) {
        blk_opened(dev, blk_error_set(&error, ENOMEM, "out of memory"), &error);
        return;
    }
    atomic_init(&core->users, 1);
    rc = parse_size(args->url, &core->size, &error);
    if (rc == 0)
        rc = url_param_number(args->url, "seed", 0, UINT64_MAX, 0, &core->seed, &error);
    if (rc == 0 && strcmp(dev->driver->scheme, "ram") == 0)
        rc = allocate(core, &error);
    if (rc < 0) {
        drop(core);
        blk_opened(dev, rc, &error);
        return;
    }
    opened(dev, core);
}

static void open_random(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct blk_error error;

    if (args->writable)
        blk_opened(dev, blk_error_set(&error, EROFS, "can be read only"), &error);
    else
        open_memory(dev, args);
}

static void clone_memory(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    struct core *core = ((const struct memory_dev *)origin)->core;

    (void)number;
    atomic_fetch_add(&core->users, 1);
    opened(dev, core);
}

static void close_memory(struct blk_dev *dev)
{
    struct memory_dev *memory = (struct memory_dev *)dev;

    if (memory->core)
        drop(memory->core);
    blk_closed(dev);
}

/* SplitMix64's output function: any word of the stream without the ones before it. */
static uint64_t random_word(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void fill_random(uint64_t seed, uint64_t offset, unsigned char *buf, size_t len)
{
    while (len > 0) {
        uint64_t word = random_word(seed, offset / 8);
        size_t skip = offset % 8, part = min_u64(8 - skip, len);

        memcpy(buf, (unsigned char *)&word + skip, part);
        offset += part;
        buf += part;
        len -= part;
    }
}

static void done(struct blk_req *req)
{
    req->epoch = 1;
    req->durable = true;
    blk_complete(req, 0);
}

/* One extent, all of a kind. */
static void answer(const struct blk_req *req, enum blk_kind kind)
{
    req->extents->list[0] = (struct blk_extent){
        .offset = req->offset, .len = req->len, .kind = kind, .host_offset = BLK_NO_OFFSET};
    req->extents->count = 1;
}

static void submit_null(struct blk_dev *dev, struct blk_req *req)
{
    (void)dev;
    for (int i = 0; i < req->iovcnt && req->op == BLK_READ; i++)
        memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
    if (req->op == BLK_EXTENTS)
        answer(req, BLK_ZEROS);
    done(req);
}

/* ---- ram: ------------------------------------------------------------------------------------- */

static bool is_written(const struct core *core, uint64_t page)
{
    return atomic_load_explicit(&core->written[page / 64], memory_order_relaxed) >> page % 64 & 1;
}

static void mark_written(struct core *core, uint64_t offset, uint64_t len)
{
    for (uint64_t page = offset / core->page; page <= (offset + len - 1) / core->page; page++) {
        if (!is_written(core, page))
            atomic_fetch_or_explicit(&core->written[page / 64], UINT64_C(1) << page % 64,
                                     memory_order_relaxed);
    }
}

/* Where nothing was written there are zeros already. */
static void zero(struct core *core, uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len, to;

    for (; offset < end; offset = to) {
        to = min_u64(end, round_down(offset, core->page) + core->page);
        if (is_written(core, offset / core->page))
            memset(core->bytes + offset, 0, to - offset);
    }
}

/* Gives whole pages back. */
static void unmap(struct core *core, uint64_t offset, uint64_t len)
{
    assert(offset % core->page == 0 && len % core->page == 0);
    if (madvise(core->bytes + offset, len, MADV_DONTNEED) < 0)
        zero(core, offset, len); /* they are locked */
    for (uint64_t page = offset / core->page; page < (offset + len) / core->page; page++) {
        if (is_written(core, page))
            atomic_fetch_and_explicit(&core->written[page / 64], ~(UINT64_C(1) << page % 64),
                                      memory_order_relaxed);
    }
}

/* The first page from `page` on, before `end`, that is of the other kind. */
static uint64_t run_end(const struct core *core, uint64_t page, uint64_t end)
{
    bool kind = is_written(core, page);
    uint64_t all = kind ? UINT64_MAX : 0;

    while (page < end) {
        if (atomic_load_explicit(&core->written[page / 64], memory_order_relaxed) == all)
            page = round_down(page, 64) + 64;
        else if (is_written(core, page) == kind)
            page++;
        else
            return page;
    }
    return end;
}

static void tell_written(const struct core *core, const struct blk_req *req)
{
    struct blk_extents *extents = req->extents;
    uint64_t at = req->offset, end = at + req->len, pages = (end - 1) / core->page + 1, to;

    extents->count = 0;
    for (; at < end && extents->count < extents->capacity; at = to) {
        to = min_u64(end, run_end(core, at / core->page, pages) * core->page);
        extents->list[extents->count++] = (struct blk_extent){
            .offset = at,
            .len = to - at,
            .kind = is_written(core, at / core->page) ? BLK_DATA : BLK_ZEROS,
            .host_offset = BLK_NO_OFFSET,
        };
    }
}

static void submit_ram(struct blk_dev *dev, struct blk_req *req)
{
    struct core *core = ((struct memory_dev *)dev)->core;

    switch (req->op) {
    case BLK_READ:
        blk_iov_from(req, 0, core->bytes + req->offset, req->len);
        break;
    case BLK_WRITE:
        mark_written(core, req->offset, req->len);
        blk_iov_to(req, 0, core->bytes + req->offset, req->len);
        break;
    case BLK_ZERO:
        if (req->flags & BLK_MAY_UNMAP)
            unmap(core, req->offset, req->len);
        else
            zero(core, req->offset, req->len);
        break;
    case BLK_DISCARD:
        unmap(core, req->offset, req->len);
        break;
    case BLK_EXTENTS:
        tell_written(core, req);
        break;
    case BLK_FLUSH:
        break;
    }
    done(req);
}

static void submit_random(struct blk_dev *dev, struct blk_req *req)
{
    uint64_t seed = ((struct memory_dev *)dev)->core->seed, offset = req->offset;

    for (int i = 0; i < req->iovcnt && req->op == BLK_READ; i++) {
        fill_random(seed, offset, req->iov[i].iov_base, req->iov[i].iov_len);
        offset += req->iov[i].iov_len;
    }
    if (req->op == BLK_EXTENTS)
        answer(req, BLK_DATA);
    done(req);
}

/* Nothing is ever in flight. */
static void cancel_all(struct blk_dev *dev)
{
    (void)dev;
}

static const struct url_option random_options[] = {
    {"seed", "N: which of the 2^64 streams of bytes (0)"},
    {NULL, NULL},
};

extern const struct blk_driver null_driver, ram_driver, random_driver;

const struct blk_driver null_driver = {
    .name = "null",
    .scheme = "null",
    .syntax = "null:SIZE",
    .dev_size = sizeof(struct memory_dev),
    .check = check,
    .open = open_memory,
    .clone = clone_memory,
    .close = close_memory,
    .submit = submit_null,
    .cancel_all = cancel_all,
};

const struct blk_driver ram_driver = {
    .name = "memory",
    .scheme = "ram",
    .syntax = "ram:SIZE",
    .dev_size = sizeof(struct memory_dev),
    .check = check,
    .open = open_memory,
    .clone = clone_memory,
    .close = close_memory,
    .submit = submit_ram,
    .cancel_all = cancel_all,
};

const struct blk_driver random_driver = {
    .name = "random data",
    .scheme = "random",
    .syntax = "random:SIZE[?seed=N]",
    .options = random_options,
    .dev_size = sizeof(struct memory_dev),
    .check = check,
    .open = open_random,
    .clone = clone_memory,
    .close = close_memory,
    .submit = submit_random,
    .cancel_all = cancel_all,
};
