/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reference of a copy: a device that shows what the target shows where nothing is written to it. It is
 * the image that will be the target's backing file, which is opened here; or the target itself, where only
 * differences are written.
 */
#ifndef LUNFERRY_REFERENCE_H
#define LUNFERRY_REFERENCE_H

#include <lunferry/copy.h>

#include "digest_file.h"

struct reference {
    /* Set by the owner. */
    struct loop *loop;
    const struct copy_options *options;
    struct blk_watcher *watcher;
    void (*done)(struct reference *reference, int status); /* with a status < 0, `error` says why */
    void *opaque;

    struct blk_dev *dev; /* valid when reference_fit() is done; NULL: there is none */
    const struct digest_list
        *list;              /* of the base, valid when reference_open() is done; NULL: none */
    struct blk_error error; /* names the endpoint */

    /* private */
    struct image image;
    uint64_t size; /* bytes of the image */
    struct digest_file digests;
    bool digests_opened;
    struct blk_task task;
};

/* Opens the base, if there is one. */
void reference_open(struct reference *reference);
/* Makes it as long as the source, with zeros behind it: beyond its end the target shows zeros. */
void reference_fit(struct reference *reference, uint64_t size);

/*
 * Of which depth on, in a source that has backing images itself, they are what the reference has; and before
 * which offset. The reference may be one of them; otherwise it has to hold the same as the first of them,
 * and *told says so in a sentence (NULL: it is one of them). False: the source has none.
 */
bool reference_is_behind(const struct reference *reference, const struct image *source,
                         unsigned *depth, uint64_t *until, const char **told);

/* Closes it; status is always 0. */
void reference_close(struct reference *reference);
/* What is under way, except a close, ends soon with -ECANCELED. */
void reference_cancel(struct reference *reference);

#endif
