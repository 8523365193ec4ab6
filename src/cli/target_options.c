/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the user says of the image that is made: the options that subcommands share. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "cli.h"

enum { OPT_COMPRESSION = 0x400 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "The image that is made:", 6},
    {NULL, 'O', "FMT", 0,
     "Its format: raw or qcow2 (qcow2 where the name of TARGET ends in .qcow2, otherwise raw)", 6},
    {NULL, 'o', "NAME=VALUE[,...]", 0,
     "Properties of a qcow2 image, as qemu-img has them: cluster_size (64k), compat (1.1, or "
     "0.10), "
     "compression_type (zlib or zstd), extended_l2 (on, or off), lazy_refcounts (on, or off), "
     "refcount_bits (16). May be given again",
     6},
    {NULL, 'c', NULL, 0, "Compress its clusters, where that makes them smaller", 6},
    {"compression", OPT_COMPRESSION, "METHOD[:LEVEL]", 0,
     "How (and -c): zstd, with a LEVEL from 1 to 19 (zstd:1), or zlib, with one from 1 to 9 "
     "(without "
     "one: "
     "by a faster encoder, whose files are a tenth larger than those of zlib:6). compat=0.10 knows "
     "zlib only",
     6},
    {NULL, 'B', "BASE", 0, "Its backing image: what BASE has already is left out", 6},
    {NULL, 'F', "FMT", 0, "Format of BASE: raw, qcow2 or qcow (by its name, as with -f)", 6},
    {0},
};

static const char *const methods[] = {[IMAGE_ZLIB] = "zlib", [IMAGE_ZSTD] = "zstd"};
static const unsigned levels[] = {[IMAGE_ZLIB] = 9, [IMAGE_ZSTD] = 19};

#define METHODS (sizeof(methods) / sizeof(methods[0]))

/* ---- -o --------------------------------------------------------------------------------------- */

/* `name` is what stands before '=', `value` what stands behind it. */
struct property {
    const char *name;
    void (*parse)(struct argp_state *state, struct target_options *target, const char *name,
                  const char *value);
};

static bool parse_switch(struct argp_state *state, const char *name, const char *value)
{
    bool on = strcmp(value, "on") == 0;

    if (!on && strcmp(value, "off") != 0)
        argp_error(state, "-o %s: \"%s\" is neither on nor off", name, value);
    return on;
}

static bool find_method(const char *text, size_t len, enum image_compression *method)
{
    for (unsigned i = 0; i < METHODS; i++) {
        if (strlen(methods[i]) == len && memcmp(methods[i], text, len) == 0) {
            *method = (enum image_compression)i;
            return true;
        }
    }
    return false;
}

static void parse_cluster_size(struct argp_state *state, struct target_options *target,
                               const char *name, const char *value)
{
    struct blk_error error;
    uint64_t size = 0;

    if (units_parse_size(value, &size, &error) < 0)
        argp_error(state, "-o %s: %s", name, error.text);
    /* What is 0 would be taken for the usual one. */
    if (size == 0 || size > UINT32_MAX)
        argp_error(state, "-o %s: %s is no power of two between 512 and 2M", name, value);
    target->layout.cluster_size = (uint32_t)size;
}

static void parse_compat(struct argp_state *state, struct target_options *target, const char *name,
                         const char *value)
{
    if (strcmp(value, "1.1") == 0 || strcmp(value, "v3") == 0)
        target->layout.version = 3;
    else if (strcmp(value, "0.10") == 0 || strcmp(value, "v2") == 0)
        target->layout.version = 2;
    else
        argp_error(state, "-o %s: \"%s\" is not known; 1.1 (or v3) and 0.10 (or v2) are", name,
                   value);
}

static void parse_type(struct argp_state *state, struct target_options *target, const char *name,
                       const char *value)
{
    if (!find_method(value, strlen(value), &target->type))
        argp_error(state, "-o %s: \"%s\" is not known; zlib and zstd are", name, value);
    target->type_said = true;
}

static void parse_extended(struct argp_state *state, struct target_options *target,
                           const char *name, const char *value)
{
    target->layout.extended_l2 = parse_switch(state, name, value);
}

static void parse_lazy(struct argp_state *state, struct target_options *target, const char *name,
                       const char *value)
{
    target->layout.lazy_refcounts = parse_switch(state, name, value);
}

static void parse_refcount_bits(struct argp_state *state, struct target_options *target,
                                const char *name, const char *value)
{
    char option[40];

    snprintf(option, sizeof(option), "-o %s", name);
    option_number(state, option, value, 1, 64, &target->layout.refcount_bits);
}

static const struct property properties[] = {
    {"cluster_size", parse_cluster_size}, {"compat", parse_compat},
    {"compression_type", parse_type},     {"extended_l2", parse_extended},
    {"lazy_refcounts", parse_lazy},       {"refcount_bits", parse_refcount_bits},
};

