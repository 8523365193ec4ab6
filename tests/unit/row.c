/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "row.h"

#include <stdio.h>
#include <string.h>

void row_init(struct row *row)
{
    memset(row, 0, sizeof(*row));
    desk_init(&row->desk, 1);
}

struct fake_disk *row_disk(struct row *row, uint64_t size)
{
    struct fake_disk *disk = &row->disks[row->disk_count];
    char name[2] = {(char)('a' + row->disk_count), '\0'};

    fake_disk_init(disk, &row->desk.fake, size, 0);
    fake_disk_fill(disk, row->disk_count + 1);
    disk->logging = true;
    disk->limits.align = 512;
    disk->caps = ROW_ALL;
    fake_end_disk(&row->ends[row->disk_count++], disk, "full", name);
    return disk;
}

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    (void)watcher, (void)event, (void)name, (void)text;
}

static struct blk_dev *open_disk(struct row *row, unsigned number, bool writable)
{
    struct blk_open_args args = {.url = &row->ends[number].url,
                                 .writable = writable,
                                 .settings = &row->desk.settings,
                                 .watcher = &row->desk.watcher};
    struct desk_task task;
    struct blk_dev *dev = blk_open(row->desk.fake.loop, &args, desk_task(&task));

    row->desk.watcher.event = on_event;
    assert_non_null(dev);
    fake_finish(&row->desk.fake);
    assert_int_equal(task.task.status, 0);
    return dev;
}

void row_part(struct row *row, unsigned number, bool writable, uint64_t offset, uint64_t len)
{
    row->parts[row->count++] = (struct join_part){open_disk(row, number, writable), offset, len};
}

void row_zeros(struct row *row, uint64_t len)
{
    row->parts[row->count++] = (struct join_part){NULL, 0, len};
}

int row_join(struct row *row)
{
    struct desk_task task;

    row->desk.dev = join_open(row->desk.fake.loop, "all", row->parts, row->count, desk_task(&task));
    assert_non_null(row->desk.dev);
    assert_int_equal(task.done, 0);
    fake_finish(&row->desk.fake);
    assert_int_equal(task.done, 1);
    if (task.task.status < 0)
        snprintf(row->desk.events, sizeof(row->desk.events), "%s", task.task.error.text);
    return task.task.status;
}

void row_release(struct row *row)
{
    if (row->desk.dev) {
        struct desk_task task;

        blk_close(row->desk.dev, desk_task(&task));
        fake_finish(&row->desk.fake);
        assert_int_equal(task.done, 1);
        row->desk.dev = NULL;
    }
    for (unsigned i = 0; i < row->disk_count; i++) {
        assert_int_equal(row->disks[i].open, 0);
        fake_disk_release(&row->disks[i]);
    }
    desk_release(&row->desk);
}

void row_of_two(struct row *row)
{
    row_init(row);
    row_disk(row, 8192);
    row_disk(row, 8192);
    row_part(row, 0, true, 4096, 4096);
    row_part(row, 1, true, 0, 4096);
    assert_int_equal(row_join(row), 0);
}
