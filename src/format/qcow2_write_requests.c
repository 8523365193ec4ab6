/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests to an image that is being written. A plain cluster lies where it lay before, if its L2 entry is still in
 * memory, else at the end of the file; runs of them are written from the caller's buffers, in one WRITE. Zeros
 * are entries, which blk_finish() makes durable: nothing that a server loses can take them away.
 */
#include "qcow2_write.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <lunferry/units.h>

/* For the rest of the last cluster, and where there is no other way to write zeros. */
static const unsigned char zeros[64 * 1024] __attribute__((aligned(4096)));

/* A part of a request, as the file is given it. */
struct qcow2_write_share {
    struct qcow2_write_share *next; /* free ones */
    struct qcow2_write_request *request;
    struct buffers buffers;
    struct blk_req req;
};

/* ---- Gathering -------------------------------------------------------------------------------- */

void qcow2_write_fault(struct qcow2_write_request *request, int status,
                       const struct blk_error *error)
{
    if (request->status < 0 && !(request->status == -ECANCELED && status != -ECANCELED))
        return;
    request->status = status;
    request->req->error = *error;
    request->req->error.retry = BLK_FATAL;
}

static void out_of_memory(struct qcow2_write_request *request)
{
    struct blk_error error;

    qcow2_write_fault(request, blk_error_set(&error, ENOMEM, "out of memory"), &error);
}

static void gathered(struct qcow2_write_request *request)
{
    assert(request->awaited > 0);
    if (--request->awaited == 0)
        blk_complete(request->req, request->status);
}

void qcow2_write_gathered(struct qcow2_write_request *request, const struct blk_req *part)
{
    struct blk_req *req = request->req;

    if (part->status < 0) {
        qcow2_write_fault(request, part->status, &part->error);
    } else {
        req->epoch = !request->told || req->epoch == part->epoch ? part->epoch : BLK_NO_EPOCH;
        req->durable = part->durable && (!request->told || req->durable);
        request->told = true;
        request->writer->epoch = part->epoch;
    }
    gathered(request);
}

static void share_done(struct blk_req *req)
{
    struct qcow2_write_share *share = req->opaque;
    struct qcow2_write_request *request = share->request;
    struct qcow2_writer *writer = request->writer;

    share->next = writer->free_shares;
    writer->free_shares = share;
    qcow2_write_gathered(request, req);
}

/* ---- Shares ----------------------------------------------------------------------------------- */

static struct qcow2_write_share *new_share(struct qcow2_write_request *request)
{
    struct qcow2_writer *writer = request->writer;
    struct qcow2_write_share *share = writer->free_shares;

    if (share)
        writer->free_shares = share->next;
    else
        share = calloc(1, sizeof(*share));
    if (share)
        share->request = request;
    return share;
}

void qcow2_write_free_shares(struct qcow2_writer *writer)
{
    while (writer->free_shares) {
        struct qcow2_write_share *share = writer->free_shares;

        writer->free_shares = share->next;
        free(share->buffers.list);
        free(share);
    }
}

/* `count` of the buffers are in use. Returns their number, or -1: out of memory. */
static int append_zeros(struct buffers *buffers, int count, uint64_t len)
{
    int more = (int)((len + sizeof(zeros) - 1) / sizeof(zeros));

    if (buffers->capacity < count + more) {
        struct iovec *list = realloc(buffers->list, (size_t)(count + more) * sizeof(*list));

        if (!list)
            return -1;
        buffers->list = list;
        buffers->capacity = count + more;
    }
    for (; len > 0; count++) {
        uint64_t part = min_u64(len, sizeof(zeros));

        /* Only ever read from. */
        buffers->list[count] = (struct iovec){(void *)(uintptr_t)zeros, part};
        len -= part;
    }
    return count;
}

/* The bytes of [from, to), and zeros up to the end of the cluster. */
static int fill_buffers(struct qcow2_write_share *share, uint64_t from, uint64_t to)
{
    const struct qcow2_write_request *request = share->request;
    uint64_t whole = round_up(to, qcow2_write_cluster(request->writer));
    int count;

    if (request->req->op == BLK_ZERO)
        return append_zeros(&share->buffers, 0, whole - from);
    count = buffers_slice(&share->buffers, request->req, from - request->req->offset, to - from);
    return count < 0 ? count : append_zeros(&share->buffers, count, whole - to);
}

