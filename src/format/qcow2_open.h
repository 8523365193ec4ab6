/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What has to be read of a qcow2 file before it can be a device: the header, the snapshot table where a
 * snapshot is wanted, and the L1 table. Of what a header says nothing is believed that has not been
 * checked, and nothing is read or allocated beyond the bounds that are named here and in qcow2.h.
 */
#ifndef LUNFERRY_QCOW2_OPEN_H
#define LUNFERRY_QCOW2_OPEN_H

#include "qcow2.h"

#define QCOW2_MAX_HEADER    (4u << 20)  /* bytes: two of the largest clusters */
#define QCOW2_MAX_SNAPSHOTS (16u << 20) /* bytes of the snapshot table */

struct qcow2_tables {
    /* Set by the owner. */
    struct blk_dev *file; /* open; outlives the reading */
    bool qcow;            /* version 1 is wanted */
    const char *snapshot; /* NULL: none */
    uint64_t max_l1;      /* bytes that the L1 table may take */
    /* Once; from inside qcow2_tables_read() where there is nothing to read. */
    void (*done)(struct qcow2_tables *tables, int status);
    void *opaque;

    /* Valid in done() without an error; the owner takes them over, or leaves them to
     * qcow2_tables_release(). l1_entries are those that the size needs. */
    struct qcow2_header header;
    uint64_t *l1;
    struct blk_error error; /* does not name the file, but where it comes from the device */

    /* private */
    struct blk_req req;
    struct iovec iov;
    unsigned char *bytes;
    void (*then)(struct qcow2_tables *tables);
    bool parsed; /* there is a header */
};

/* Its file's requests end when its device is cancelled. */
void qcow2_tables_read(struct qcow2_tables *tables);
void qcow2_tables_release(struct qcow2_tables *tables);

#endif
