/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parser of headers makes of an image that was made by hand. */
#ifndef LUNFERRY_TEST_QCOW2_OUTCOME_H
#define LUNFERRY_TEST_QCOW2_OUTCOME_H

#include "qcow2_make.h"

struct qcow2_outcome {
    int status;
    struct qcow2_header header; /* with status 0 to be freed */
    uint64_t need;
    struct blk_error error;
};

/* Of its first `len` bytes, in a buffer of just that size, so that a sanitizer sees who reads beyond. What is
 * promised of every outcome is checked. */
void qcow2_parse_part(const struct qcow2_make *make, size_t len, struct qcow2_outcome *out);
/* Of the whole file. */
void qcow2_parse(const struct qcow2_make *make, struct qcow2_outcome *out);
/* The same; it must be accepted. */
void qcow2_parse_sound(const struct qcow2_make *make, struct qcow2_outcome *out);

#endif
