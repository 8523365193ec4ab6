/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A digest file: a digest list, and which file it stands for. docs/digests.md has it byte by byte.
 *
 * It is written and read in pieces of any length, so that nobody has to hold all of it. What is read may
 * come from anyone: nothing of it is believed before its last bytes, a digest of all before, are right.
 */
#ifndef LUNFERRY_DIGEST_FORMAT_H
#define LUNFERRY_DIGEST_FORMAT_H

#include <lunferry/block.h>

#include "digest_list.h"

#define DIGEST_HEADER       84     /* bytes before the identity */
#define DIGEST_MAX_IDENTITY 65535u /* bytes */

/* The file that a list stands for, as it was then. The ctime is not part of it: it changes with the
 * name. */
struct digest_subject {
    const char *identity; /* blk_dev.identity; not "" */
    uint64_t size;        /* bytes of the file, or of all files of an image */
    int64_t mtime_ns;
};

/* May a list stand for it? It has to have an identity and an mtime, which alone shows that it has
 * changed. 0, or -ENOTSUP with the sentence. */
int digest_subject_of(struct digest_subject *subject, const struct blk_dev *dev,
                      const struct blk_stamp *stamp, struct blk_error *error);

/* ---- Writing ---------------------------------------------------------------------------------- */

struct digest_encoder {
    const struct digest_list *list;
    struct digest *digest; /* of what has been written so far */
    struct digest_cursor cursor;
    enum { DIGEST_ENCODE_HEADER, DIGEST_ENCODE_LIST, DIGEST_ENCODE_END, DIGEST_ENCODE_OVER } state;
    unsigned char *piece; /* what comes next: [at, len) */
    size_t at, len;
};

/* The list is complete, and outlives the encoder; so does the digest, which is nobody else's meanwhile.
 * 0 or -ENOMEM; released in either case. */
int digest_encode_init(struct digest_encoder *encoder, const struct digest_list *list,
                       const struct digest_subject *subject, struct digest *digest);
void digest_encode_release(struct digest_encoder *encoder);
/* The next bytes of the file: as many as there is room for, or all that is left. */
size_t digest_encode(struct digest_encoder *encoder, void *buf, size_t room);

/* ---- Reading ---------------------------------------------------------------------------------- */

struct digest_decoder {
    struct digest *digest;
    struct digest_list *list;
    struct digest_subject subject;
    uint8_t root[DIGEST_SIZE];
    enum {
        DIGEST_DECODE_HEADER,
        DIGEST_DECODE_IDENTITY,
        DIGEST_DECODE_RUN,
        DIGEST_DECODE_DIGEST,
        DIGEST_DECODE_END,
        DIGEST_DECODE_OVER
    } state;
    unsigned char *piece; /* what has come of the next part */
    size_t have, want;
    uint64_t index, run_end; /* blocks */
    bool zeros, any;         /* the last run; there was one */
    char *identity;
};

/* Does a file that begins with these bytes claim to be one? */
bool digest_is_file(const void *bytes, size_t len);

/* 0 or -ENOMEM; released in either case. The digest as above. */
int digest_decode_init(struct digest_decoder *decoder, struct digest *digest);
void digest_decode_release(struct digest_decoder *decoder);
/* The next bytes of the file. 0, or -EBADMSG (no digest file, a damaged one, or of another version)
 * or -ENOMEM, with the sentence; then that was all. */
int digest_decode(struct digest_decoder *decoder, const void *bytes, size_t len,
                  struct blk_error *error);
/* It has no more. 0, or -EBADMSG. From here on the decoder's list, subject and root are good; the list
 * is the caller's, the rest the decoder's. */
int digest_decode_end(struct digest_decoder *decoder, struct digest_list **list,
                      struct blk_error *error);

/* Does what was read stand for this subject, of an image of `size` bytes that is called `name`? 0, or
 * -ESTALE with the sentence. */
int digest_check_subject(const struct digest_list *list, const struct digest_subject *stands_for,
                         const struct digest_subject *subject, uint64_t size, const char *name,
                         struct blk_error *error);

#endif
