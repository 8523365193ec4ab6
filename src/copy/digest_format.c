/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "digest_format.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

static const char magic[8] = "LUNFDIGS";

/* Where the fields of the header are. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_LENGTH = 12,
    AT_FLAGS = 16,
    AT_BLOCK = 20,
    AT_SIZE = 24,
    AT_FILE_SIZE = 32,
    AT_MTIME = 40,
    AT_ROOT = 48,
    AT_IDENTITY = 80,
};

static uint32_t get_32(const unsigned char *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    return be32toh(value);
}

static uint64_t get_64(const unsigned char *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, sizeof(value));
    return be64toh(value);
}

static void put_32(unsigned char *bytes, uint32_t value)
{
    value = htobe32(value);
    memcpy(bytes, &value, sizeof(value));
}

static void put_64(unsigned char *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof(value));
}

/* ---- Subjects --------------------------------------------------------------------------------- */

int digest_subject_of(struct digest_subject *subject, const struct blk_dev *dev,
                      const struct blk_stamp *stamp, struct blk_error *error)
{
    if (!dev->identity || dev->identity[0] == '\0' || strlen(dev->identity) > DIGEST_MAX_IDENTITY)
        return blk_error_set(error, ENOTSUP,
                             "%s: digests are kept of files, and this cannot be told from others "
                             "of its kind",
                             dev->name);
    if (stamp->mtime_ns == 0)
        return blk_error_set(error, ENOTSUP,
                             "%s: digests are kept of files, whose times show that they have not "
                             "changed; this has none",
                             dev->name);
    *subject = (struct digest_subject){dev->identity, stamp->size, stamp->mtime_ns};
    return 0;
}

int digest_check_subject(const struct digest_list *list, const struct digest_subject *stands_for,
                         const struct digest_subject *subject, uint64_t size, const char *name,
                         struct blk_error *error)
{
    if (strcmp(stands_for->identity, subject->identity) != 0)
        return blk_error_set(error, ESTALE,
                             "these are the digests of another file (%.120s) than %s (%.120s)",
                             stands_for->identity, name, subject->identity);
    if (digest_list_size(list) != size)
        return blk_error_set(error, ESTALE,
                             "these are the digests of an image of %" PRIu64
                             " bytes, and %s has %" PRIu64,
                             digest_list_size(list), name, size);
    if (stands_for->size != subject->size)
        return blk_error_set(error, ESTALE,
                             "%s has changed since these digests were taken: its size was %" PRIu64
                             " bytes and is %" PRIu64,
                             name, stands_for->size, subject->size);
    if (stands_for->mtime_ns != subject->mtime_ns)
        return blk_error_set(error, ESTALE,
                             "%s has changed since these digests were taken: it was written to "
                             "(its mtime is another)",
                             name);
    return 0;
}

/* ---- Writing ---------------------------------------------------------------------------------- */

int digest_encode_init(struct digest_encoder *encoder, const struct digest_list *list,
                       const struct digest_subject *subject, struct digest *digest)
{
    size_t identity = strlen(subject->identity);
    unsigned char *header = malloc(DIGEST_HEADER + identity);

    assert(identity > 0 && identity <= DIGEST_MAX_IDENTITY && digest_list_complete(list));
    *encoder = (struct digest_encoder){
        .list = list, .digest = digest, .piece = header, .len = DIGEST_HEADER + identity};
    if (!header)
        return -ENOMEM;
    memcpy(header + AT_MAGIC, magic, sizeof(magic));
    put_32(header + AT_VERSION, VERSION);
    put_32(header + AT_LENGTH, (uint32_t)encoder->len);
    put_32(header + AT_FLAGS, 0);
    put_32(header + AT_BLOCK, digest_list_block(list));
    put_64(header + AT_SIZE, digest_list_size(list));
    put_64(header + AT_FILE_SIZE, subject->size);
    put_64(header + AT_MTIME, (uint64_t)subject->mtime_ns);
    digest_list_root(list, digest, header + AT_ROOT);
    put_32(header + AT_IDENTITY, (uint32_t)identity);
    memcpy(header + DIGEST_HEADER, subject->identity, identity);
    digest_begin(digest);
    digest_add(digest, header, encoder->len);
    return 0;
}

void digest_encode_release(struct digest_encoder *encoder)
{
    free(encoder->piece);
    encoder->piece = NULL;
}

