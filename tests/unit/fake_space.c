/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lies where on the disks of the fake world, and what their drivers were asked. */
#include "fake_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* ---- Extents ---------------------------------------------------------------------------------- */

/* Appends to a list in the making, which has room. */
static void append(struct fake_extent *list, size_t *count, uint64_t from, uint64_t to,
                   enum blk_kind kind)
{
    if (from >= to)
        return;
    if (*count > 0 && list[*count - 1].kind == kind)
        list[*count - 1].len += to - from;
    else
        list[(*count)++] = (struct fake_extent){from, to - from, kind};
}

/* The list as it is with [from, to) of that kind; beyond `size` there is nothing. */
static void replace(struct fake_disk *disk, uint64_t from, uint64_t to, enum blk_kind kind,
                    uint64_t size)
{
    struct fake_extent all = {0, disk->size, BLK_DATA};
    const struct fake_extent *old = disk->extents ? disk->extents : &all;
    size_t old_count = disk->extents ? disk->extent_count : 1, count = 0;
    struct fake_extent *list = malloc((old_count + 3) * sizeof(*list));

    must(disk->fake, list);
    for (size_t i = 0; i < old_count; i++)
        append(list, &count, old[i].offset,
               min_u64(old[i].offset + old[i].len, min_u64(from, size)), old[i].kind);
    append(list, &count, from, to, kind);
    for (size_t i = 0; i < old_count; i++)
        append(list, &count, old[i].offset > to ? old[i].offset : to,
               min_u64(old[i].offset + old[i].len, size), old[i].kind);
    free(disk->extents);
    disk->extents = list;
    disk->extent_count = count;
}

void fake_space_mark(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind)
{
    pthread_mutex_lock(&disk->lock);
    /* Most disks are all data, for ever. */
    if (disk->extents || kind != BLK_DATA)
        replace(disk, offset, offset + len, kind, disk->size);
    pthread_mutex_unlock(&disk->lock);
}

void fake_space_resize(struct fake_disk *disk, uint64_t size)
{
    pthread_mutex_lock(&disk->lock);
    if (disk->extents || size > disk->size)
        replace(disk, min_u64(disk->size, size), size, BLK_ZEROS, size);
    pthread_mutex_unlock(&disk->lock);
}

void fake_disk_set(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind)
{
    uint64_t first = fake_disk_index(disk, offset), end = fake_disk_index(disk, offset + len);

    must(disk->fake, len > 0 && offset + len <= disk->size);
    fake_space_mark(disk, offset, len, kind);
    if (kind == BLK_DATA)
        return;
    memset(disk->written + first, 0, end - first);
    memset(disk->durable + first, 0, end - first);
}

bool fake_disk_is(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind)
{
    bool all = true;

    pthread_mutex_lock(&disk->lock);
    for (size_t i = 0; i < disk->extent_count; i++) {
        const struct fake_extent *extent = &disk->extents[i];

        if (extent->offset < offset + len && extent->offset + extent->len > offset)
            all = all && extent->kind == kind;
    }
    if (!disk->extents)
        all = kind == BLK_DATA;
    pthread_mutex_unlock(&disk->lock);
    return all;
}

static bool has_data(const struct fake_disk *disk, const struct fake_extent *extent)
{
    uint64_t end = fake_disk_index(disk, extent->offset + extent->len);

    for (uint64_t i = fake_disk_index(disk, extent->offset); i < end; i++) {
        if (disk->written[i] != 0)
            return true;
    }
    return false;
}

void fake_space_correct(struct fake_disk *disk)
{
    size_t i = 0;

    while (i < disk->extent_count) {
        struct fake_extent extent = disk->extents[i];

        if (extent.kind == BLK_DATA || !has_data(disk, &extent)) {
            i++;
            continue;
        }
        fake_space_mark(disk, extent.offset, extent.len, BLK_DATA);
        i = 0; /* it may have become one with its neighbours */
    }
}

/* The end of what is to be told as one extent. */
static uint64_t cut(const struct fake_disk *disk, uint64_t from, uint64_t to)
{
    uint64_t step = disk->extents_cut;

    return step ? min_u64(to, from - from % step + step) : to;
}

