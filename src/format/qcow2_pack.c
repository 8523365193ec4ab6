/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters of an image that is being written. Many go into one pack, wherever on the disk they are, and
 * a pack gets its place in the file when it leaves: behind the one before, of whatever clone that was. It begins
 * and ends with a block of the file, so that no two writes ever share one. What does not become smaller is
 * written as plain clusters.
 */
#include "qcow2_write.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define SECTOR        512u
#define PACK_BYTES    (1u << 20)
#define PACK_LEAST    (PACK_BYTES / 2) /* of what a file likes to be written at once */
#define PACK_MOST     (PACK_BYTES * 2)
#define PACK_CLUSTERS 2048u

struct packed {
    uint64_t cluster; /* of the disk */
    uint32_t at, len; /* in the pack */
    struct qcow2_write_request *request;
};

struct qcow2_pack {
    struct qcow2_pack *next; /* free ones */
    struct qcow2_writer *writer;
    unsigned char *bytes; /* pack_capacity */
    size_t used;
    struct packed *packed; /* PACK_CLUSTERS */
    unsigned count;
    bool fua;
    struct iovec iov;
    struct blk_req req;
};

/* ---- Life ------------------------------------------------------------------------------------- */

int qcow2_pack_init(struct qcow2_writer *writer, struct blk_error *error)
{
    const struct image_layout *layout = &writer->core->layout;
    const struct blk_limits *limits = &writer->file->limits;
    uint64_t capacity = PACK_BYTES;

    if (limits->max_write >= PACK_LEAST && limits->max_write <= PACK_MOST)
        capacity = limits->max_write;
    writer->pack_block = limits->align > SECTOR ? limits->align : SECTOR;
    writer->pack_capacity = round_down(capacity, writer->pack_block);
    if (writer->pack_capacity < 2 * layout->cluster_size)
        writer->pack_capacity = 2 * layout->cluster_size;
    writer->scratch = malloc(layout->cluster_size);
    if (!writer->scratch)
        return blk_error_set(error, ENOMEM, "out of memory");
    writer->deflate =
        qcow2_deflate_new(layout->compression, layout->level, layout->cluster_size, error);
    return writer->deflate ? 0 : -error->code;
}

static void free_pack(struct qcow2_pack *pack)
{
    free(pack->bytes);
    free(pack->packed);
    free(pack);
}

void qcow2_pack_release(struct qcow2_writer *writer)
{
    assert(!writer->filling);
    while (writer->free_packs) {
        struct qcow2_pack *pack = writer->free_packs;

        writer->free_packs = pack->next;
        free_pack(pack);
    }
    qcow2_deflate_free(writer->deflate);
    free(writer->scratch);
}

/* NULL: out of memory. */
static struct qcow2_pack *make_pack(struct qcow2_writer *writer)
{
    struct qcow2_pack *pack = calloc(1, sizeof(*pack));

    if (!pack)
        return NULL;
    pack->writer = writer;
    pack->bytes = aligned_alloc(4096, round_up(writer->pack_capacity, 4096));
    pack->packed = malloc(PACK_CLUSTERS * sizeof(*pack->packed));
    if (pack->bytes && pack->packed)
        return pack;
    free_pack(pack);
    return NULL;
}

/* NULL: all of them are on their way. */
static struct qcow2_pack *new_pack(struct qcow2_writer *writer)
{
    struct qcow2_pack *pack = writer->free_packs;

    if (pack) {
        writer->free_packs = pack->next;
    } else {
        pack = writer->packs < QCOW2_PACKS ? make_pack(writer) : NULL;
        writer->packs += pack != NULL;
    }
    if (!pack)
        return NULL;
    pack->used = 0;
    pack->count = 0;
    pack->fua = false;
    return pack;
}

/* ---- It leaves -------------------------------------------------------------------------------- */

/* Each request that has a part in it hears of it once: what is of one request lies together. */
static void end_pack(struct qcow2_pack *pack, const struct blk_req *outcome)
{
    struct qcow2_writer *writer = pack->writer;

    for (unsigned i = 0; i < pack->count; i++) {
        if (i == 0 || pack->packed[i].request != pack->packed[i - 1].request)
            qcow2_write_gathered(pack->packed[i].request, outcome);
    }
    pack->next = writer->free_packs;
    writer->free_packs = pack;
}

static void pack_written(struct blk_req *req)
{
    struct qcow2_pack *pack = req->opaque;

    end_pack(pack, req);
    qcow2_write_resume(pack->writer);
}

/* With the lock held. */
static int find_place(const struct qcow2_pack *pack, uint64_t len, uint64_t *host,
                      struct blk_error *error)
{
    struct qcow2_write_core *core = pack->writer->core;
    int status = qcow2_space_pack(&core->space, len, host, error);

