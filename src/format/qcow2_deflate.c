/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compression by ISA-L, by zlib where somebody asks for one of its levels, and by libzstd. */
#include "qcow2_deflate.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define HISTORY_BITS 12 /* QEMU's window */
#define ZLIB_LEVELS  9
#define ZSTD_LEVELS  19
#define ZSTD_USUAL   1

enum means { BY_ISAL, BY_ZLIB, BY_ZSTD };

struct qcow2_deflate {
    enum means means;
    struct isal_zstream isal;
    unsigned char *level_buf; /* of it */
    z_stream zlib;
    bool zlib_set;
    ZSTD_CCtx *zstd;
    unsigned char *scratch; /* none of them knows that just as much room as it takes is enough */
    size_t scratch_len;
};

/* ---- Set up ----------------------------------------------------------------------------------- */

static int out_of_memory(struct blk_error *error)
{
    return blk_error_set(error, ENOMEM, "out of memory");
}

static int check_level(int level, int most, const char *name, struct blk_error *error)
{
    if (level < 0 || level > most)
        return blk_error_set(error, EINVAL, "%s has the levels 1 to %d, and no %d", name, most,
                             level);
    return 0;
}

static int set_up_isal(struct qcow2_deflate *deflate, uint32_t cluster_size,
                       struct blk_error *error)
{
    const uint32_t block = 65535, head = 5; /* of what is stored (RFC 1951 3.2.4) */

    deflate->means = BY_ISAL;
    deflate->level_buf = malloc(ISAL_DEF_LVL1_DEFAULT);
    deflate->scratch_len = cluster_size + (cluster_size / block + 1) * head;
    return deflate->level_buf ? 0 : out_of_memory(error);
}