void fake_space_answer(struct fake_disk *disk, struct blk_req *req)
{
    struct fake_extent all = {0, disk->size, BLK_DATA};
    struct blk_extents *answer = req->extents;
    uint64_t at = req->offset, end = at + req->len;
    size_t most = answer->capacity, count;
    const struct fake_extent *from;

    if (disk->extents_reach)
        end = min_u64(end, at + disk->extents_reach);
    if (disk->extents_most)
        most = min_u64(most, disk->extents_most);
    answer->count = 0;
    pthread_mutex_lock(&disk->lock);
    from = disk->extents ? disk->extents : &all;
    count = disk->extents ? disk->extent_count : 1;
    for (size_t i = 0; i < count && at < end && answer->count < most;) {
        uint64_t to = min_u64(end, from[i].offset + from[i].len);

        if (to <= at) {
            i++;
            continue;
        }
        to = cut(disk, at, to);
        answer->list[answer->count++] = (struct blk_extent){
            .offset = at, .len = to - at, .kind = from[i].kind, .host_offset = BLK_NO_OFFSET};
        at = to;
    }
    pthread_mutex_unlock(&disk->lock);
}

/* ---- The log ---------------------------------------------------------------------------------- */

static const char *const names[] = {"READ", "WRITE", "ZERO", "FLUSH", "EXTENTS", "DISCARD"};

static void log_line(struct fake_disk *disk, const struct blk_req *req)
{
    size_t at = strlen(disk->log);

    if (req->op == BLK_FLUSH)
        snprintf(disk->log + at, sizeof(disk->log) - at, "FLUSH\n");
    else
        snprintf(disk->log + at, sizeof(disk->log) - at, "%s %" PRIu64 "+%" PRIu64 "%s%s\n",
                 names[req->op], req->offset, req->len, req->flags & BLK_FUA ? " FUA" : "",
                 req->flags & BLK_MAY_UNMAP ? " UNMAP" : "");
}

void fake_space_log(struct fake_disk *disk, const struct blk_req *req)
{
    if (!disk->logging)
        return;
    pthread_mutex_lock(&disk->lock);
    log_line(disk, req);
    if (disk->command_count == disk->command_capacity) {
        disk->command_capacity = 2 * disk->command_capacity + 64;
        disk->commands = realloc(disk->commands, disk->command_capacity * sizeof(*disk->commands));
        must(disk->fake, disk->commands);
    }
    disk->commands[disk->command_count++] =
        (struct fake_command){req->op, req->flags, req->offset, req->len};
    pthread_mutex_unlock(&disk->lock);
}

/* "512k", "1M", "100": exactly. */
static const char *short_size(char text[UNITS_TEXT], uint64_t bytes)
{
    static const char letters[] = "\0kMG";
    unsigned power = 0;

    while (power < 3 && bytes > 0 && bytes % KIB == 0) {
        bytes /= KIB;
        power++;
    }
    snprintf(text, UNITS_TEXT, "%" PRIu64 "%.1s", bytes, letters + power);
    return text;
}

#define COMMAND_TEXT 80

void fake_disk_check_commands(struct fake_disk *disk, const char *expected)
{
    char *text = malloc(disk->command_count * COMMAND_TEXT + 1), *at = text;
    char offset[UNITS_TEXT], len[UNITS_TEXT];

    must(disk->fake, text);
    *at = '\0';
    for (size_t i = 0; i < disk->command_count; i++) {
        const struct fake_command *command = &disk->commands[i];

        at += snprintf(at, COMMAND_TEXT, "%s%s", i ? "; " : "", names[command->op]);
        if (command->op != BLK_FLUSH)
            at += snprintf(at, COMMAND_TEXT, " %s+%s", short_size(offset, command->offset),
                           short_size(len, command->len));
        at += snprintf(at, COMMAND_TEXT, "%s%s", command->flags & BLK_FUA ? " fua" : "",
                       command->flags & BLK_MAY_UNMAP ? " unmap" : "");
    }
    disk->command_count = 0;
    if (strcmp(text, expected) != 0) {
        fprintf(stderr, "commands: %s\nexpected: %s\n", text, expected);
        if (disk->fake->explain)
            disk->fake->explain(disk->fake->opaque);
        free(text);
        fail_msg("other commands than expected");
    }
    free(text);
}