    for (unsigned i = 0; i < pack->count && status == 0; i++) {
        const struct packed *packed = &pack->packed[i];
        uint64_t at = *host + packed->at;

        qcow2_space_touch(&core->space, at, packed->len);
        status = qcow2_fills_note(&core->fills, &core->space, packed->cluster,
                                  qcow2_word_compressed(&core->shape, at, packed->len), error);
    }
    return status;
}

static void leave(struct qcow2_pack *pack)
{
    struct qcow2_writer *writer = pack->writer;
    struct qcow2_write_core *core = writer->core;
    uint64_t len = round_up(pack->used, writer->pack_block), host;
    int status;

    writer->filling = NULL;
    memset(pack->bytes + pack->used, 0, len - pack->used);
    pthread_mutex_lock(&core->lock);
    status = find_place(pack, len, &host, &pack->req.error);
    pthread_mutex_unlock(&core->lock);
    if (status < 0) {
        pack->req.status = status;
        end_pack(pack, &pack->req);
        return;
    }
    pack->iov = (struct iovec){pack->bytes, len};
    pack->req = (struct blk_req){
        .op = BLK_WRITE,
        .flags = pack->fua ? BLK_FUA : 0,
        .offset = host,
        .len = len,
        .iov = &pack->iov,
        .iovcnt = 1,
        .done = pack_written,
        .opaque = pack,
    };
    blk_submit(writer->file, &pack->req);
}

void qcow2_pack_push(struct qcow2_writer *writer)
{
    if (writer->filling)
        leave(writer->filling);
}

void qcow2_pack_cancel(struct qcow2_writer *writer)
{
    struct qcow2_pack *pack = writer->filling;

    if (!pack)
        return;
    writer->filling = NULL;
    pack->req.status = blk_error_set(&pack->req.error, ECANCELED, "cancelled");
    end_pack(pack, &pack->req);
}

/* ---- It is filled ----------------------------------------------------------------------------- */

/* One cluster of the request in one piece, with zeros behind the end of the disk. */
static const void *cluster_at(const struct qcow2_write_request *request, uint64_t at)
{
    const struct qcow2_writer *writer = request->writer;
    const struct blk_req *req = request->req;
    uint64_t cluster = qcow2_write_cluster(writer), len = min_u64(cluster, writer->dev.size - at);
    void *flat;

    if (req->op == BLK_ZERO) {
        memset(writer->scratch, 0, cluster);
        return writer->scratch;
    }
    flat = buffers_flat(req, at - req->offset, len);
    if (flat && len == cluster)
        return flat;
    blk_iov_to(req, at - req->offset, writer->scratch, len);
    memset(writer->scratch + len, 0, cluster - len);
    return writer->scratch;
}

static void add(struct qcow2_pack *pack, struct qcow2_write_request *request, size_t len)
{
    const struct qcow2_shape *shape = &pack->writer->core->shape;
    size_t taken = len < shape->spacing ? shape->spacing : len;

    if (pack->count == 0 || pack->packed[pack->count - 1].request != request)
        request->awaited++;
    pack->packed[pack->count++] = (struct packed){request->at >> shape->cluster_bits,
                                                  (uint32_t)pack->used, (uint32_t)len, request};
    memset(pack->bytes + pack->used + len, 0, taken - len);
    pack->used += taken;
    pack->fua |= (request->req->flags & BLK_FUA) != 0;
}

/* One with room for a cluster that hardly becomes smaller. NULL: not now. */
static struct qcow2_pack *pack_with_room(struct qcow2_writer *writer)
{
    struct qcow2_pack *pack = writer->filling;

    if (pack && (pack->used + qcow2_write_cluster(writer) > writer->pack_capacity ||
                 pack->count == PACK_CLUSTERS))
        leave(pack);
    if (!writer->filling)
        writer->filling = new_pack(writer);
    return writer->filling;
}

/* Plain clusters are counted until one of the others comes, so that they are written together. */
bool qcow2_pack_deal(struct qcow2_write_request *request)
{
    struct qcow2_writer *writer = request->writer;
    uint64_t cluster = qcow2_write_cluster(writer), plain_from = request->at;
    uint64_t end = request->req->offset + request->req->len;
    uint64_t most = min_u64(end, request->at + QCOW2_LONGEST);
    struct qcow2_pack *pack = NULL;

    while (request->at < most && request->status == 0) {
        size_t len;

        pack = pack_with_room(writer);
        if (!pack)
            break;
        len = qcow2_deflate(writer->deflate, cluster_at(request, request->at), cluster,
                            pack->bytes + pack->used, cluster - 1);
        if (len > 0) {
            qcow2_write_plain(request, plain_from, request->at);
            add(pack, request, len);
            plain_from = request->at + cluster;
        }
        request->at += cluster;
    }
    qcow2_write_plain(request, plain_from, min_u64(request->at, end));
    if (!pack && writer->packs == 0) {
        struct blk_error error;

        qcow2_write_fault(request, blk_error_set(&error, ENOMEM, "out of memory"), &error);
        return true;
    }
    return pack != NULL;
}
