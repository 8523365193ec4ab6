/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One copy job that takes digests, in the fake world: of a new file, or of a source that is copied to nowhere. */
#ifndef LUNFERRY_TEST_SUMS_H
#define LUNFERRY_TEST_SUMS_H

#include "schedule.h"

#include <lunferry/units.h>

#include "src/copy/digest_format.h"

#define SUMS_BLOCK ((uint64_t)DIGEST_DEFAULT_BLOCK)
#define SUMS_SIZE  (7 * SUMS_BLOCK - 512)

enum sums_kind { NEW_FILE, CHECKSUM };

struct sums {
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, lun;
    struct fake_end from, to, file;
    struct url nowhere;
    struct run run;
    struct digest *digest;
    enum sums_kind kind;
    bool restart;    /* before the first FLUSH */
    size_t log_then; /* of the directory's log, before the last answer that preceded a stop */
    unsigned told;
    uint64_t told_offset[8], told_len[8];
};

/* Copies seven blocks, of which the third is known to be zeros and the fifth turns out to be, and keeps their
 * digests in "sums". Options may be changed before run_job(). */
void sums_init(struct sums *sums, enum sums_kind kind);
void sums_release(struct sums *sums);
/* Instead of run_job(), with threads. */
void sums_run_lanes(struct sums *sums, unsigned lanes);

/* What the list of the source is, in such blocks. */
struct digest_list *sums_list(struct sums *sums, uint32_t block);
/* The digest file is there, and right. */
void sums_check_file(struct sums *sums);
/* All has gone well. */
void sums_check_good(struct sums *sums);
/* Nothing was changed; the error is this, and says so. */
void sums_check_refused(struct sums *sums, int code, const char *part);

#endif
