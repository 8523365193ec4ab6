/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where guest offsets lie: L2 tables, in slices, as they are needed. */
#include "qcow2_map.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define L1_OFFSET_MASK UINT64_C(0x00fffffffffffe00)

/* Empty L1 entries that are looked at for one answer. */
#define L1_SCAN 65536

/* Guest bytes ahead of a lookup whose slices are asked for, where a slice is of fewer. */
#define AHEAD_BYTES (8 * MIB)

struct qcow2_slice {
    struct qcow2_map *map;
    uint64_t number;                   /* as the guest's offsets count them */
    struct qcow2_slice *newer, *older; /* by the last use */
    struct qcow2_slice *next;          /* in its bucket */
    bool reading;
    bool held; /* those who waited for it look at it now */
    struct qcow2_waiter *waiters, **end;
    struct blk_req req;
    struct iovec iov;
    uint64_t entries[]; /* big-endian, as in the file */
};

static size_t slice_bytes(const struct qcow2_map *map)
{
    return (size_t)1 << map->slice_bits;
}

/* Guest bytes that a slice tells of, as a power of two. */
static unsigned slice_reach(const struct qcow2_map *map)
{
    return map->index_bits + map->bounds.header->cluster_bits;
}

/* The same of a whole table. */
static unsigned table_reach(const struct qcow2_map *map)
{
    return map->bounds.header->l2_bits + map->bounds.header->cluster_bits;
}

static uint64_t table_offset(const struct qcow2_map *map, uint64_t index)
{
    return map->bounds.header->version == 1 ? map->l1[index] : map->l1[index] & L1_OFFSET_MASK;
}

/* ---- Slices that are kept --------------------------------------------------------------------- */

static struct qcow2_slice **bucket(struct qcow2_map *map, uint64_t number)
{
    return &map->buckets[number & (QCOW2_MAP_BUCKETS - 1)];
}

static struct qcow2_slice *look_up(struct qcow2_map *map, uint64_t number)
{
    struct qcow2_slice *slice = *bucket(map, number);

    while (slice && slice->number != number)
        slice = slice->next;
    return slice;
}

static void unlink_use(struct qcow2_map *map, struct qcow2_slice *slice)
{
    *(slice->newer ? &slice->newer->older : &map->newest) = slice->older;
    *(slice->older ? &slice->older->newer : &map->oldest) = slice->newer;
}

static void link_newest(struct qcow2_map *map, struct qcow2_slice *slice)
{
    slice->newer = NULL;
    slice->older = map->newest;
    *(map->newest ? &map->newest->newer : &map->oldest) = slice;
    map->newest = slice;
}

static void take_out(struct qcow2_map *map, struct qcow2_slice *slice)
{
    struct qcow2_slice **at = bucket(map, slice->number);

    while (*at != slice)
        at = &(*at)->next;
    *at = slice->next;
    unlink_use(map, slice);
    map->count--;
}

static void put_in(struct qcow2_map *map, struct qcow2_slice *slice, uint64_t number)
{
    slice->number = number;
    slice->next = *bucket(map, number);
    *bucket(map, number) = slice;
    link_newest(map, slice);
    map->count++;
}

/* The one that has not been used for longest. NULL: all are being read. */
static struct qcow2_slice *least_used(const struct qcow2_map *map)
{
    struct qcow2_slice *slice = map->oldest;

    while (slice && (slice->reading || slice->held))
        slice = slice->newer;
    return slice;
}

/* NULL: out of memory. */
static struct qcow2_slice *new_slice(struct qcow2_map *map)
{
    struct qcow2_slice *slice = map->count >= map->limit ? least_used(map) : NULL;

    if (slice) {
        take_out(map, slice);
        return slice;
    }
    slice = malloc(sizeof(*slice) + slice_bytes(map));
    if (slice)
        *slice = (struct qcow2_slice){.map = map};
    return slice;
}

/* Those that were being read beside the ones that are kept. */
static void trim(struct qcow2_map *map)
{
    struct qcow2_slice *slice;

    while (map->count > map->limit && (slice = least_used(map))) {
        take_out(map, slice);
        free(slice);
    }
}

