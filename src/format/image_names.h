/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that an image gives for other files: what they lead to, and whether that may be opened. Pure
 * functions; nothing is touched. Private to src/format/image*.c.
 */
#ifndef LUNFERRY_IMAGE_NAMES_H
#define LUNFERRY_IMAGE_NAMES_H

#include <lunferry/image.h>

struct image_name {
    const char *name;        /* as it stands in the image; no NUL inside, any other byte */
    const char *what;        /* it is, for messages: "backing file" */
    const struct url *image; /* where the image lies */
    bool bare;               /* that is a LUN or a block device: nothing lies beside it */
    const struct image_choice *choice;
};

/* Where it leads, as a URL that blk_check_url() has accepted. 0, or -EPERM (not allowed), -EINVAL (cannot
 * be) or -ENOMEM, with a sentence that does not name the image. *url is to be released in either case. */
int image_name_resolve(const struct image_name *name, struct url *url, struct blk_error *error);

/* A name from an image, as it may stand in a message: quoted, cut, and without anything that a terminal
 * would obey. Returns buf. */
#define IMAGE_QUOTE 132
const char *image_quote(char buf[IMAGE_QUOTE], const char *name);

#endif
