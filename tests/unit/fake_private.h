/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fake.c (the world), fake_dev.c (devices) and fake_store.c (directories) share. */
#ifndef LUNFERRY_TEST_FAKE_PRIVATE_H
#define LUNFERRY_TEST_FAKE_PRIVATE_H

#include "fake.h"

struct fake_store {
    struct store store;
    struct fake_fs *fs;
    bool counted; /* in fs->open */
    unsigned session, in_flight;
    bool recovering, cancelled;
};

extern const struct store_driver fake_store_driver;

/* Takes the operation in: into the list, or, in an automatic world, straight to its end. */
void fake_add(struct fake *fake, struct fake_op *op);
/* Fails the operation where the script, a cancel or a lost session says so. 0: it succeeds.
 * *applies: whether it takes effect. */
int fake_outcome(struct fake *fake, const struct fake_op *op, struct blk_error *error,
                 bool *applies);
/* The outcome of a recovery. `away`: it needs a new session, for which the counter says whether the
 * server is reached. */
int fake_look_again(struct fake *fake, const struct fake_op *op, bool away, atomic_uint *lost,
                    bool other, struct blk_error *error);
/* Marks what is pending for the device, the store, or all of a disk's devices. */
void fake_hang_up(struct fake *fake, const struct fake_dev *dev, const struct fake_disk *disk,
                  const struct fake_store *store, bool applies);
/* Of what the operation is for. */
void fake_end_session(struct fake *fake, const struct fake_op *op, bool applies);
void fake_dev_end_session(struct fake_dev *dev, bool applies);
bool fake_dev_is_away(const struct fake_dev *dev);
bool fake_dev_is_on(const struct fake_dev *dev, const struct fake_disk *disk);
/* Marks what is pending for the device or the store. */
void fake_cancel(struct fake *fake, const struct fake_dev *dev, const struct fake_store *store);

/* fake_space.c: what lies where, and what was asked. */
void fake_space_log(struct fake_disk *disk, const struct blk_req *req);
/* The kind of a range changes, the bytes stay as they are. */
void fake_space_mark(struct fake_disk *disk, uint64_t offset, uint64_t len, enum blk_kind kind);
/* The disk's size has changed. */
void fake_space_resize(struct fake_disk *disk, uint64_t size);
/* The bytes have changed: what is said to be zeros and is not is data from now on. */
void fake_space_correct(struct fake_disk *disk);
void fake_space_answer(struct fake_disk *disk, struct blk_req *req);

void fake_disk_resize(struct fake_disk *disk, uint64_t size);

/* The end of an operation: of a device, of a store. */
void fake_complete_device(struct fake *fake, const struct fake_op *op);
void fake_complete_store(struct fake *fake, const struct fake_op *op);

#endif