static void submit_run(struct qcow2_write_request *request, uint64_t from, uint64_t to,
                       uint64_t host)
{
    struct qcow2_write_share *share = new_share(request);
    int count = share ? fill_buffers(share, from, to) : -1;

    if (count < 0) {
        if (share) {
            share->next = request->writer->free_shares;
            request->writer->free_shares = share;
        }
        out_of_memory(request);
        return;
    }
    share->req = (struct blk_req){
        .op = BLK_WRITE,
        .flags = request->req->flags & BLK_FUA,
        .offset = host,
        .len = round_up(to, qcow2_write_cluster(request->writer)) - from,
        .iov = share->buffers.list,
        .iovcnt = count,
        .done = share_done,
        .opaque = share,
    };
    request->awaited++;
    blk_submit(request->writer->file, &share->req);
}

static void deal_flush(struct qcow2_write_request *request)
{
    struct qcow2_write_share *share = new_share(request);

    if (!share) {
        out_of_memory(request);
        return;
    }
    share->req = (struct blk_req){.op = BLK_FLUSH, .done = share_done, .opaque = share};
    request->awaited++;
    blk_submit(request->writer->file, &share->req);
}

/* ---- Plain clusters --------------------------------------------------------------------------- */

/* How many of `count` clusters are in one row, where they are or where they come; and where that is. With the
 * lock held. */
static int find_places(struct qcow2_write_core *core, uint64_t cluster, uint64_t count,
                       uint64_t *host, uint64_t *got, struct blk_error *error)
{
    unsigned bits = core->shape.cluster_bits;
    uint64_t n = 1;
    int status;

    *host = qcow2_fills_host(&core->fills, cluster);
    while (*host && n < count && qcow2_fills_host(&core->fills, cluster + n) == *host + (n << bits))
        n++;
    *got = n;
    if (*host)
        return 0;
    while (n < count && !qcow2_fills_host(&core->fills, cluster + n))
        n++;
    status = qcow2_space_plain(&core->space, n, host, got, error);
    for (uint64_t i = 0; i < *got && status == 0; i++)
        status = qcow2_fills_note(&core->fills, &core->space, cluster + i,
                                  qcow2_word_plain(&core->shape, *host + (i << bits)), error);
    return status;
}

void qcow2_write_plain(struct qcow2_write_request *request, uint64_t from, uint64_t to)
{
    struct qcow2_write_core *core = request->writer->core;
    unsigned bits = core->shape.cluster_bits;
    struct blk_error error;

    while (from < to && request->status == 0) {
        uint64_t first = from >> bits, count = ((to - 1) >> bits) + 1 - first, host, got, end;
        int status;

        pthread_mutex_lock(&core->lock);
        status = find_places(core, first, count, &host, &got, &error);
        pthread_mutex_unlock(&core->lock);
        if (status < 0) {
            qcow2_write_fault(request, status, &error);
            return;
        }
        end = min_u64(to, (first + got) << bits);
        submit_run(request, from, end, host);
        from = end;
    }
}

/* ---- Zeros ------------------------------------------------------------------------------------ */

/* [first, end) of one L2 table. With the lock held. */
static int note_zeros(struct qcow2_write_core *core, uint64_t first, uint64_t end,
                      struct blk_error *error)
{
    uint64_t number = first >> core->shape.l2_bits;
    bool hides = core->layout.backing != NULL;
    struct qcow2_word word = hides ? qcow2_word_zeros(&core->shape) : (struct qcow2_word){0};
    int status = 0;

    /* What was never written is zero. */
    if (!hides && core->fills.stored[number] == 0 && !qcow2_fills_find(&core->fills, number, false))
        return 0;
    for (uint64_t i = first; i < end && status == 0; i++)
        status = qcow2_fills_note(&core->fills, &core->space, i, word, error);
    return status;
}

