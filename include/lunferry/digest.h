/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SHA-256 (FIPS 180-4).
 *
 * A digest is a context that is made once and used for one message after the other: one lane hashes
 * many chunks, and OpenSSL allocates and looks its algorithm up only in digest_new(). It belongs to
 * one thread at a time; different digests are independent of each other.
 *
 * digest_begin() starts a message and forgets an unfinished one, digest_add() may follow any number
 * of times with any lengths, digest_end() gives the result; after it comes digest_begin() again.
 */
#ifndef LUNFERRY_DIGEST_H
#define LUNFERRY_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include <lunferry/error.h>

#define DIGEST_SIZE 32                    /* bytes */
#define DIGEST_TEXT (2 * DIGEST_SIZE + 1) /* as hexadecimal digits, with the final NUL */

struct digest;

/* NULL: out of memory, or the library refuses to serve, with the sentence in *error. */
struct digest *digest_new(struct blk_error *error);
/* NULL is fine. */
void digest_free(struct digest *digest);

void digest_begin(struct digest *digest);
void digest_add(struct digest *digest, const void *bytes, size_t len);
void digest_end(struct digest *digest, uint8_t result[DIGEST_SIZE]);

/* All three for a message that is in one piece. */
void digest_of(struct digest *digest, const void *bytes, size_t len, uint8_t result[DIGEST_SIZE]);

/* Lower-case hexadecimal digits, as sha256sum prints them. Returns text. */
const char *digest_text(char text[DIGEST_TEXT], const uint8_t result[DIGEST_SIZE]);
/* The way back; either case. 0, or -EINVAL where `text` is not DIGEST_TEXT - 1 such digits. */
int digest_parse(const char *text, uint8_t result[DIGEST_SIZE]);

#endif
