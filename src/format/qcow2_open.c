/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_open.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <lunferry/units.h>

#define SHORTEST 24 /* bytes, of any header */
/* Bytes of an entry of the snapshot table: what all have, QEMU's most of extra data, id and name, rounded up. */
#define LONGEST_SNAPSHOT (40 + 1024 + 2 * 65535 + 2)

static void end(struct qcow2_tables *tables, int status)
{
    free(tables->bytes);
    tables->bytes = NULL;
    tables->done(tables, status);
}

static void was_read(struct blk_req *req)
{
    struct qcow2_tables *tables = req->opaque;

    if (req->status == 0 && req->got < req->len)
        req->status = blk_error_set(&req->error, EIO,
                                    "%s ended after %" PRIu64 " bytes, while its header was read",
                                    tables->file->name, req->offset + req->got);
    if (req->status < 0) {
        tables->error = req->error;
        end(tables, req->status);
        return;
    }
    tables->then(tables);
}

/* Goes on with `then`, and tables->bytes. */
static void read_bytes(struct qcow2_tables *tables, uint64_t offset, uint64_t len,
                       void (*then)(struct qcow2_tables *tables))
{
    void *bytes = realloc(tables->bytes, len);

    if (!bytes) {
        end(tables, blk_error_set(&tables->error, ENOMEM, "no memory for %" PRIu64 " bytes", len));
        return;
    }
    tables->bytes = bytes;
    tables->then = then;
    tables->iov = (struct iovec){bytes, len};
    tables->req = (struct blk_req){
        .op = BLK_READ,
        .offset = offset,
        .len = len,
        .iov = &tables->iov,
        .iovcnt = 1,
        .done = was_read,
        .opaque = tables,
    };
    blk_submit(tables->file, &tables->req);
}

/* ---- The L1 table ----------------------------------------------------------------------------- */

static void have_l1(struct qcow2_tables *tables)
{
    struct qcow2_header *header = &tables->header;
    int status = qcow2_l1_check(header, tables->bytes, tables->file->size, &tables->error);

    if (status < 0) {
        end(tables, status);
        return;
    }
    /* malloc() has it aligned; what it held is not needed any more. */
    tables->l1 = (uint64_t *)(void *)tables->bytes;
    tables->bytes = NULL;
    for (uint32_t i = 0; i < header->l1_entries; i++)
        tables->l1[i] = be64toh(tables->l1[i]);
    end(tables, 0);
}

/* Entries for `size` bytes; a table may have more, which nobody will look at. */
static uint64_t entries_needed(const struct qcow2_header *header)
{
    unsigned bits = header->cluster_bits + header->l2_bits;

    return (header->size >> bits) + ((header->size & ((UINT64_C(1) << bits) - 1)) != 0);
}

static void read_l1(struct qcow2_tables *tables)
{
    struct qcow2_header *header = &tables->header;
    uint64_t needed = entries_needed(header), bytes = needed * sizeof(uint64_t);

    assert(needed <= header->l1_entries);
    if (bytes > tables->max_l1) {
        end(tables, blk_error_set(&tables->error, EFBIG,
                                  "its L1 table takes %" PRIu64 " bytes, and for all images of a "
                                  "chain together %" PRIu64 " are left; larger clusters make it "
                                  "smaller",
                                  bytes, tables->max_l1));
        return;
    }
    header->l1_entries = (uint32_t)needed;
    if (needed > 0) {
        read_bytes(tables, header->l1_offset, bytes, have_l1);
        return;
    }
    tables->l1 = calloc(1, sizeof(*tables->l1));
    end(tables, tables->l1 ? 0 : blk_error_set(&tables->error, ENOMEM, "out of memory"));
}

/* ---- The snapshot table ----------------------------------------------------------------------- */

static void have_snapshots(struct qcow2_tables *tables)
{
    int status = qcow2_snapshot_select(&tables->header, tables->bytes, tables->req.len,
                                       tables->file->size, tables->snapshot, &tables->error);

    if (status < 0)
        end(tables, status);
    else
        read_l1(tables);
}

/* How long it is stands nowhere: all that it can be, and is there. */
static void read_snapshots(struct qcow2_tables *tables)
{
    const struct qcow2_header *header = &tables->header;
    uint64_t size = tables->file->size, most = header->snapshot_count * (uint64_t)LONGEST_SNAPSHOT;

    if (header->snapshot_count == 0 || header->snapshot_offset >= size) {
        end(tables, blk_error_set(&tables->error, ENOENT, "it has no internal snapshots"));
        return;
    }
    most = min_u64(most, min_u64(size - header->snapshot_offset, QCOW2_MAX_SNAPSHOTS));
    read_bytes(tables, header->snapshot_offset, most, have_snapshots);
}

/* ---- The header ------------------------------------------------------------------------------- */

static void have_header(struct qcow2_tables *tables)
{
    uint64_t size = tables->file->size, need = 0;
    int status = qcow2_header_parse(&tables->header, tables->bytes, tables->req.len, size,
                                    tables->qcow, &need, &tables->error);

    if (status == -ERANGE && need > tables->req.len && need <= min_u64(size, QCOW2_MAX_HEADER)) {
        read_bytes(tables, 0, need, have_header);
        return;
    }
    if (status == -ERANGE)
        status = blk_error_set(
            &tables->error, EINVAL,
            "its header says that it goes on for %" PRIu64 " bytes, which no header does", need);
    tables->parsed = status == 0;
    if (status < 0)
        end(tables, status);
    else if (tables->snapshot)
        read_snapshots(tables);
    else
        read_l1(tables);
}

void qcow2_tables_read(struct qcow2_tables *tables)
{
    uint64_t size = tables->file->size;

    tables->bytes = NULL;
    tables->l1 = NULL;
    tables->parsed = false;
    if (size == BLK_SIZE_UNKNOWN || size < SHORTEST)
        end(tables,
            blk_error_set(&tables->error, EINVAL,
                          size < SHORTEST ? "it is shorter than any header of qcow2"
                                          : "it is a stream, and no image that is read here "
                                            "and there"));
    else
        read_bytes(tables, 0, min_u64(size, QCOW2_HEADER_READ), have_header);
}

void qcow2_tables_release(struct qcow2_tables *tables)
{
    if (tables->parsed)
        qcow2_header_free(&tables->header);
    tables->parsed = false;
    free(tables->l1);
    tables->l1 = NULL;
}
