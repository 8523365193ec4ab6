/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors: a number for the program and a sentence for the person.
 *
 * Every operation that can fail reports a struct blk_error of its own, because thirty-two requests
 * may fail at once and each for a different reason. The sentence is made in layers, each of which
 * adds what only it knows:
 *
 *   driver   what the server said, in the protocol's own word:  "NFS3ERR_NOSPC: no space left"
 *   middle   the operation, the endpoint (secrets redacted) and the offset
 *   engine   which side of the copy it was
 *
 * Only src/cli prints one.
 */
#ifndef LUNFERRY_ERROR_H
#define LUNFERRY_ERROR_H

#include <stdbool.h>

/* Whether the same operation could succeed later. The driver knows and says so; only the middle
 * acts on it (src/block/retry.c). */
enum blk_retry {
    BLK_FATAL,   /* no: repeating it would give the same answer */
    BLK_MEDIUM,  /* no: the medium has lost what is there (MEDIUM ERROR; NFS3ERR_IO of a READ) */
    BLK_AGAIN,   /* yes, at once: the answer was about something else (SCSI UNIT ATTENTION) */
    BLK_REPEAT,  /* yes, after a delay (NFS3ERR_JUKEBOX, SCSI BUSY) */
    BLK_RECHECK, /* yes, once the device has been looked at again: it may be another one */
    BLK_LOST,    /* yes, on a new session: the connection is gone, the outcome unknown */
};

struct blk_error {
    int code; /* positive errno; 0 = no error */
    enum blk_retry retry;
    char text[400]; /* one sentence without a final full stop; "" when code is 0 */
    bool whole;     /* the sentence says already what was done to which endpoint: what is made of
                       devices passes it on as it is */
};

/* Fills *error (which may be NULL) and returns -code, so that `return blk_error_set(...)` reads
 * naturally. code is positive. Longer texts are cut. The arguments may include error->text. */
int blk_error_set(struct blk_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, for a failure that is worth repeating. */
int blk_error_set_retry(struct blk_error *error, int code, enum blk_retry retry, const char *format,
                        ...) __attribute__((format(printf, 4, 5)));

/* Puts words in front of the sentence that is there: "text" becomes "<words>: text". */
void blk_error_prefix(struct blk_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void blk_error_clear(struct blk_error *error);

#endif