#define PROPERTIES (sizeof(properties) / sizeof(properties[0]))

static const struct property *find_property(const char *name)
{
    for (size_t i = 0; i < PROPERTIES; i++) {
        if (strcmp(properties[i].name, name) == 0)
            return &properties[i];
    }
    return NULL;
}

static void refuse_property(struct argp_state *state, const char *name)
{
    char known[200] = "";
    size_t len = 0;

    for (size_t i = 0; i < PROPERTIES; i++)
        len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", i == 0 ? "" : ", ",
                                properties[i].name);
    argp_error(state, "-o: \"%s\" is not known; these are: %s", name, known);
}

/* "NAME=VALUE"; as QEMU has it, NAME alone is NAME=on. */
static void parse_property(struct argp_state *state, struct target_options *target, char *text)
{
    char *value = strchr(text, '=');
    const struct property *property;

    if (value)
        *value++ = '\0';
    property = find_property(text);
    if (!property)
        refuse_property(state, text);
    else
        property->parse(state, target, text, value ? value : "on");
}

/* The argument itself stays as it is: it may be shown again. */
static void parse_properties(struct argp_state *state, struct target_options *target,
                             const char *arg)
{
    char *copy = strdup(arg), *rest = copy, *one;

    if (!copy) {
        argp_failure(state, EXIT_UNTOUCHED, ENOMEM, "-o");
        return;
    }
    while ((one = strsep(&rest, ",")))
        parse_property(state, target, one);
    free(copy);
    target->properties = arg;
}

/* ---- The others ------------------------------------------------------------------------------- */

static void parse_compression(struct argp_state *state, struct target_options *target,
                              const char *arg)
{
    size_t len = strcspn(arg, ":");
    unsigned level = 0;

    if (!find_method(arg, len, &target->method))
        argp_error(state, "--compression: \"%.*s\" is not known; zlib and zstd are", (int)len, arg);
    if (arg[len] == ':')
        option_number(state, "--compression", arg + len + 1, 1, levels[target->method], &level);
    target->method_said = true;
    target->layout.compress = true;
    target->layout.level = (int)level;
}

static void parse_format(struct argp_state *state, const char *arg, enum image_format *format)
{
    option_format(state, "-O", arg, format);
    if (*format == IMAGE_QCOW)
        argp_error(state, "-O: qcow images can only be read; raw and qcow2 are written");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct target_options *target = state->input;

    switch (key) {
    case 'O':
        parse_format(state, arg, &target->format);
        return 0;
    case 'o':
        parse_properties(state, target, arg);
        return 0;
    case 'c':
        target->layout.compress = true;
        return 0;
    case OPT_COMPRESSION:
        parse_compression(state, target, arg);
        return 0;
    case 'B':
        target->base = arg;
        return 0;
    case 'F':
        option_format(state, "-F", arg, &target->base_format);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp target_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

/* ---- All together ----------------------------------------------------------------------------- */

static bool choose_format(struct target_options *target, const struct url *url)
{
    enum image_format format = target->format;

    if (format == IMAGE_BY_NAME && url)
        format = image_format_of(url);
    if (format == IMAGE_QCOW) {
        say("target: %s: by its name it is to be a qcow image, which can only be read; -O raw or "
            "-O qcow2 writes another one under that name",
            url->text);
        return false;
    }
    target->layout.format = format == IMAGE_QCOW2 ? IMAGE_QCOW2 : IMAGE_RAW;
    return true;
}

/* zstd is the better one where it is known. */
static bool choose_compression(struct target_options *target)
{
    struct image_layout *layout = &target->layout;

    if (target->method_said && target->type_said && target->method != target->type) {
        say("-o compression_type=%s and --compression %s contradict each other",
            methods[target->type], methods[target->method]);
        return false;
    }
    if (target->method_said)
        layout->compression = target->method;
    else if (target->type_said)
        layout->compression = target->type;
    else if (layout->compress && layout->version != 2)
        layout->compression = IMAGE_ZSTD;
    return true;
}

bool target_options_complete(struct target_options *target, const struct url *url)
{
    struct image_layout *layout = &target->layout;
    struct blk_error error;

    if (!choose_format(target, url) || !choose_compression(target))
        return false;
    if (layout->format == IMAGE_RAW && target->properties) {
        say("-o %s: a raw image has no properties; -O qcow2 makes one that has",
            target->properties);
        return false;
    }
    layout->backing = target->base;
    if (target->base_format != IMAGE_BY_NAME)
        layout->backing_format = image_format_name(target->base_format);
    if (image_layout_complete(layout, &error) < 0) {
        say("%s", error.text);
        return false;
    }
    return true;
}
