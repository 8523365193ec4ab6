/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `lunferry info` says: the facts of each image of a chain and of what it lies in, as lines for people or
 * as an object for programs. Both are made of the same facts, by one function each for what an image is
 * (show_format) and for where it lies (the driver's blk_describe). */
#include "info_report.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "cli.h"
#include "json_text.h"

struct output {
    struct blk_report report;
    json_t *object; /* NULL: lines are printed */
};

/* ---- Facts ------------------------------------------------------------------------------------ */

static void print_line(const char *label, const char *value)
{
    char text[512];

    snprintf(text, sizeof(text), "%s", value);
    make_printable(text);
    printf("%-22s %s\n", label, text);
}

/* "4096 bytes (4.00 KiB)" is a number for programs; so is what is counted, but not a serial number, even
 * if it has digits only. */
static json_t *json_value(const char *key, const char *value)
{
    static const char *const counted[] = {"lun", "logical-block-size"};
    char *end;
    unsigned long long number;

    if (!isdigit((unsigned char)value[0]))
        return json_text(value);
    errno = 0;
    number = strtoull(value, &end, 10);
    if (errno != 0 || number > INT64_MAX)
        return json_text(value);
    if (strcmp(end, " bytes") == 0 || strncmp(end, " bytes (", 8) == 0)
        return json_integer((json_int_t)number);
    for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]) && *end == '\0'; i++) {
        if (strcmp(key, counted[i]) == 0)
            return json_integer((json_int_t)number);
    }
    return json_text(value);
}

static void take_fact(struct blk_report *report, const char *key, const char *label,
                      const char *value)
{
    struct output *output = container_of(report, struct output, report);

    if (!output->object)
        print_line(label, value);
    else if (strcmp(key, "used") == 0) /* as the other drivers call it */
        json_object_set_new(output->object, "allocated", json_value(key, value));
    else
        json_object_set_new(output->object, key, json_value(key, value));
}

static void show_text(struct output *output, const char *key, const char *label, const char *value)
{
    if (output->object)
        json_object_set_new(output->object, key, json_text(value));
    else
        print_line(label, value);
}

static void show_number(struct output *output, const char *key, const char *label, uint64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    if (output->object)
        json_object_set_new(output->object, key, json_integer((json_int_t)number));
    else
        print_line(label, text);
}

static void show_bytes(struct output *output, const char *key, const char *label, uint64_t bytes)
{
    char text[64], size[UNITS_TEXT];

    snprintf(text, sizeof(text), "%" PRIu64 " bytes (%s)", bytes, units_size(size, bytes));
    if (output->object)
        json_object_set_new(output->object, key, json_integer((json_int_t)bytes));
    else
        print_line(label, text);
}

/* ---- Feature bits ----------------------------------------------------------------------------- */

static const char *const incompatible[] = {"dirty", "corrupt", "data-file", "compression-type",
                                           "extended-l2"};
static const char *const compatible[] = {"lazy-refcounts"};
static const char *const autoclear[] = {"bitmaps", "raw-data-file"};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *bit_name(char buf[16], unsigned bit, const char *const *names, size_t count)
{
    if (bit < count)
        return names[bit];
    snprintf(buf, 16, "bit-%u", bit);
    return buf;
}

static void show_bits(struct output *output, const char *key, const char *label, uint64_t bits,
                      const char *const *names, size_t count)
{
    json_t *array = output->object ? json_array() : NULL;
    char text[400] = "none", buf[16];
    size_t at = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        const char *name = bit_name(buf, bit, names, count);

        if (!(bits >> bit & 1))
            continue;
        if (array)
            json_array_append_new(array, json_string(name));
        else if (at < sizeof(text))
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? ", " : "", name);
    }
    if (output->object)
        json_object_set_new(output->object, key, array);
    else
        print_line(label, text);
}

/* ---- Images ----------------------------------------------------------------------------------- */

static void show_format(struct output *output, const struct image_layer *layer)
{
    show_text(output, "format", "format", image_format_name(layer->format));
    if (layer->size != BLK_SIZE_UNKNOWN)
        show_bytes(output, "virtual-size", "virtual size", layer->size);
    if (layer->format == IMAGE_RAW)
        return;
    show_number(output, "version", "version", layer->version);
    show_bytes(output, "cluster-size", "cluster size", layer->cluster_size);
    show_text(output, "compression", "compression", layer->compression);
    show_bits(output, "incompatible-features", "incompatible features", layer->incompatible,
              incompatible, COUNT(incompatible));
    show_bits(output, "compatible-features", "compatible features", layer->compatible, compatible,
              COUNT(compatible));
    show_bits(output, "autoclear-features", "autoclear features", layer->autoclear, autoclear,
              COUNT(autoclear));
    show_number(output, "snapshots", "internal snapshots", layer->snapshots);
    if (layer->backing)
        show_text(output, "backing-file", "backing file", layer->backing);
    if (layer->backing_format)
        show_text(output, "backing-format", "backing format", layer->backing_format);
    if (layer->data_file)
        show_text(output, "data-file", "data file", layer->data_file);
}

static void describe(struct output *output, const struct blk_dev *dev)
{
    blk_describe((struct blk_dev *)(uintptr_t)dev, &output->report);
}

static void print_layers(const struct image *image)
{
    struct output output = {.report.fact = take_fact};
    const struct image_layer *layer;

    for (unsigned depth = 0; (layer = image_layer(image, depth)); depth++) {
        if (depth > 0)
            printf("\nbacking image, depth %u:\n", depth);
        describe(&output, layer->file);
        show_format(&output, layer);
        if (layer->data) {
            printf("\ndata file of %s:\n", depth > 0 ? "this backing image" : "the image");
            describe(&output, layer->data);
        }
    }
}

/* Of one image, and what it lies in. NULL: out of memory. */
static json_t *json_layer(const struct image_layer *layer)
{
    struct output output = {.report.fact = take_fact, .object = json_object()};
    struct output data = {.report.fact = take_fact};

    if (!output.object)
        return NULL;
    describe(&output, layer->file);
    show_format(&output, layer);
    if (layer->data) {
        data.object = json_object();
        if (data.object)
            describe(&data, layer->data);
        json_object_set_new(output.object, "data", data.object);
    }
    return output.object;
}

/* From the last one up. */
static json_t *json_chain(const struct image *image)
{
    json_t *below = NULL;
    unsigned depth = 0;

    while (image_layer(image, depth))
        depth++;
    while (depth-- > 0) {
        json_t *object = json_layer(image_layer(image, depth));

        if (below)
            json_object_set_new(object, "backing", below); /* or frees it, without an object */
        below = object;
        if (!object)
            return NULL;
    }
    return below;
}

int info_report(const struct image *image, bool json)
{
    json_t *object;
    int error = 0;

    if (!json) {
        print_layers(image);
        return 0;
    }
    errno = 0;
    object = json_chain(image);
    if (!object)
        return ENOMEM;
    if (json_dumpf(object, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF)
        error = errno ? errno : EIO;
    json_decref(object);
    return error;
}