/* As far as one L2 table reaches. */
static void deal_zeros(struct qcow2_write_request *request, uint64_t end)
{
    struct qcow2_write_core *core = request->writer->core;
    unsigned bits = core->shape.cluster_bits, table_bits = bits + core->shape.l2_bits;
    uint64_t to = min_u64(end, ((request->at >> table_bits) + 1) << table_bits);
    struct blk_error error;
    int status;

    pthread_mutex_lock(&core->lock);
    status = note_zeros(core, request->at >> bits, ((to - 1) >> bits) + 1, &error);
    pthread_mutex_unlock(&core->lock);
    if (status < 0)
        qcow2_write_fault(request, status, &error);
    request->at = to;
}

/* Version 2 has no zero clusters: what is to hide a backing image has to be data. */
static bool zeros_are_data(const struct qcow2_write_core *core)
{
    return core->layout.version == 2 && core->layout.backing;
}

/* ---- Dealing out ------------------------------------------------------------------------------ */

/* False: the rest of it has to wait. */
static bool deal(struct qcow2_write_request *request)
{
    struct qcow2_writer *writer = request->writer;
    uint64_t end = request->req->offset + request->req->len;
    struct blk_error error;
    bool zero = request->req->op == BLK_ZERO && !zeros_are_data(writer->core);

    while (request->at < end && request->status == 0) {
        int status;
        bool wait = qcow2_leave_for_room(writer, &status, &error);

        if (status < 0)
            qcow2_write_fault(request, status, &error);
        else if (wait)
            return false;
        else if (zero)
            deal_zeros(request, end);
        else if (writer->core->layout.compress) {
            if (!qcow2_pack_deal(request))
                return false;
        } else {
            uint64_t to = min_u64(end, round_down(request->at, QCOW2_LONGEST) + QCOW2_LONGEST);

            qcow2_write_plain(request, request->at, to);
            request->at = to;
        }
    }
    if (!request->told && request->awaited == 1) { /* nothing but entries */
        request->req->epoch = writer->epoch;
        request->req->durable = true;
    }
    gathered(request);
    return true;
}

void qcow2_write_resume(struct qcow2_writer *writer)
{
    while (writer->stalled) {
        struct qcow2_write_request *request = writer->stalled;

        if (!deal(request))
            return;
        writer->stalled = request->next;
        if (!writer->stalled)
            writer->stalled_end = &writer->stalled;
    }
    if (writer->pushed)
        qcow2_pack_push(writer);
    writer->pushed = false;
}

void qcow2_write_cancel(struct qcow2_writer *writer)
{
    struct qcow2_write_request *request = writer->stalled;
    struct blk_error error;

    blk_error_set(&error, ECANCELED, "cancelled");
    writer->stalled = NULL;
    writer->stalled_end = &writer->stalled;
    while (request) {
        struct qcow2_write_request *next = request->next;

        qcow2_write_fault(request, -ECANCELED, &error);
        gathered(request);
        request = next;
    }
}

static int check(const struct qcow2_writer *writer, const struct blk_req *req,
                 struct blk_error *error)
{
    uint64_t cluster = qcow2_write_cluster(writer), end = req->offset + req->len;

    if (req->op == BLK_FLUSH)
        return 0;
    if (req->op != BLK_WRITE && req->op != BLK_ZERO)
        return blk_error_set(error, ENOTSUP,
                             "an image that is being written can be read when it is finished");
    if (req->offset % cluster != 0 || (end % cluster != 0 && end != writer->dev.size))
        return blk_error_set(error, EINVAL,
                             "%" PRIu64 " bytes do not begin and end with clusters of %" PRIu64,
                             req->len, cluster);
    return 0;
}

void qcow2_write_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct qcow2_writer *writer = qcow2_writer_of(dev);
    struct qcow2_write_request *request = blk_req_state(req);
    struct blk_error error;
    int status = check(writer, req, &error);

    *request =
        (struct qcow2_write_request){.writer = writer, .req = req, .at = req->offset, .awaited = 1};
    if (status < 0 || req->op == BLK_FLUSH) {
        if (status < 0)
            qcow2_write_fault(request, status, &error);
        else
            deal_flush(request);
        gathered(request);
        return;
    }
    if (!writer->stalled && deal(request))
        return;
    *writer->stalled_end = request;
    writer->stalled_end = &request->next;
}
