/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fake.c (the world), fake_dev.c (devices) and fake_store.c (directories) share. */
#ifndef LUNFERRY_TEST_FAKE_PRIVATE_H
#define LUNFERRY_TEST_FAKE_PRIVATE_H

#include "fake.h"

struct fake_store {
    struct store store;
    struct fake_fs *fs;
    bool counted; /* in fs->open */
};

extern const struct store_driver fake_store_driver;

/* Takes the operation in: into the list, or, in an automatic world, straight to its end. */
void fake_add(struct fake *fake, struct fake_op *op);
/* Fails the operation where the script or a cancel says so. 0: it succeeds. */
int fake_outcome(struct fake *fake, const struct fake_op *op, struct blk_error *error);
/* Marks what is pending for the device or the store. */
void fake_cancel(struct fake *fake, const struct fake_dev *dev, const struct fake_store *store);

void fake_disk_resize(struct fake_disk *disk, uint64_t size);

/* The end of an operation: of a device, of a store. */
void fake_complete_device(struct fake *fake, const struct fake_op *op);
void fake_complete_store(struct fake *fake, const struct fake_op *op);

#endif