/* As QEMU has it, so that its size is the one that people know. */
static int set_up_zlib(struct qcow2_deflate *deflate, int level, uint32_t cluster_size,
                       struct blk_error *error)
{
    deflate->means = BY_ZLIB;
    if (deflateInit2(&deflate->zlib, level, Z_DEFLATED, -HISTORY_BITS, MAX_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return out_of_memory(error);
    deflate->zlib_set = true;
    deflate->scratch_len = deflateBound(&deflate->zlib, cluster_size) + 1;
    return 0;
}

static int set_up_zstd(struct qcow2_deflate *deflate, int level, uint32_t cluster_size,
                       struct blk_error *error)
{
    deflate->means = BY_ZSTD;
    deflate->scratch_len = ZSTD_compressBound(cluster_size);
    deflate->zstd = ZSTD_createCCtx();
    if (!deflate->zstd)
        return out_of_memory(error);
    if (ZSTD_isError(ZSTD_CCtx_setParameter(deflate->zstd, ZSTD_c_compressionLevel,
                                            level == 0 ? ZSTD_USUAL : level)))
        return blk_error_set(error, EINVAL, "this libzstd has no level %d", level);
    return 0;
}

static int set_up(struct qcow2_deflate *deflate, enum image_compression compression, int level,
                  uint32_t cluster_size, struct blk_error *error)
{
    int status = compression == IMAGE_ZSTD ? check_level(level, ZSTD_LEVELS, "zstd", error)
                                           : check_level(level, ZLIB_LEVELS, "zlib", error);

    if (status < 0)
        return status;
    if (compression == IMAGE_ZSTD)
        status = set_up_zstd(deflate, level, cluster_size, error);
    else if (level > 0)
        status = set_up_zlib(deflate, level, cluster_size, error);
    else
        status = set_up_isal(deflate, cluster_size, error);
    if (status < 0)
        return status;
    deflate->scratch = malloc(deflate->scratch_len);
    return deflate->scratch ? 0 : out_of_memory(error);
}

struct qcow2_deflate *qcow2_deflate_new(enum image_compression compression, int level,
                                        uint32_t cluster_size, struct blk_error *error)
{
    struct qcow2_deflate *deflate = calloc(1, sizeof(*deflate));

    if (!deflate) {
        out_of_memory(error);
        return NULL;
    }
    if (set_up(deflate, compression, level, cluster_size, error) < 0) {
        qcow2_deflate_free(deflate);
        return NULL;
    }
    return deflate;
}

void qcow2_deflate_free(struct qcow2_deflate *deflate)
{
    if (!deflate)
        return;
    if (deflate->zlib_set)
        deflateEnd(&deflate->zlib);
    ZSTD_freeCCtx(deflate->zstd);
    free(deflate->level_buf);
    free(deflate->scratch);
    free(deflate);
}

/* ---- The early test --------------------------------------------------------------------------- */

/*
 * ISA-L takes as long for random bytes as for a text. So a sample is looked at first: the sum of squares of
 * how often each byte value comes in 1024 bytes is 5116 for random ones, with a standard deviation of 90. What
 * compresses has more; what has less is too even for chance, and counts up perhaps. libzstd finds out by
 * itself, in as much time; and who names a level of zlib wants its size. Figures are in docs/performance.md.
 */
#define SAMPLED       (64u << 10) /* bytes, or the cluster, of each of which one is taken */
#define SAMPLE        1024        /* bytes */
#define PIECE         64
#define LEAST_SQUARES 4600
#define MOST_SQUARES  5600

static bool sample_looks_random(const unsigned char *in, size_t len)
{
    uint16_t count[256] = {0};
    uint32_t squares = 0;

    for (size_t at = 0; at < len; at += len / (SAMPLE / PIECE)) {
        for (size_t i = 0; i < PIECE; i++)
            count[in[at + i]]++;
    }
    for (size_t i = 0; i < 256; i++)
        squares += (uint32_t)count[i] * count[i];
    return squares > LEAST_SQUARES && squares < MOST_SQUARES;
}

/* The length is a power of two. */
static bool looks_random(const unsigned char *in, size_t len)
{
    size_t part = len < SAMPLED ? len : SAMPLED;

    if (len < SAMPLE)
        return false;
    for (size_t at = 0; at < len; at += part) {
        if (!sample_looks_random(in + at, part))
            return false;
    }
    return true;
}

/* ---- Compressing ------------------------------------------------------------------------------ */

/* Each returns how many bytes of the scratch it takes; 0: none. */

static size_t by_isal(struct qcow2_deflate *deflate, const void *in, size_t in_len)
{
    struct isal_zstream *isal = &deflate->isal;

    if (looks_random(in, in_len))
        return 0;
    isal_deflate_stateless_init(isal);
    isal->level = 1;
    isal->level_buf = deflate->level_buf;
    isal->level_buf_size = ISAL_DEF_LVL1_DEFAULT;
    isal->hist_bits = HISTORY_BITS;
    isal->end_of_stream = 1;
    isal->next_in = (uint8_t *)(uintptr_t)in; /* only ever read from */
    isal->avail_in = (uint32_t)in_len;
    isal->next_out = deflate->scratch;
    isal->avail_out = (uint32_t)deflate->scratch_len;
    return isal_deflate_stateless(isal) == COMP_OK ? isal->total_out : 0;
}

static size_t by_zlib(struct qcow2_deflate *encoder, const void *in, size_t in_len)
{
    z_stream *zlib = &encoder->zlib;

    deflateReset(zlib);
    zlib->next_in = (Bytef *)(uintptr_t)in; /* only ever read from */
    zlib->avail_in = (uInt)in_len;
    zlib->next_out = encoder->scratch;
    zlib->avail_out = (uInt)encoder->scratch_len;
    return deflate(zlib, Z_FINISH) == Z_STREAM_END ? zlib->total_out : 0;
}

static size_t by_zstd(struct qcow2_deflate *deflate, const void *in, size_t in_len)
{
    size_t len = ZSTD_compress2(deflate->zstd, deflate->scratch, deflate->scratch_len, in, in_len);

    return ZSTD_isError(len) ? 0 : len;
}

size_t qcow2_deflate(struct qcow2_deflate *deflate, const void *in, size_t in_len, void *out,
                     size_t room)
{
    size_t len = 0;

    switch (deflate->means) {
    case BY_ISAL:
        len = by_isal(deflate, in, in_len);
        break;
    case BY_ZLIB:
        len = by_zlib(deflate, in, in_len);
        break;
    case BY_ZSTD:
        len = by_zstd(deflate, in, in_len);
        break;
    }
    if (len > room)
        return 0;
    memcpy(out, deflate->scratch, len);
    return len;
}
