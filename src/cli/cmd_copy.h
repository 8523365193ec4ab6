/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of `lunferry copy` share: copy_options.c (what the user wants), cmd_copy.c (the run),
 * copy_report.c (what came of it). */
#ifndef LUNFERRY_CMD_COPY_H
#define LUNFERRY_CMD_COPY_H

#include <stdio.h>

#include "cli.h"

struct copy_command {
    struct run run;
    const char **texts; /* the endpoints as arguments, the target last */
    unsigned text_count;
    struct url *urls; /* of them */
    struct copy_options options;
    struct image_options images;
    struct target_options target;
    struct url base;     /* where -B leads; zeros: nowhere */
    char *base_recorded; /* as the image will name it; NULL: it does not */
    bool chunk_said;     /* --request-size */
    bool any_order;
    const char *digests_text; /* of --digests; NULL: none */
    struct url digest_file;
    const char *base_digests_text; /* of --base-digests; NULL: none */
    struct url base_digests;
    char **argv; /* for the command that resumes */
    const char *bad_blocks_path;
    FILE *bad_blocks;
    struct copy_job *job;
    struct loop_timer patience; /* after the second signal */
    int signal;                 /* the first one that came; 0: none */
    unsigned signal_count;
};

/* Its input is a struct copy_command *. */
extern const struct argp copy_argp;

/* Says how it ended. Returns the exit status. */
int copy_report(const struct copy_command *command, const struct copy_result *result);

#endif
