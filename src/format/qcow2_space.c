/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <lunferry/units.h>

#define CHUNK 4096u /* counters */

/* Bits of an offset in an L2 entry: of plain clusters 56; of compressed ones those that the number of sectors
 * leaves. */
static uint64_t most_of(unsigned cluster_bits)
{
    unsigned bits = 62 - (cluster_bits - 8);

    return UINT64_C(1) << (bits < 56 ? bits : 56);
}

void qcow2_space_init(struct qcow2_space *space, unsigned cluster_bits, uint64_t limit,
                      uint64_t arena)
{
    *space = (struct qcow2_space){
        .cluster_bits = cluster_bits,
        .end = UINT64_C(1) << cluster_bits,
        .limit = limit,
        .most = most_of(cluster_bits),
        .arena = arena,
    };
}

void qcow2_space_release(struct qcow2_space *space)
{
    for (size_t i = 0; i < space->chunk_count; i++)
        free(space->chunks[i]);
    free(space->chunks);
    space->chunks = NULL;
    space->chunk_count = 0;
}

/* ---- Counters --------------------------------------------------------------------------------- */

static int out_of_memory(struct blk_error *error)
{
    return blk_error_set(error, ENOMEM, "out of memory");
}

static int reserve_chunks(struct qcow2_space *space, size_t count, struct blk_error *error)
{
    uint16_t **chunks;
    size_t room = 2 * space->chunk_count > count ? 2 * space->chunk_count : count;

    if (count <= space->chunk_count)
        return 0;
    chunks = realloc(space->chunks, room * sizeof(*chunks));
    if (!chunks)
        return out_of_memory(error);
    for (size_t i = space->chunk_count; i < room; i++)
        chunks[i] = NULL;
    space->chunks = chunks;
    space->chunk_count = room;
    return 0;
}

/* The clusters from `first` to `last` get counters. */
static int make_counters(struct qcow2_space *space, uint64_t first, uint64_t last,
                         struct blk_error *error)
{
    int status = reserve_chunks(space, last / CHUNK + 1, error);

    for (uint64_t i = first / CHUNK; i <= last / CHUNK && status == 0; i++) {
        if (space->chunks[i])
            continue;
        space->chunks[i] = malloc(CHUNK * sizeof(*space->chunks[i]));
        if (!space->chunks[i])
            return out_of_memory(error);
        for (unsigned at = 0; at < CHUNK; at++)
            space->chunks[i][at] = 1;
    }
    return status;
}

static uint16_t *counter(const struct qcow2_space *space, uint64_t cluster)
{
    return &space->chunks[cluster / CHUNK][cluster % CHUNK];
}

unsigned qcow2_space_count(const struct qcow2_space *space, uint64_t cluster)
{
    if (cluster >= space->end >> space->cluster_bits)
        return 0;
    if (cluster / CHUNK >= space->chunk_count || !space->chunks[cluster / CHUNK])
        return 1;
    return *counter(space, cluster);
}

/* ---- Taking ----------------------------------------------------------------------------------- */

static int make_longer(struct qcow2_space *space, uint64_t len, struct blk_error *error)
{
    uint64_t end = space->end + len;

    if (end > space->most)
        return blk_error_set(error, EFBIG,
                             "an image with such clusters cannot be longer than %" PRIu64 " bytes",
                             space->most);
    if (end > space->limit)
        return blk_error_set(
            error, ENOSPC, "the image needs more than the %" PRIu64 " bytes that there are for it",
            space->limit);
    space->end = end;
    return 0;
}

int qcow2_space_append(struct qcow2_space *space, uint64_t clusters, uint64_t *host,
                       struct blk_error *error)
{
    *host = space->end;
    return make_longer(space, clusters << space->cluster_bits, error);
}

/* In advance, or at least one where there is not so much. */
static int fill_arena(struct qcow2_space *space, struct blk_error *error)
{
    uint64_t cluster = UINT64_C(1) << space->cluster_bits, start = space->end;
    uint64_t left = start < space->limit ? round_down(space->limit - start, cluster) : 0;
    uint64_t len = min_u64(space->arena, left > cluster ? left : cluster);
    int status = make_longer(space, len, error);

    if (status == 0) {
        space->plain_at = start;
        space->plain_end = space->end;
    }
    return status;
}

int qcow2_space_plain(struct qcow2_space *space, uint64_t clusters, uint64_t *host, uint64_t *got,
                      struct blk_error *error)
{
    int status = 0;

    *got = clusters;
    if (space->arena == 0)
        return qcow2_space_append(space, clusters, host, error);
    if (space->plain_at == space->plain_end)
        status = fill_arena(space, error);
    *host = space->plain_at;
    *got = min_u64(clusters, (space->plain_end - space->plain_at) >> space->cluster_bits);
    space->plain_at += *got << space->cluster_bits;
    return status;
}

int qcow2_space_pack(struct qcow2_space *space, uint64_t len, uint64_t *host,
                     struct blk_error *error)
{
    uint64_t cluster = UINT64_C(1) << space->cluster_bits, start = space->packed_at;
    uint64_t from = space->end, end;
    int status;

    if (space->packed_end != from && len > space->packed_end - start)
        start = from;
    end = round_up(start + len, cluster);
    if (end > from) {
        status = make_counters(space, from >> space->cluster_bits, (end - 1) >> space->cluster_bits,
                               error);
        if (status == 0)
            status = make_longer(space, end - from, error);
        if (status < 0)
            return status;
        for (uint64_t at = from; at < end; at += cluster)
            *counter(space, at >> space->cluster_bits) = 0;
        space->packed_end = end;
    }
    *host = start;
    space->packed_at = start + len;
    return 0;
}

/* ---- Using ------------------------------------------------------------------------------------ */

void qcow2_space_touch(struct qcow2_space *space, uint64_t host, uint64_t len)
{
    for (uint64_t i = host >> space->cluster_bits; i <= (host + len - 1) >> space->cluster_bits;
         i++)
        ++*counter(space, i);
}

int qcow2_space_give_back(struct qcow2_space *space, uint64_t host, uint64_t len,
                          struct blk_error *error)
{
    uint64_t first = host >> space->cluster_bits, last = (host + len - 1) >> space->cluster_bits;
    int status;

    if (first == 0 || last >= space->end >> space->cluster_bits)
        return blk_error_set(error, EIO,
                             "an L2 table has changed since it was written: it names offset "
                             "%" PRIu64,
                             host);
    status = make_counters(space, first, last, error);
    for (uint64_t i = first; i <= last && status == 0; i++) {
        if (*counter(space, i) == 0)
            return blk_error_set(error, EIO,
                                 "an L2 table has changed since it was written: it names offset "
                                 "%" PRIu64 ", where nothing is",
                                 host);
        --*counter(space, i);
    }
    return status;
}

int qcow2_space_trim(struct qcow2_space *space, struct blk_error *error)
{
    uint64_t first = space->plain_at >> space->cluster_bits;
    uint64_t end = space->plain_end >> space->cluster_bits;
    int status;

    if (first == end)
        return 0;
    if (space->plain_end == space->end) {
        space->end = space->plain_at;
    } else {
        status = make_counters(space, first, end - 1, error);
        if (status < 0)
            return status;
        for (uint64_t i = first; i < end; i++)
            *counter(space, i) = 0;
    }
    space->plain_end = space->plain_at;
    return 0;
}
