/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "buffers.h"

#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* The buffer that holds the byte at *skip, which becomes its place in it. */
static int find(const struct blk_req *req, uint64_t *skip)
{
    int i = 0;

    while (i < req->iovcnt && *skip >= req->iov[i].iov_len)
        *skip -= req->iov[i++].iov_len;
    return i;
}

int buffers_slice(struct buffers *buffers, const struct blk_req *req, uint64_t skip, uint64_t len)
{
    int first = find(req, &skip), count = 0;

    if (buffers->capacity < req->iovcnt - first) {
        struct iovec *list = realloc(buffers->list, (size_t)(req->iovcnt - first) * sizeof(*list));

        if (!list)
            return -1;
        buffers->list = list;
        buffers->capacity = req->iovcnt - first;
    }
    for (int i = first; i < req->iovcnt && len > 0; i++) {
        uint64_t part = min_u64(req->iov[i].iov_len - skip, len);

        buffers->list[count++] = (struct iovec){(char *)req->iov[i].iov_base + skip, part};
        skip = 0;
        len -= part;
    }
    return count;
}

void *buffers_flat(const struct blk_req *req, uint64_t skip, uint64_t len)
{
    int i = find(req, &skip);

    return len <= req->iov[i].iov_len - skip ? (char *)req->iov[i].iov_base + skip : NULL;
}

void buffers_zero(const struct blk_req *req, uint64_t skip, uint64_t len)
{
    for (int i = find(req, &skip); len > 0; i++) {
        uint64_t part = min_u64(req->iov[i].iov_len - skip, len);

        memset((char *)req->iov[i].iov_base + skip, 0, part);
        skip = 0;
        len -= part;
    }
}