/* False: all has been. */
static bool next_piece(struct digest_encoder *encoder)
{
    encoder->at = encoder->len = 0;
    if (encoder->state == DIGEST_ENCODE_HEADER)
        encoder->state = DIGEST_ENCODE_LIST;
    if (encoder->state == DIGEST_ENCODE_LIST) {
        encoder->len = digest_list_next(encoder->list, &encoder->cursor, encoder->piece);
        if (encoder->len > 0)
            digest_add(encoder->digest, encoder->piece, encoder->len);
        else
            encoder->state = DIGEST_ENCODE_END;
    }
    if (encoder->state == DIGEST_ENCODE_END) {
        digest_end(encoder->digest, encoder->piece);
        encoder->len = DIGEST_SIZE;
        encoder->state = DIGEST_ENCODE_OVER;
    }
    return encoder->len > 0;
}

size_t digest_encode(struct digest_encoder *encoder, void *buf, size_t room)
{
    size_t done = 0;

    while (done < room) {
        size_t part = encoder->len - encoder->at;

        if (part == 0) {
            if (!next_piece(encoder))
                break;
            continue;
        }
        part = part < room - done ? part : room - done;
        memcpy((unsigned char *)buf + done, encoder->piece + encoder->at, part);
        encoder->at += part;
        done += part;
    }
    return done;
}

/* ---- Reading ---------------------------------------------------------------------------------- */

bool digest_is_file(const void *bytes, size_t len)
{
    return len >= sizeof(magic) && memcmp(bytes, magic, sizeof(magic)) == 0;
}

int digest_decode_init(struct digest_decoder *decoder, struct digest *digest)
{
    *decoder = (struct digest_decoder){.digest = digest, .want = DIGEST_HEADER};
    decoder->piece = malloc(DIGEST_HEADER + DIGEST_MAX_IDENTITY);
    digest_begin(digest);
    return decoder->piece ? 0 : -ENOMEM;
}

void digest_decode_release(struct digest_decoder *decoder)
{
    digest_list_free(decoder->list);
    decoder->list = NULL;
    free(decoder->piece);
    decoder->piece = NULL;
    free(decoder->identity);
    decoder->identity = NULL;
}

static int refuse(struct blk_error *error, const char *text)
{
    return blk_error_set(error, EBADMSG, "%s", text);
}

static int take_header(struct digest_decoder *decoder, struct blk_error *error)
{
    const unsigned char *header = decoder->piece;
    uint32_t identity = get_32(header + AT_IDENTITY), block = get_32(header + AT_BLOCK);
    uint64_t size = get_64(header + AT_SIZE);

    if (!digest_is_file(header, DIGEST_HEADER))
        return refuse(error, "this is no digest file of lunferry's");
    if (get_32(header + AT_VERSION) != VERSION)
        return blk_error_set(error, EBADMSG,
                             "the digest file is of version %" PRIu32
                             ", and this lunferry knows version %d",
                             get_32(header + AT_VERSION), VERSION);
    if (get_32(header + AT_FLAGS) != 0)
        return blk_error_set(error, EBADMSG,
                             "the digest file has flags (%#" PRIx32
                             ") that this lunferry does not know",
                             get_32(header + AT_FLAGS));
    if (identity == 0 || identity > DIGEST_MAX_IDENTITY ||
        get_32(header + AT_LENGTH) != DIGEST_HEADER + identity)
        return refuse(error, "the digest file is damaged: its header has an impossible length");
    if (!digest_block_fits(size, block))
        return blk_error_set(error, EBADMSG,
                             "the digest file is damaged: blocks of %" PRIu32
                             " bytes, in an image of %" PRIu64 ", are not possible",
                             block, size);
    decoder->subject.size = get_64(header + AT_FILE_SIZE);
    decoder->subject.mtime_ns = (int64_t)get_64(header + AT_MTIME);
    memcpy(decoder->root, header + AT_ROOT, DIGEST_SIZE);
    decoder->list = digest_list_new(size, block);
    if (!decoder->list)
        return blk_error_set(error, ENOMEM, "no memory for the digests");
    decoder->state = DIGEST_DECODE_IDENTITY;
    decoder->want = identity;
    return 0;
}

