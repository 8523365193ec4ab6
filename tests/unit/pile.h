/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow and qcow2 images on disks of the fake world, one over the other. */
#ifndef LUNFERRY_TEST_PILE_H
#define LUNFERRY_TEST_PILE_H

#include "desk.h"
#include "qcow2_make.h"

#define PILE_DISKS 8

struct pile {
    struct desk desk; /* its dev is the image on top; its disk is not used */
    struct fake_disk disks[PILE_DISKS];
    struct fake_end ends[PILE_DISKS];
    unsigned count;
};

void pile_init(struct pile *pile);
/* Another disk, of zeros, that does log and has EXTENTS. Its endpoint is full:a, full:b... */
struct fake_disk *pile_disk(struct pile *pile, uint64_t size);
/* Opens the disk that was made last. */
struct blk_dev *pile_open(struct pile *pile);
/* The image in the header's bytes becomes a disk, and a device over that and those given, which may be NULL;
 * desk.dev too. Its status and text, where it fails, are in desk.events. */
int pile_image(struct pile *pile, const struct qcow2_make *make, struct blk_dev *data,
               struct blk_dev *backing);
/* The disk's image, opened already, as a device. */
int pile_image_on(struct pile *pile, const struct qcow2_make *make, struct blk_dev *file,
                  struct blk_dev *data, struct blk_dev *backing);
/* Closes desk.dev, if it is there, and with it all. */
void pile_release(struct pile *pile);

#endif
