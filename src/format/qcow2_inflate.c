/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decompression by ISA-L and libzstd. libdeflate is as fast, but gives nothing of a stream that does not end
 * where the cluster does. */
#include "qcow2_inflate.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <zstd.h>

struct qcow2_inflate {
    enum qcow2_compression compression;
    ZSTD_DCtx *zstd;
    struct inflate_state deflate;
};

struct qcow2_inflate *qcow2_inflate_new(enum qcow2_compression compression)
{
    struct qcow2_inflate *inflate = calloc(1, sizeof(*inflate));

    if (!inflate)
        return NULL;
    inflate->compression = compression;
    if (compression == QCOW2_ZSTD) {
        inflate->zstd = ZSTD_createDCtx();
        if (!inflate->zstd) {
            free(inflate);
            return NULL;
        }
    }
    return inflate;
}

void qcow2_inflate_free(struct qcow2_inflate *inflate)
{
    if (!inflate)
        return;
    ZSTD_freeDCtx(inflate->zstd);
    free(inflate);
}

static int too_short(size_t got, size_t wanted, struct blk_error *error)
{
    return blk_error_set(
        error, EIO, "a compressed cluster gives %zu bytes, where it should give %zu", got, wanted);
}

static int inflate_deflate(struct inflate_state *state, const void *in, size_t in_len, void *out,
                           size_t out_len, struct blk_error *error)
{
    int status;

    isal_inflate_init(state);
    state->next_in = (uint8_t *)(uintptr_t)in; /* only ever read from */
    state->avail_in = (uint32_t)in_len;
    state->next_out = out;
    state->avail_out = (uint32_t)out_len;
    status = isal_inflate_stateless(state);
    if (status < 0)
        return blk_error_set(error, EIO,
                             "a compressed cluster is damaged: no valid deflate stream");
    if (state->avail_out > 0)
        return too_short(out_len - state->avail_out, out_len, error);
    return 0;
}

/* Frame by frame, each straight into its place: whatever window a frame asks for, it costs no memory. */
static int inflate_zstd(ZSTD_DCtx *zstd, const void *in, size_t in_len, void *out, size_t out_len,
                        struct blk_error *error)
{
    const char *from = in;
    char *to = out;

    while (out_len > (size_t)(to - (char *)out) && in_len > (size_t)(from - (const char *)in)) {
        size_t left = in_len - (size_t)(from - (const char *)in);
        size_t frame = ZSTD_findFrameCompressedSize(from, left), got;

        if (ZSTD_isError(frame))
            return blk_error_set(error, EIO, "a compressed cluster is damaged: %s",
                                 ZSTD_getErrorName(frame));
        got = ZSTD_decompressDCtx(zstd, to, out_len - (size_t)(to - (char *)out), from, frame);
        if (ZSTD_isError(got))
            return blk_error_set(error, EIO, "a compressed cluster is damaged: %s",
                                 ZSTD_getErrorName(got));
        from += frame;
        to += got;
    }
    if (out_len > (size_t)(to - (char *)out))
        return too_short((size_t)(to - (char *)out), out_len, error);
    return 0;
}

int qcow2_inflate(struct qcow2_inflate *inflate, const void *in, size_t in_len, void *out,
                  size_t out_len, struct blk_error *error)
{
    if (inflate->compression == QCOW2_ZSTD)
        return inflate_zstd(inflate->zstd, in, in_len, out, out_len, error);
    return inflate_deflate(&inflate->deflate, in, in_len, out, out_len, error);
}
