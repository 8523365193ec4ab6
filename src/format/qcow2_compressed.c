/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressed clusters: fetched, several at a time where they lie close together, and decompressed, straight
 * into the caller's buffer where that is wanted whole. */
#include "qcow2_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <lunferry/units.h>

struct stream {
    uint64_t guest; /* offset of the cluster */
    uint64_t host;
    uint32_t host_len;
};

/* One READ of compressed data. */
struct qcow2_fetch {
    struct qcow2_fetch *next; /* free ones */
    struct qcow2_request *request;
    struct qcow2_kept
        *kept; /* NULL: all of each cluster is wanted. Else there is one, and of it: */
    uint64_t part, part_len; /* guest offset */
    unsigned count;
    struct stream streams[QCOW2_BATCH];
    unsigned char *bytes;
    size_t capacity;
    struct iovec iov;
    struct blk_req req;
};

/* ---- Fetches that are kept -------------------------------------------------------------------- */

/* NULL: out of memory. */
static struct qcow2_fetch *new_fetch(struct qcow2_request *request)
{
    struct qcow2 *qcow2 = request->qcow2;
    struct qcow2_fetch *fetch = qcow2->free_fetches;

    if (fetch) {
        qcow2->free_fetches = fetch->next;
        qcow2->idle -= fetch->capacity;
    } else {
        fetch = calloc(1, sizeof(*fetch));
    }
    if (!fetch)
        return NULL;
    fetch->request = request;
    fetch->kept = NULL;
    fetch->count = 0;
    return fetch;
}

static void put_back(struct qcow2 *qcow2, struct qcow2_fetch *fetch)
{
    if (qcow2->idle + fetch->capacity > QCOW2_FETCHING) {
        free(fetch->bytes);
        fetch->bytes = NULL;
        fetch->capacity = 0;
    }
    qcow2->idle += fetch->capacity;
    fetch->next = qcow2->free_fetches;
    qcow2->free_fetches = fetch;
}

/* Aligned, so that nobody below needs a buffer of its own. */
static bool reserve(struct qcow2_fetch *fetch, size_t len)
{
    const size_t page = 4096;

    if (fetch->capacity >= len)
        return true;
    free(fetch->bytes);
    fetch->capacity = 0;
    fetch->bytes = aligned_alloc(page, round_up(len, page));
    if (!fetch->bytes)
        return false;
    fetch->capacity = round_up(len, page);
    return true;
}

/* ---- Waiting for others ----------------------------------------------------------------------- */

static void stall(struct qcow2_request *request)
{
    struct qcow2_request **at = &request->qcow2->stalled;

    while (*at)
        at = &(*at)->next;
    request->next = NULL;
    *at = request;
}

/* In their order; whoever still has to wait stands behind the others again. */
static void go_on(struct qcow2 *qcow2)
{
    struct qcow2_request *request = qcow2->stalled;

    qcow2->stalled = NULL;
    while (request) {
        struct qcow2_request *next = request->next;

        qcow2_deal(request);
        request = next;
    }
}

/* ---- Decompressing ---------------------------------------------------------------------------- */

static bool prepare(struct qcow2 *qcow2)
{
    if (!qcow2->inflate)
        qcow2->inflate = qcow2_inflate_new(qcow2->core->header.compression);
    if (!qcow2->scratch)
        qcow2->scratch = malloc(qcow2_cluster_size(qcow2));
    return qcow2->inflate && qcow2->scratch;
}

/* What a stream says is lost like what a disk has lost, and can be read around. */
static int decompress(const struct qcow2_fetch *fetch, const struct stream *stream, void *out)
{
    struct qcow2_request *request = fetch->request;
    struct qcow2 *qcow2 = request->qcow2;
    uint64_t bad = stream->guest > request->req->offset ? stream->guest : request->req->offset;
    struct blk_error error;
    int status = qcow2_inflate(qcow2->inflate, fetch->bytes + (stream->host - fetch->req.offset),
                               stream->host_len, out, qcow2_cluster_size(qcow2), &error);

    if (status < 0) {
        error.retry = BLK_MEDIUM;
        qcow2_fail(request, &error, bad);
    }
    return status;
}

static int decompress_whole(const struct qcow2_fetch *fetch, const struct stream *stream)
{
    const struct blk_req *req = fetch->request->req;
    struct qcow2 *qcow2 = fetch->request->qcow2;
    uint64_t size = qcow2_cluster_size(qcow2), skip = stream->guest - req->offset;
    void *flat = buffers_flat(req, skip, size);
    int status = decompress(fetch, stream, flat ? flat : qcow2->scratch);

    if (status == 0 && !flat)
        blk_iov_from(req, skip, qcow2->scratch, size);
    return status;
}

