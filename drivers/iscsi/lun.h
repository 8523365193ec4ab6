/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN as a device: what device.c, attach.c and describe.c share.
 *
 * Beside requests one thing at a time is under way at a device, and is what the session's coming up
 * and going down mean. Requests are under way in LUN_IDLE only.
 */
#ifndef LUNFERRY_DRIVERS_ISCSI_LUN_H
#define LUNFERRY_DRIVERS_ISCSI_LUN_H

#include "private.h"

enum lun_state {
    LUN_IDLE,
    LUN_OPENING,
    LUN_RECOVERING, /* or opening once more what could not be opened */
    LUN_RESERVING,
    LUN_RELEASING, /* closing: the reservation goes first */
    LUN_CLOSING,
};

struct lun {
    struct blk_dev dev; /* first */
    const struct url *url;
    const struct blk_settings *settings;
    struct login login;
    struct session session;
    struct probe probe;
    struct cache cache;
    struct provisioning provisioning;
    struct reservation reservation;
    enum lun_state state;
    bool is_clone;
    bool is_open;       /* has been opened: what follows are recoveries */
    bool is_known;      /* `opened` is what it must equal */
    bool cancelled;     /* the owner does not want it any more */
    bool restart;       /* a new session is wanted as soon as the old one is down */
    bool resumes;       /* the first session replaces one of a process that is no more */
    bool fresh;         /* the session has not been good for anything yet */
    bool reset_due;     /* before anything is written: what came by another portal may land late */
    bool renew_due;     /* before anything is written: the reservation */
    bool changed_by_us; /* the last look is no longer true: reset, or registered */
    bool warned_pool;   /* that the pool is filling up */
    struct lun_facts facts; /* at the last look */
    /* When it was opened; of a clone, when its origin was. Immutable then, since clones read it in
     * their threads. */
    struct lun_facts opened;
    char portal[SESSION_PORTAL_MAX]; /* of the last session that was good for writing */
    struct loop_timer patience;      /* with giving the reservation back */
};

static inline struct lun *lun_of(struct blk_dev *dev)
{
    return container_of(dev, struct lun, dev);
}

/* device.c: acts on what an answer says beside failing its command; returns that, enum sense_effect. */
unsigned lun_heed(struct lun *lun, const struct sense *sense);
struct standing lun_standing(const struct lun *lun);

/* attach.c: hooks of the driver. */
void lun_open(struct blk_dev *dev, const struct blk_open_args *args);
void lun_clone(struct blk_dev *dev, const struct blk_dev *origin, unsigned number);
void lun_recover(struct blk_dev *dev);
void lun_reserve(struct blk_dev *dev, const struct blk_reservation *how);
void lun_close(struct blk_dev *dev);
void lun_cancel_all(struct blk_dev *dev);

/* describe.c */
void lun_describe(struct blk_dev *dev, struct blk_report *report);

#endif
