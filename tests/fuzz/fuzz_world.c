/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz_world.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

#include <lunferry/units.h>

enum file { FILE_IMAGE, FILE_AGAIN, FILE_OTHER };

struct fuzz_dev {
    struct blk_dev dev;
    struct fuzz_world *world;
    enum file file;
};

/* A request's own state; pending ones are in the order in which they came. */
struct fuzz_request {
    struct blk_req *req;
    struct fuzz_dev *dev;
    struct fuzz_request *older, *newer;
    unsigned number;
};

/* ---- Memory ----------------------------------------------------------------------------------- */

/* There only with a sanitizer that has malloc() in its hands. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static uint64_t allocated(void)
{
    struct mallinfo2 info;

    if (__sanitizer_get_current_allocated_bytes)
        return __sanitizer_get_current_allocated_bytes();
    info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

void fuzz_world_check_memory(const struct fuzz_world *world)
{
    must(allocated() <= world->allocated + FUZZ_MEMORY);
}

/* ---- What the files hold ---------------------------------------------------------------------- */

/* One KiB after the other, of a byte of its own, or of zeros. */
static void read_other(unsigned char *to, uint64_t offset, uint64_t len)
{
    uint64_t part;

    for (; len > 0; to += part, offset += part, len -= part) {
        part = min_u64(len, 1024 - offset % 1024);
        memset(to, offset / 1024 % 2 ? 0 : (int)(1 + offset / 1024), part);
    }
}

static void read_image(const struct fuzz_dev *dev, unsigned char *to, uint64_t offset, uint64_t len)
{
    memcpy(to, dev->world->bytes + offset, len);
    for (uint64_t at = 8; dev->file == FILE_AGAIN && at < 20; at++) {
        if (at >= offset && at - offset < len)
            to[at - offset] = 0;
    }
}

static void read_bytes(const struct fuzz_dev *dev, const struct blk_req *req)
{
    uint64_t at = req->offset;

    for (int i = 0; i < req->iovcnt; i++) {
        const struct iovec *iov = &req->iov[i];

        must(at <= dev->dev.size && iov->iov_len <= dev->dev.size - at);
        if (dev->file == FILE_OTHER)
            read_other(iov->iov_base, at, iov->iov_len);
        else
            read_image(dev, iov->iov_base, at, iov->iov_len);
        at += iov->iov_len;
    }
    must(at == req->offset + req->len);
}

static void tell_extents(const struct fuzz_dev *dev, const struct blk_req *req)
{
    struct blk_extents *extents = req->extents;
    uint64_t at = req->offset, end = at + req->len, to;

    must(extents->capacity > 0);
    extents->count = 0;
    for (; at < end && extents->count < extents->capacity; at = to) {
        to = dev->file == FILE_OTHER ? min_u64(end, round_down(at, 1024) + 1024) : end;
        extents->list[extents->count++] = (struct blk_extent){
            .offset = at,
            .len = to - at,
            .kind = dev->file == FILE_OTHER && at / 1024 % 2 ? BLK_ZEROS : BLK_DATA,
            .host_offset = BLK_NO_OFFSET,
        };
    }
}

/* ---- Requests --------------------------------------------------------------------------------- */

static void complete(const struct fuzz_request *request)
{
    const struct fuzz_dev *dev = request->dev;
    struct blk_req *req = request->req;

    if (request->number == dev->world->fail_at && (!dev->world->cut || req->op != BLK_READ)) {
        blk_complete(req, blk_error_set(&req->error, EIO, "the world is broken"));
        return;
    }
    if (req->op == BLK_READ)
        read_bytes(dev, req);
    else
        tell_extents(dev, req);
    if (request->number == dev->world->fail_at)
        req->got = req->len / 2;
    blk_complete(req, 0);
}

static void take_out(struct fuzz_request *request)
{
    struct fuzz_world *world = request->dev->world;

    *(request->older ? &request->older->newer : &world->first) = request->newer;
    *(request->newer ? &request->newer->older : &world->last) = request->older;
}

static void complete_one(struct loop_call *call)
{
    struct fuzz_world *world = container_of(call, struct fuzz_world, call);
    struct fuzz_request *request = world->order == FUZZ_OLDEST_FIRST ? world->first : world->last;

    if (!request)
        return;
    take_out(request);
    if (world->first)
        loop_defer(world->loop, &world->call);
    complete(request);
}