/* ---- Reading ---------------------------------------------------------------------------------- */

static void slice_done(struct blk_req *req)
{
    struct qcow2_slice *slice = req->opaque;
    struct qcow2_map *map = slice->map;
    struct qcow2_waiter *waiter = slice->waiters;
    bool failed;

    if (req->status == 0 && req->got < req->len) {
        req->status =
            blk_error_set(&req->error, EIO, "%s ended within an L2 table at offset %" PRIu64,
                          map->file->name, req->offset);
        req->error.whole = true;
    }
    failed = req->status < 0;
    slice->reading = false;
    map->reading--;
    if (failed)
        take_out(map, slice); /* whoever comes next tries anew */
    slice->held = true;
    while (waiter) {
        struct qcow2_waiter *next = waiter->next;

        waiter->failed = failed ? req : NULL;
        waiter->ready(waiter);
        waiter = next;
    }
    slice->held = false;
    if (failed)
        free(slice);
    trim(map);
    if (map->reading == 0 && map->quiet) {
        void (*quiet)(struct qcow2_map * map) = map->quiet;

        map->quiet = NULL;
        quiet(map);
    }
}

/* NULL: *error says why. A table at the end of the file may end with it: what is missing are zeros. */
static struct qcow2_slice *read_slice(struct qcow2_map *map, uint64_t number,
                                      struct blk_error *error)
{
    unsigned in_table = table_reach(map) - slice_reach(map);
    uint64_t size = map->bounds.file_size, table = table_offset(map, number >> in_table);
    uint64_t offset = table + ((number & ((UINT64_C(1) << in_table) - 1)) << map->slice_bits);
    struct qcow2_slice *slice;
    size_t len;

    if (offset >= size || offset < table) {
        blk_error_set(error, EINVAL,
                      "its L2 table, at host offset %" PRIu64
                      ", is not within the file, which has %" PRIu64 " bytes",
                      table, size);
        return NULL;
    }
    slice = new_slice(map);
    if (!slice) {
        blk_error_set(error, ENOMEM, "out of memory");
        return NULL;
    }
    len = min_u64(slice_bytes(map), size - offset);
    memset((char *)slice->entries + len, 0, slice_bytes(map) - len);
    slice->reading = true;
    slice->waiters = NULL;
    slice->end = &slice->waiters;
    slice->iov = (struct iovec){slice->entries, len};
    slice->req = (struct blk_req){.op = BLK_READ,
                                  .offset = offset,
                                  .len = len,
                                  .iov = &slice->iov,
                                  .iovcnt = 1,
                                  .done = slice_done,
                                  .opaque = slice};
    put_in(map, slice, number);
    map->reading++;
    blk_submit(map->file, &slice->req);
    return slice;
}

/* The slices that a walk over the disk comes to, which is at `from` and knows all up to `to`. What fails here
 * is nobody's error yet. */
static void read_ahead(struct qcow2_map *map, uint64_t from, uint64_t to)
{
    unsigned reach = slice_reach(map), in_table = table_reach(map) - reach;
    uint64_t number = from >> reach, ahead = (UINT64_C(1) << reach) / 2, last;
    struct blk_error error;

    if (ahead < AHEAD_BYTES)
        ahead = AHEAD_BYTES;
    last = min_u64(map->bounds.header->size - 1, to + ahead) >> reach;
    last = min_u64(last, number + QCOW2_MAP_AHEAD);
    while (++number <= last && map->reading < QCOW2_MAP_AHEAD) {
        if (table_offset(map, number >> in_table) != 0 && !look_up(map, number) &&
            !read_slice(map, number, &error))
            return;
    }
}

/* ---- Finding ---------------------------------------------------------------------------------- */

/* Nothing, as far as L1 entries are empty. */
static void find_nothing(const struct qcow2_map *map, uint64_t offset, uint64_t end,
                         struct qcow2_run *run)
{
    uint64_t first = offset >> table_reach(map), index = first + 1;
    uint64_t last = (end - 1) >> table_reach(map);