static void copy_part(const struct qcow2 *qcow2, const struct blk_req *req,
                      const struct qcow2_kept *kept, uint64_t offset, uint64_t len)
{
    blk_iov_from(req, offset - req->offset, kept->bytes + offset % qcow2_cluster_size(qcow2), len);
}

static void decompress_all(const struct qcow2_fetch *fetch)
{
    struct qcow2_kept *kept = fetch->kept;

    if (!kept) {
        for (unsigned i = 0; i < fetch->count && fetch->request->status == 0; i++)
            decompress_whole(fetch, &fetch->streams[i]);
    } else if (decompress(fetch, &fetch->streams[0], kept->bytes) == 0) {
        kept->state = KEPT_HERE;
        copy_part(fetch->request->qcow2, fetch->request->req, kept, fetch->part, fetch->part_len);
    }
}

/* Of the clusters whose streams it lies in, the first. */
static uint64_t seen_from_guest(const struct qcow2_fetch *fetch, uint64_t host)
{
    for (unsigned i = 0; i < fetch->count; i++) {
        const struct stream *stream = &fetch->streams[i];

        if (host >= stream->host && host - stream->host < stream->host_len)
            return fetch->kept ? fetch->part : stream->guest;
    }
    return BLK_NO_OFFSET;
}

static void fetch_done(struct blk_req *req)
{
    struct qcow2_fetch *fetch = req->opaque;
    struct qcow2_request *request = fetch->request;
    struct qcow2 *qcow2 = request->qcow2;

    qcow2->fetching -= req->len;
    if (req->status == 0 && req->got < req->len) {
        blk_error_set(&req->error, EIO, "%s ended before its size", req->dev->name);
        req->error.whole = true;
    }
    if (req->error.code != 0)
        qcow2_fail(request, &req->error, seen_from_guest(fetch, req->bad_offset));
    else if (request->status == 0)
        decompress_all(fetch);
    if (fetch->kept && fetch->kept->state == KEPT_COMING)
        fetch->kept->state = KEPT_NOTHING;
    put_back(qcow2, fetch);
    qcow2_gathered(request);
    go_on(qcow2);
}

/* ---- Fetching --------------------------------------------------------------------------------- */

static void out_of_memory(struct qcow2_request *request)
{
    struct blk_error error;

    blk_error_set(&error, ENOMEM, "out of memory");
    qcow2_fail(request, &error, BLK_NO_OFFSET);
}

/* [from, to) of the file, in whole blocks. False: not now, or never; request->status tells. */
static bool send(struct qcow2_fetch *fetch, uint64_t from, uint64_t to)
{
    struct qcow2_request *request = fetch->request;
    struct qcow2 *qcow2 = request->qcow2;
    struct blk_dev *file = qcow2->below[QCOW2_FILE].dev;

    from = round_down(from, file->limits.align);
    to = min_u64(round_up(to, file->limits.align), file->size);
    if (qcow2->fetching > 0 && qcow2->fetching + (to - from) > QCOW2_FETCHING)
        return false;
    if (!prepare(qcow2) || !reserve(fetch, to - from)) {
        out_of_memory(request);
        return false;
    }
    fetch->iov = (struct iovec){fetch->bytes, to - from};
    fetch->req = (struct blk_req){.op = BLK_READ,
                                  .flags = request->req->flags,
                                  .offset = from,
                                  .len = to - from,
                                  .iov = &fetch->iov,
                                  .iovcnt = 1,
                                  .done = fetch_done,
                                  .opaque = fetch};
    qcow2->fetching += to - from;
    request->awaited++;
    blk_submit(file, &fetch->req);
    return true;
}

/* Sends it, or lets the request wait. True: it can go on at once. */
static bool send_or_stall(struct qcow2_fetch *fetch, uint64_t from, uint64_t to)
{
    struct qcow2_request *request = fetch->request;

    if (send(fetch, from, to))
        return true;
    put_back(request->qcow2, fetch);
    if (request->status < 0)
        return true; /* which ends it */
    stall(request);
    return false;
}

/* Do the streams from the first to the last byte lie so close together that one READ is better than several? */
static bool is_close(uint64_t from, uint64_t to, uint64_t bytes)
{
    return to - from <= QCOW2_FETCH && to - from <= 2 * bytes;
}