static void submit(struct blk_dev *blk_dev, struct blk_req *req)
{
    struct fuzz_dev *dev = (struct fuzz_dev *)blk_dev;
    struct fuzz_world *world = dev->world;
    struct fuzz_request *request = blk_req_state(req);

    must(req->op == BLK_READ || req->op == BLK_EXTENTS);
    must(req->len > 0 && req->offset < blk_dev->size && req->len <= blk_dev->size - req->offset);
    must(world->budget > 0);
    world->budget--;
    fuzz_world_check_memory(world);
    *request = (struct fuzz_request){
        .req = req, .dev = dev, .older = world->last, .number = ++world->requests};
    if (world->order == FUZZ_AT_ONCE) {
        complete(request);
        return;
    }
    *(world->last ? &world->last->newer : &world->first) = request;
    world->last = request;
    loop_defer(world->loop, &world->call);
}

static void cancel_all(struct blk_dev *blk_dev)
{
    struct fuzz_world *world = ((struct fuzz_dev *)blk_dev)->world;
    struct fuzz_request *request = world ? world->first : NULL;

    while (request) {
        struct fuzz_request *newer = request->newer;

        if (&request->dev->dev == blk_dev) {
            take_out(request);
            blk_complete(request->req, -ECANCELED);
        }
        request = newer;
    }
}

/* ---- Devices ---------------------------------------------------------------------------------- */

static void begin(struct fuzz_dev *dev, struct fuzz_world *world, enum file file)
{
    dev->world = world;
    dev->world->open++;
    dev->file = file;
    dev->dev.size = file == FILE_OTHER ? FUZZ_OTHER_SIZE : world->size;
    dev->dev.caps = BLK_CAN_EXTENTS;
    dev->dev.limits = (struct blk_limits){.align = world->align,
                                          .mem_align = 1,
                                          .max_read = 16 * MIB,
                                          .max_write = 16 * MIB,
                                          .max_depth = 128};
    blk_opened(&dev->dev, 0, NULL);
}

static void open_file(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct fuzz_world *world = (struct fuzz_world *)(void *)((uintptr_t)args->settings -
                                                             offsetof(struct fuzz_world, settings));
    const char *name = strrchr(args->url->path, '/') + 1;
    enum file file = FILE_OTHER;
    struct blk_error error;

    if (strcmp(name, "gone") == 0) {
        blk_opened(dev, blk_error_set(&error, ENOENT, "there is no such file"), &error);
        return;
    }
    if (strcmp(args->url->path, "/dir/image") == 0)
        file = FILE_IMAGE;
    else if (strcmp(name, "again.qcow2") == 0)
        file = FILE_AGAIN;
    if (file == FILE_IMAGE)
        dev->identity = strdup("image");
    begin((struct fuzz_dev *)dev, world, file);
}

static void clone_file(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct fuzz_dev *from = (const struct fuzz_dev *)origin;

    (void)number;
    begin((struct fuzz_dev *)dev, from->world, from->file);
}

static void look(struct blk_dev *dev)
{
    blk_recovered(dev, 0, NULL);
}

static void close_file(struct blk_dev *dev)
{
    struct fuzz_world *world = ((struct fuzz_dev *)dev)->world;

    if (world)
        world->open--;
    blk_closed(dev);
}

static const struct blk_driver driver = {
    .name = "a world of bytes",
    .scheme = "nfs",
    .syntax = FUZZ_URL,
    .dev_size = sizeof(struct fuzz_dev),
    .req_size = sizeof(struct fuzz_request),
    .open = open_file,
    .clone = clone_file,
    .recover = look,
    .close = close_file,
    .submit = submit,
    .cancel_all = cancel_all,
};

/* ---- In place of src/block/registry.c --------------------------------------------------------- */

static const struct blk_driver *const drivers[] = {&driver};

const struct blk_driver *const *blk_drivers(size_t *count)
{
    *count = 1;
    return drivers;
}

const struct blk_driver *blk_driver_find(const char *scheme)
{
    return strcmp(scheme, driver.scheme) == 0 ? &driver : NULL;
}

/* ---- Life ------------------------------------------------------------------------------------- */

void fuzz_world_init(struct fuzz_world *world)
{
    memset(world, 0, sizeof(*world));
    world->allocated = allocated();
    world->loop = loop_new_manual();
    must(world->loop);
    world->settings.timeout = 60 * LOOP_SECOND;
    world->align = 1;
    world->call.run = complete_one;
}

void fuzz_world_release(struct fuzz_world *world)
{
    must(world->open == 0 && !world->first);
    loop_defer_cancel(world->loop, &world->call);
    loop_free(world->loop);
}