/* It is quoted in messages. */
static int take_identity(struct digest_decoder *decoder, struct blk_error *error)
{
    for (size_t i = 0; i < decoder->want; i++) {
        if (decoder->piece[i] < 0x20 || decoder->piece[i] == 0x7f)
            return refuse(error, "the digest file is damaged: it names its file in no text");
    }
    decoder->identity = strndup((const char *)decoder->piece, decoder->want);
    if (!decoder->identity)
        return blk_error_set(error, ENOMEM, "out of memory");
    decoder->subject.identity = decoder->identity;
    decoder->state = DIGEST_DECODE_RUN;
    decoder->want = sizeof(uint64_t);
    return 0;
}

/* What follows a run, or a digest of one. */
static void after_run(struct digest_decoder *decoder)
{
    bool more = decoder->index < digest_list_blocks(decoder->list);

    decoder->state = more ? DIGEST_DECODE_RUN : DIGEST_DECODE_END;
    decoder->want = more ? sizeof(uint64_t) : DIGEST_SIZE;
}

static int take_run(struct digest_decoder *decoder, struct blk_error *error)
{
    uint64_t word = get_64(decoder->piece), count = word & ~DIGEST_ZERO_RUN;
    uint64_t left = digest_list_blocks(decoder->list) - decoder->index;
    uint32_t block = digest_list_block(decoder->list);
    bool zeros = (word & DIGEST_ZERO_RUN) != 0;

    if (count == 0 || count > left || (decoder->any && zeros == decoder->zeros))
        return refuse(error, "the digest file is damaged: its blocks do not make up the image");
    decoder->any = true;
    decoder->zeros = zeros;
    decoder->run_end = decoder->index + count;
    if (zeros) {
        uint64_t from = decoder->index * block;
        uint64_t end = count == left ? digest_list_size(decoder->list) : decoder->run_end * block;

        digest_list_take_zeros(decoder->list, from, end - from);
        decoder->index = decoder->run_end;
        after_run(decoder);
        return 0;
    }
    decoder->state = DIGEST_DECODE_DIGEST;
    decoder->want = DIGEST_SIZE;
    return 0;
}

static void take_digest(struct digest_decoder *decoder)
{
    digest_list_set(decoder->list, decoder->index++, decoder->piece);
    if (decoder->index == decoder->run_end)
        after_run(decoder);
}

static int take_end(struct digest_decoder *decoder, struct blk_error *error)
{
    uint8_t result[DIGEST_SIZE], root[DIGEST_SIZE];

    digest_end(decoder->digest, result);
    if (memcmp(result, decoder->piece, DIGEST_SIZE) != 0)
        return refuse(error, "the digest file is damaged: its own checksum is wrong");
    digest_list_root(decoder->list, decoder->digest, root);
    if (memcmp(root, decoder->root, DIGEST_SIZE) != 0)
        return refuse(error, "the digest file contradicts itself: the digest of the whole is not "
                             "that of its blocks");
    decoder->state = DIGEST_DECODE_OVER;
    decoder->want = 0;
    return 0;
}

/* All of the next part has come. */
static int take_piece(struct digest_decoder *decoder, struct blk_error *error)
{
    if (decoder->state < DIGEST_DECODE_END)
        digest_add(decoder->digest, decoder->piece, decoder->want);
    decoder->have = 0;
    switch (decoder->state) {
    case DIGEST_DECODE_HEADER:
        return take_header(decoder, error);
    case DIGEST_DECODE_IDENTITY:
        return take_identity(decoder, error);
    case DIGEST_DECODE_RUN:
        return take_run(decoder, error);
    case DIGEST_DECODE_DIGEST:
        take_digest(decoder);
        return 0;
    case DIGEST_DECODE_END:
        return take_end(decoder, error);
    case DIGEST_DECODE_OVER:
        break;
    }
    return refuse(error, "the digest file goes on behind its end");
}

int digest_decode(struct digest_decoder *decoder, const void *bytes, size_t len,
                  struct blk_error *error)
{
    const unsigned char *from = bytes;

    while (len > 0) {
        size_t part = decoder->want - decoder->have;
        int status = 0;

        part = part < len ? part : len;
        memcpy(decoder->piece + decoder->have, from, part);
        decoder->have += part;
        from += part;
        len -= part;
        if (decoder->have == decoder->want)
            status = take_piece(decoder, error);
        if (status < 0)
            return status;
    }
    return 0;
}

int digest_decode_end(struct digest_decoder *decoder, struct digest_list **list,
                      struct blk_error *error)
{
    if (decoder->state != DIGEST_DECODE_OVER)
        return refuse(error, "the digest file is cut off: it ends before its end");
    *list = decoder->list;
    decoder->list = NULL;
    return 0;
}
