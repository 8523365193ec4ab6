/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pile.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    struct desk *desk = container_of(watcher, struct desk, watcher);

    assert_int_equal(event, BLK_WARNING);
    snprintf(desk->events, sizeof(desk->events), "%s: %s", name, text);
}

void pile_init(struct pile *pile)
{
    memset(pile, 0, sizeof(*pile));
    desk_init(&pile->desk, 1);
    pile->desk.watcher.event = on_event;
}

static void prepare(struct pile *pile)
{
    struct fake_disk *disk = &pile->disks[pile->count];
    char name[2] = {(char)('a' + pile->count), '\0'};

    disk->logging = true;
    disk->caps = BLK_CAN_EXTENTS;
    fake_end_disk(&pile->ends[pile->count++], disk, "full", name);
}

struct fake_disk *pile_disk(struct pile *pile, uint64_t size)
{
    struct fake_disk *disk = &pile->disks[pile->count];

    assert_true(pile->count < PILE_DISKS);
    fake_disk_init(disk, &pile->desk.fake, size, 0);
    prepare(pile);
    return disk;
}

struct blk_dev *pile_open(struct pile *pile)
{
    struct blk_open_args args = {.url = &pile->ends[pile->count - 1].url,
                                 .settings = &pile->desk.settings,
                                 .watcher = &pile->desk.watcher};
    struct desk_task task;
    struct blk_dev *dev = blk_open(pile->desk.fake.loop, &args, desk_task(&task));

    assert_non_null(dev);
    fake_finish(&pile->desk.fake);
    assert_int_equal(task.task.status, 0);
    return dev;
}

static uint64_t *load_l1(const struct qcow2_make *make, const struct qcow2_header *header)
{
    uint64_t *l1 = malloc((header->l1_entries + 1) * sizeof(*l1));

    assert_non_null(l1);
    for (uint32_t i = 0; i < header->l1_entries; i++)
        l1[i] = qcow2_make_get64(make, header->l1_offset + 8 * i);
    return l1;
}

int pile_image_on(struct pile *pile, const struct qcow2_make *make, struct blk_dev *file,
                  struct blk_dev *data, struct blk_dev *backing)
{
    struct qcow2_parts parts = {.name = "image", .file = file, .data = data, .backing = backing};
    struct desk *desk = &pile->desk;
    struct blk_error error;
    struct desk_task task;
    uint64_t need;

    if (qcow2_header_parse(&parts.header, make->bytes, make->len, make->len, make->version == 1,
                           &need, &error) < 0)
        fail_msg("%s", error.text);
    parts.l1 = load_l1(make, &parts.header);
    desk->dev = qcow2_open(desk->fake.loop, &parts, desk_task(&task));
    assert_non_null(desk->dev);
    assert_int_equal(task.done, 0);
    fake_finish(&desk->fake);
    assert_int_equal(task.done, 1);
    if (task.task.status < 0)
        snprintf(desk->events, sizeof(desk->events), "%s", task.task.error.text);
    return task.task.status;
}

int pile_image(struct pile *pile, const struct qcow2_make *make, struct blk_dev *data,
               struct blk_dev *backing)
{
    assert_true(pile->count < PILE_DISKS);
    qcow2_make_to_disk(make, &pile->disks[pile->count], &pile->desk.fake);
    prepare(pile);
    return pile_image_on(pile, make, pile_open(pile), data, backing);
}

void pile_release(struct pile *pile)
{
    if (pile->desk.dev) {
        struct desk_task task;

        blk_close(pile->desk.dev, desk_task(&task));
        fake_finish(&pile->desk.fake);
        assert_int_equal(task.done, 1);
        pile->desk.dev = NULL;
    }
    for (unsigned i = 0; i < pile->count; i++) {
        assert_int_equal(pile->disks[i].open, 0);
        fake_disk_release(&pile->disks[i]);
    }
    desk_release(&pile->desk);
}
