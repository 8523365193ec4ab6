/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the user says of images: the options that subcommands share. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { OPT_ALLOW_BACKING = 0x300 };

#define ALLOW_BACKING                                                                              \
    {                                                                                              \
        "allow-backing", OPT_ALLOW_BACKING, "PREFIX", 0,                                           \
            "An image may name backing and data files that begin with PREFIX: a path, a path "     \
            "relative to "                                                                         \
            "the image (../base) or a URL; `any': all. May be given again. Without it, only what " \
            "lies "                                                                                \
            "beneath the image's own directory is opened",                                         \
            5                                                                                      \
    }

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is in it:", 5},
    {NULL, 'f', "FMT", 0,
     "Format of what is read: raw, qcow2 or qcow (qcow2 where a name ends in .qcow2, qcow where it "
     "ends in .qcow, otherwise raw; never found out from the content)",
     5},
    {NULL, 'l', "SNAPSHOT", 0, "Read an internal snapshot of a qcow2 image, by its id or name", 5},
    ALLOW_BACKING,
    {0},
};

static const struct argp_option pair_options[] = {
    {NULL, 0, NULL, 0, "What is in them:", 5},
    {NULL, 'f', "FMT", 0,
     "Format of A: raw, qcow2 or qcow (qcow2 where a name ends in .qcow2, qcow where it ends in "
     ".qcow, otherwise raw; never found out from the content)",
     5},
    {NULL, 'F', "FMT", 0, "Format of B, likewise", 5},
    ALLOW_BACKING,
    {0},
};

void option_format(struct argp_state *state, const char *option, const char *arg,
                   enum image_format *format)
{
    if (!image_format_parse(arg, format))
        argp_error(state, "%s: \"%s\" is no format that is known; raw, qcow2 and qcow are", option,
                   arg);
}

/* What begins neither with a scheme nor with '/' is relative, and may be anything. */
static void allow(struct argp_state *state, struct image_options *images, const char *arg)
{
    const char **allowed =
        realloc(images->allowed, (images->allowed_count + 1) * sizeof(*images->allowed));
    struct blk_error error;
    struct url url;

    if (!allowed) {
        argp_failure(state, EXIT_UNTOUCHED, ENOMEM, "%s", arg);
        return;
    }
    if (url_parse(arg, &url, &error) < 0)
        argp_error(state, "--allow-backing: %s", error.text);
    url_release(&url);
    images->allowed = allowed;
    images->allowed[images->allowed_count++] = arg;
    for (size_t i = 0; i < sizeof(images->choices) / sizeof(images->choices[0]); i++) {
        images->choices[i].allowed = images->allowed;
        images->choices[i].allowed_count = images->allowed_count;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct image_options *images = state->input;

    switch (key) {
    case 'f':
        option_format(state, "-f", arg, &images->choices[0].format);
        return 0;
    case 'F':
        option_format(state, "-F", arg, &images->choices[1].format);
        return 0;
    case 'l':
        images->choices[0].snapshot = arg;
        return 0;
    case OPT_ALLOW_BACKING:
        allow(state, images, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp image_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};
const struct argp image_pair_argp = {pair_options, parse, NULL, NULL, NULL, NULL, NULL};

void image_options_release(struct image_options *images)
{
    free(images->allowed);
}
