/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream.h"

#include <errno.h>

struct objection {
    bool holds;
    const char *text;
};

static int first_of(const struct objection *objections, unsigned count, const char *name,
                    struct blk_error *error)
{
    for (unsigned i = 0; i < count; i++) {
        if (objections[i].holds)
            return blk_error_set(error, EINVAL, "%s is a stream: %s", name, objections[i].text);
    }
    return 0;
}

#define FIRST_OF(objections, name, error)                                                          \
    first_of(objections, sizeof(objections) / sizeof((objections)[0]), name, error)

int stream_check_source(const struct copy_options *options, const char *name,
                        struct blk_error *error)
{
    const struct objection objections[] = {
        {options->source_count > 1,
         "it is copied alone, and not with other sources (`cat' makes one stream of many)"},
        {options->source_len > 0, "it has no offsets, and --source-range names one"},
        {options->base || options->compare,
         "nothing is read beside it, and -B and --delta compare"},
        {image_layout_has_format(&options->layout),
         "an image of the format qcow2 says how large it is, and the end of a stream is not known; "
         "-O raw"},
        {options->zero_tail,
         "where it ends, and what lies behind that for --zero-tail, is not known before"},
        {options->lanes > 1, "it is read by one lane; leave out --lanes"},
        {options->dry_run, "--dry-run would have to use it up to tell how much it is"},
        {options->digests != COPY_DIGESTS_NONE,
         "how many digests it has is not known before its end; `lunferry checksum' takes those of "
         "the copy"},
        {options->resume, "what was read of it is gone, so that --resume cannot go on with it"},
    };

    return FIRST_OF(objections, name, error);
}

int stream_check_target(const struct copy_options *options, const char *name,
                        struct blk_error *error)
{
    const struct objection objections[] = {
        {image_layout_has_format(&options->layout),
         "a qcow2 image cannot be written to it, since its header, which comes first, is written "
         "last; -O raw"},
        {options->compare, "it holds nothing that --delta could compare with"},
        {options->target_offset > 0, "it has no offsets, and --target-offset names one"},
        {options->in_place, "-n is for files that are there already"},
        {options->zero_tail, "nothing lies behind it that --zero-tail could zero"},
        {options->discard, "it holds nothing that --discard could unmap"},
        {options->target_is_zero, "it holds no zeros, as --target-is-zero would have it"},
        {options->lanes > 1, "it is written by one lane; leave out --lanes"},
        {options->verify, "what was written to it cannot be read back; leave out --verify"},
        {options->reserve, "--reserve is for LUNs"},
        {options->dry_run, "the answer of --dry-run goes to stdout itself"},
        {options->resume, "what was written to it is gone, so that --resume cannot go on with it"},
    };

    return FIRST_OF(objections, name, error);
}