    while (index <= last && index - first < L1_SCAN && table_offset(map, index) == 0)
        index++;
    *run = (struct qcow2_run){.kind = QCOW2_RUN_NOTHING, .offset = offset};
    run->len = index > last ? end - offset : (index << table_reach(map)) - offset;
}

static int decode_at(const struct qcow2_map *map, const struct qcow2_slice *slice, uint64_t offset,
                     struct qcow2_run *run, struct blk_error *error)
{
    uint64_t index =
        offset >> map->bounds.header->cluster_bits & ((UINT64_C(1) << map->index_bits) - 1);
    uint64_t entry, bitmap = 0;

    if (map->entry_shift == 4) {
        entry = be64toh(slice->entries[2 * index]);
        bitmap = be64toh(slice->entries[2 * index + 1]);
    } else {
        entry = be64toh(slice->entries[index]);
    }
    return qcow2_entry_decode(&map->bounds, offset, entry, bitmap, run, error);
}

bool qcow2_run_continues(const struct qcow2_run *run, const struct qcow2_run *next)
{
    return next->kind == run->kind && run->kind != QCOW2_RUN_COMPRESSED &&
           (run->kind != QCOW2_RUN_PLAIN || next->host == run->host + run->len);
}

int qcow2_map_find(struct qcow2_map *map, uint64_t offset, uint64_t end, struct qcow2_run *run,
                   struct qcow2_waiter *waiter, struct blk_error *error)
{
    uint64_t number = offset >> slice_reach(map);
    uint64_t limit = min_u64(end, (number + 1) << slice_reach(map));
    struct qcow2_slice *slice;
    struct qcow2_run next;
    struct blk_error later; /* what is wrong behind the run is for whoever gets there */
    int status;

    assert(offset < end && end <= map->bounds.header->size);
    if (table_offset(map, offset >> table_reach(map)) == 0) {
        find_nothing(map, offset, end, run);
        return QCOW2_FOUND;
    }
    slice = look_up(map, number);
    if (!slice)
        slice = read_slice(map, number, error);
    if (!slice)
        return -error->code;
    unlink_use(map, slice);
    link_newest(map, slice);
    if (slice->reading && waiter) {
        waiter->next = NULL;
        *slice->end = waiter;
        slice->end = &waiter->next;
    }
    if (slice->reading) {
        read_ahead(map, offset, offset);
        return QCOW2_LATER;
    }
    status = decode_at(map, slice, offset, run, error);
    while (status == 0 && run->offset + run->len < limit &&
           decode_at(map, slice, run->offset + run->len, &next, &later) == 0 &&
           qcow2_run_continues(run, &next))
        run->len += next.len;
    if (status < 0)
        return status;
    run->len = min_u64(run->len, end - offset);
    read_ahead(map, offset, offset + run->len);
    return QCOW2_FOUND;
}

/* ---- Life ------------------------------------------------------------------------------------- */

void qcow2_map_init(struct qcow2_map *map, const struct qcow2_header *header, const uint64_t *l1,
                    struct blk_dev *file, uint64_t data_size)
{
    unsigned table_bits;

    memset(map, 0, sizeof(*map));
    map->bounds = (struct qcow2_bounds){header, file->size, data_size};
    map->l1 = l1;
    map->file = file;
    map->entry_shift = header->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3;
    table_bits = header->l2_bits + map->entry_shift;
    map->slice_bits = table_bits;
    while (slice_bytes(map) > QCOW2_SLICE)
        map->slice_bits--;
    map->index_bits = map->slice_bits - map->entry_shift;
    map->limit = QCOW2_MAP_BYTES >> map->slice_bits;
    if (map->limit < QCOW2_MAP_LEAST)
        map->limit = QCOW2_MAP_LEAST;
}

void qcow2_map_release(struct qcow2_map *map)
{
    struct qcow2_slice *slice = map->newest;

    assert(map->reading == 0);
    while (slice) {
        struct qcow2_slice *older = slice->older;

        free(slice);
        slice = older;
    }
}

void qcow2_map_settle(struct qcow2_map *map, void (*then)(struct qcow2_map *map))
{
    assert(!map->quiet);
    if (map->reading > 0)
        map->quiet = then;
    else
        then(map);
}