/* Clusters that are wanted whole, from the run's on. */
static bool fetch_whole(struct qcow2_request *request, const struct qcow2_run *run)
{
    struct qcow2 *qcow2 = request->qcow2;
    uint64_t size = qcow2_cluster_size(qcow2), end = request->req->offset + request->req->len;
    uint64_t from = run->host, to = from, bytes = 0;
    struct qcow2_fetch *fetch = new_fetch(request);
    struct qcow2_run next = *run;
    struct blk_error later;

    if (!fetch) {
        out_of_memory(request);
        return true;
    }
    do {
        uint64_t low = min_u64(from, next.host), high = next.host + next.host_len;

        if (high < to)
            high = to;
        bytes += next.host_len;
        if (fetch->count > 0 && !is_close(low, high, bytes))
            break;
        from = low;
        to = high;
        fetch->streams[fetch->count++] = (struct stream){next.offset, next.host, next.host_len};
    } while (fetch->count < QCOW2_BATCH && end - next.offset >= 2 * size &&
             qcow2_map_find(&qcow2->map, next.offset + size, end, &next, NULL, &later) ==
                 QCOW2_FOUND &&
             next.kind == QCOW2_RUN_COMPRESSED);
    bytes = fetch->count * size;
    if (!send_or_stall(fetch, from, to))
        return false;
    request->at += bytes;
    return true;
}

/* The one to be given up for another; NULL: all are on their way. */
static struct qcow2_kept *least_used(struct qcow2 *qcow2)
{
    struct qcow2_kept *least = NULL;

    for (unsigned i = 0; i < QCOW2_KEPT; i++) {
        struct qcow2_kept *kept = &qcow2->kept[i];

        if (kept->state == KEPT_COMING)
            continue;
        if (!least || kept->state == KEPT_NOTHING ||
            (least->state != KEPT_NOTHING && kept->used < least->used))
            least = kept;
    }
    return least;
}

static struct qcow2_kept *find_kept(struct qcow2 *qcow2, const struct qcow2_run *run)
{
    for (unsigned i = 0; i < QCOW2_KEPT; i++) {
        struct qcow2_kept *kept = &qcow2->kept[i];

        if (kept->state != KEPT_NOTHING && kept->host == run->host &&
            kept->host_len == run->host_len)
            return kept;
    }
    return NULL;
}

static bool fetch_part(struct qcow2_request *request, const struct qcow2_run *run)
{
    struct qcow2 *qcow2 = request->qcow2;
    uint64_t size = qcow2_cluster_size(qcow2);
    struct qcow2_kept *kept = least_used(qcow2);
    struct qcow2_fetch *fetch;

    if (!kept) {
        stall(request);
        return false;
    }
    if (!kept->bytes)
        kept->bytes = malloc(size);
    fetch = kept->bytes ? new_fetch(request) : NULL;
    if (!fetch) {
        out_of_memory(request);
        return true;
    }
    fetch->streams[fetch->count++] =
        (struct stream){round_down(run->offset, size), run->host, run->host_len};
    fetch->part = run->offset;
    fetch->part_len = run->len;
    if (!send_or_stall(fetch, run->host, run->host + run->host_len))
        return false;
    if (request->status < 0)
        return true;
    fetch->kept = kept;
    *kept = (struct qcow2_kept){.state = KEPT_COMING,
                                .host = run->host,
                                .host_len = run->host_len,
                                .used = ++qcow2->uses,
                                .bytes = kept->bytes};
    request->at += run->len;
    return true;
}

bool qcow2_deal_compressed(struct qcow2_request *request, const struct qcow2_run *run)
{
    struct qcow2 *qcow2 = request->qcow2;
    struct qcow2_kept *kept = find_kept(qcow2, run);

    if (kept && kept->state == KEPT_HERE) {
        kept->used = ++qcow2->uses;
        copy_part(qcow2, request->req, kept, run->offset, run->len);
        request->at += run->len;
        return true;
    }
    if (run->len == qcow2_cluster_size(qcow2))
        return fetch_whole(request, run);
    if (!kept)
        return fetch_part(request, run);
    stall(request); /* for what another request has asked for */
    return false;
}

void qcow2_free_compressed(struct qcow2 *qcow2)
{
    assert(qcow2->fetching == 0 && !qcow2->stalled);
    while (qcow2->free_fetches) {
        struct qcow2_fetch *fetch = qcow2->free_fetches;

        qcow2->free_fetches = fetch->next;
        free(fetch->bytes);
        free(fetch);
    }
    for (unsigned i = 0; i < QCOW2_KEPT; i++)
        free(qcow2->kept[i].bytes);
    free(qcow2->scratch);
    qcow2_inflate_free(qcow2->inflate);
}
