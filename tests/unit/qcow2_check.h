/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks at a qcow2 image as qemu-img check does, and at what is in it: nothing of src/ has a part in it but the
 * numbers in qcow2.h. Every reference to a cluster of the file is counted and compared with its refcount: what is used
 * and not counted, or counted and not used, is an error.
 */
#ifndef LUNFERRY_TEST_QCOW2_CHECK_H
#define LUNFERRY_TEST_QCOW2_CHECK_H

#include "qcow2_make.h"

struct qcow2_check {
    /* Set by the test. */
    const unsigned char *bytes; /* the file */
    size_t len;
    const unsigned char *disk;    /* what is to be in it */
    uint64_t size;                /* bytes of the disk, before it is rounded up */
    const unsigned char *backing; /* of as many bytes, where nothing is; NULL: zeros */

    /* What was found. */
    char error[200];
    uint64_t plain, compressed, zeros, nothing; /* clusters */
    uint64_t used; /* bytes of the file, up to the last cluster that is counted */
};

/* Does it begin as an image does? */
bool qcow2_check_magic(const unsigned char *bytes);
/* False: it is not right, and `error` says why. */
bool qcow2_check(struct qcow2_check *check);

#endif
