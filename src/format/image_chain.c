/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image_chain.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_names.h"

/* ---- The end ---------------------------------------------------------------------------------- */

static void one_closed(struct image_chain *chain)
{
    if (--chain->closing > 0)
        return;
    chain->ended = true;
    chain->image->done(chain->image, -chain->image->error.code);
}

static void closed(struct blk_task *task)
{
    one_closed(task->opaque);
}

static void close_one(struct image_chain *chain, struct blk_dev **dev, struct blk_task *task)
{
    if (!*dev)
        return;
    chain->closing++;
    *task = (struct blk_task){.done = closed, .opaque = chain};
    blk_close(*dev, task);
    *dev = NULL;
}

/* With image->error. Nothing is under way. */
static void fail(struct image_chain *chain)
{
    assert(chain->closing == 0 && chain->image->error.code != 0);
    chain->closing = 1;
    close_one(chain, &chain->built, &chain->task);
    for (unsigned i = 0; i < chain->count; i++) {
        struct chain_layer *layer = chain->layers[i];

        close_one(chain, &layer->file, &layer->task);
        close_one(chain, &layer->data, &layer->data_task);
    }
    one_closed(chain);
}

/* `what` of the layer above has led here, and that is told too. */
static void fail_with(struct chain_layer *layer, const struct blk_error *error, const char *what)
{
    struct image_chain *chain = layer->chain;
    struct image *image = chain->image;

    image->error = *error;
    if (chain->cancelled)
        blk_error_set(&image->error, ECANCELED, "opening %s: cancelled", image->args.url->text);
    else if (what)
        blk_error_prefix(&image->error, "%s of %s", what, layer->url->text);
    else if (layer->depth > 0)
        blk_error_prefix(&image->error, "backing file of %s",
                         chain->layers[layer->depth - 1]->url->text);
    fail(chain);
}

/* The sentence says what is wrong with the layer's image. */
static void refuse(struct chain_layer *layer, struct blk_error *error)
{
    blk_error_prefix(error, "opening %s", layer->url->text);
    fail_with(layer, error, NULL);
}

/* What was under way when all was cancelled may have ended well. */
static bool end_if_cancelled(struct chain_layer *layer)
{
    struct blk_error error = {.code = ECANCELED};

    if (layer->chain->cancelled)
        fail_with(layer, &error, NULL);
    return layer->chain->cancelled;
}

static void out_of_memory(struct image_chain *chain)
{
    blk_error_set(&chain->image->error, ENOMEM, "opening %s: out of memory",
                  chain->image->args.url->text);
    fail(chain);
}

/* ---- Building --------------------------------------------------------------------------------- */

static void build(struct image_chain *chain, unsigned depth);

static void was_built(struct image_chain *chain)
{
    if (chain->building > 0) {
        build(chain, chain->building - 1);
        return;
    }
    chain->image->dev = chain->built;
    chain->ended = true;
    chain->image->done(chain->image, 0);
}

static void format_opened(struct blk_task *task)
{
    struct image_chain *chain = task->opaque;

    if (task->status < 0)
        fail_with(chain->layers[chain->building], &task->error, NULL);
    else
        was_built(chain);
}

static void build_qcow2(struct image_chain *chain, struct chain_layer *layer)
{
    struct qcow2_parts parts = {
        .name = layer->url->text,
        .header = layer->tables.header,
        .l1 = layer->tables.l1,
        .file = layer->file,
        .data = layer->data,
        .backing = chain->built,
    };
    struct blk_dev *dev;

    chain->task = (struct blk_task){.done = format_opened, .opaque = chain};
    dev = qcow2_open(chain->image->loop, &parts, &chain->task);
    if (!dev) {
        out_of_memory(chain);
        return;
    }
    layer->tables.parsed = false; /* what is in there is the device's now */
    layer->tables.l1 = NULL;
    layer->file = layer->data = NULL;
    chain->built = dev;
}

static void build(struct image_chain *chain, unsigned depth)
{
    struct chain_layer *layer = chain->layers[depth];

    if (end_if_cancelled(layer))
        return;
    chain->building = depth;
    if (layer->told.format != IMAGE_RAW) {
        build_qcow2(chain, layer);
        return;
    }
    chain->built = layer->file;
    layer->file = NULL;
    was_built(chain);
}

/* ---- What an image names ---------------------------------------------------------------------- */

static bool open_layer(struct image_chain *chain, enum image_format format);

static int resolve(struct chain_layer *layer, const char *name, const char *what, struct url *url,
                   struct blk_error *error)
{
    const struct image_name wanted = {
        .name = name,
        .what = what,
        .image = layer->url,
        .bare = layer->file->caps & BLK_BARE,
        .choice = &layer->chain->image->args.choice,
    };

    return image_name_resolve(&wanted, url, error);
}

static struct chain_layer *add_layer(struct image_chain *chain)
{
    struct chain_layer *layer = calloc(1, sizeof(*layer));

    if (!layer)
        return NULL;
    assert(chain->count < IMAGE_MAX_DEPTH);
    layer->chain = chain;
    layer->depth = chain->count;
    layer->url = layer->depth > 0 ? &layer->own_url : chain->image->args.url;
    chain->layers[chain->count++] = layer;
    return layer;
}

static int check_backing(struct chain_layer *layer, enum image_format *format,
                         struct blk_error *error)
{
    char quoted[IMAGE_QUOTE];

    *format = IMAGE_BY_NAME;
    if (layer->depth + 1 == IMAGE_MAX_DEPTH)
        return blk_error_set(error, ELOOP,
                             "it has a backing file too, and a chain of more than %d images is not "
                             "opened",
                             IMAGE_MAX_DEPTH);
    if (layer->backing_format && !image_format_parse(layer->backing_format, format))
        return blk_error_set(error, ENOTSUP,
                             "it says that its backing file is of the format %s; those that can be "
                             "read are raw, qcow2 and qcow",
                             image_quote(quoted, layer->backing_format));
    return 0;
}

static void go_down(struct chain_layer *layer)
{
    struct image_chain *chain = layer->chain;
    enum image_format format;
    struct blk_error error;
    struct url url;

    if (end_if_cancelled(layer))
        return;
    if (!layer->backing) {
        build(chain, layer->depth);
        return;
    }
    if (check_backing(layer, &format, &error) < 0) {
        refuse(layer, &error);
        return;
    }
    if (resolve(layer, layer->backing, "backing file", &url, &error) < 0) {
        url_release(&url);
        refuse(layer, &error);
        return;
    }
    layer = add_layer(chain);
    if (!layer) {
        url_release(&url);
        out_of_memory(chain);
        return;
    }
    layer->own_url = url;
    if (!open_layer(chain, format))
        out_of_memory(chain);
}

static void data_opened(struct blk_task *task)
{
    struct chain_layer *layer = task->opaque;
    struct blk_error error;

    if (task->status < 0) {
        fail_with(layer, &task->error, "data file");
        return;
    }
    layer->told.data = layer->data;
    if (layer->data->identity && layer->file->identity &&
        strcmp(layer->data->identity, layer->file->identity) == 0) {
        blk_error_set(&error, ELOOP, "it names itself as its data file");
        refuse(layer, &error);
        return;
    }
    go_down(layer);
}

static void open_data(struct chain_layer *layer)
{
    const struct image_args *args = &layer->chain->image->args;
    struct blk_open_args open = {
        .url = &layer->data_url,
        .settings = args->settings,
        .watcher = args->watcher,
    };
    struct blk_error error;

    if (end_if_cancelled(layer))
        return;
    if (resolve(layer, layer->data_file, "data file", &layer->data_url, &error) < 0) {
        refuse(layer, &error);
        return;
    }
    layer->data_task = (struct blk_task){.done = data_opened, .opaque = layer};
    layer->data = blk_open(layer->chain->image->loop, &open, &layer->data_task);
    if (!layer->data)
        out_of_memory(layer->chain);
}

/* ---- One image -------------------------------------------------------------------------------- */

static bool copy_text(const char *text, char **copy)
{
    *copy = text ? strdup(text) : NULL;
    return *copy || !text;
}

/* The header goes over to the device. */
static bool take_facts(struct chain_layer *layer)
{
    const struct qcow2_header *header = &layer->tables.header;

    if (!copy_text(header->backing, &layer->backing) ||
        !copy_text(header->backing_format, &layer->backing_format) ||
        !copy_text(header->data_file, &layer->data_file))
        return false;
    layer->told.size = header->size;
    layer->told.version = header->version;
    layer->told.cluster_size = UINT32_C(1) << header->cluster_bits;
    layer->told.compression = header->compression == QCOW2_ZSTD ? "zstd" : "zlib";
    layer->told.incompatible = header->incompatible;
    layer->told.compatible = header->compatible;
    layer->told.autoclear = header->autoclear;
    layer->told.snapshots = header->snapshot_count;
    layer->told.backing = layer->backing;
    layer->told.backing_format = layer->backing_format;
    layer->told.data_file = layer->data_file;
    return true;
}

static void tables_read(struct qcow2_tables *tables, int status)
{
    struct chain_layer *layer = tables->opaque;

    if (status < 0 && tables->error.whole) {
        fail_with(layer, &tables->error, NULL);
        return;
    }
    if (status < 0) {
        refuse(layer, &tables->error);
        return;
    }
    if (!take_facts(layer)) {
        out_of_memory(layer->chain);
        return;
    }
    layer->chain->l1_left -= tables->header.l1_entries * sizeof(uint64_t);
    if (!(tables->header.incompatible & QCOW2_DATA_FILE)) {
        go_down(layer);
    } else if (layer->data_file) {
        open_data(layer);
    } else {
        blk_error_set(&tables->error, EINVAL,
                      "its data lies in a file of its own, and it does not say in which");
        refuse(layer, &tables->error);
    }
}

static void read_tables(struct chain_layer *layer)
{
    const struct image_args *args = &layer->chain->image->args;

    layer->tables = (struct qcow2_tables){
        .file = layer->file,
        .qcow = layer->told.format == IMAGE_QCOW,
        .snapshot = layer->depth == 0 ? args->choice.snapshot : NULL,
        .max_l1 = layer->chain->l1_left,
        .done = tables_read,
        .opaque = layer,
    };
    qcow2_tables_read(&layer->tables);
}

static void refuse_assumed(struct chain_layer *layer)
{
    struct blk_error error;

    if (layer->depth == 0)
        blk_error_set(&error, EINVAL,
                      "it begins like a qcow2 image; -f qcow2 reads it as one, -f raw copies it as "
                      "it is");
    else
        blk_error_set(&error, EINVAL,
                      "it begins like a qcow2 image, and neither its name nor the image above says "
                      "that it is one; `qemu-img rebase -u -F qcow2' (or -F raw) says it there");
    refuse(layer, &error);
}

/* A head that cannot be read is no reason to refuse: what is wrong will show, or be salvaged. */
static void head_read(struct blk_req *req)
{
    struct chain_layer *layer = req->opaque;

    if (req->status == 0 && req->got == sizeof(layer->head) &&
        memcmp(layer->head, "QFI\xfb", sizeof(layer->head)) == 0)
        refuse_assumed(layer);
    else
        build(layer->chain, layer->depth);
}

static void take_raw(struct chain_layer *layer)
{
    struct blk_error error;

    layer->told.size = layer->file->size;
    if (layer->depth == 0 && layer->chain->image->args.choice.snapshot) {
        blk_error_set(&error, EINVAL,
                      "a raw image has no internal snapshots; with -f qcow2, -l names one of a "
                      "qcow2 image");
        refuse(layer, &error);
        return;
    }
    /* The start of a stream can be read twice. */
    if (!layer->assumed || layer->file->size < sizeof(layer->head)) {
        build(layer->chain, layer->depth);
        return;
    }
    layer->iov = (struct iovec){layer->head, sizeof(layer->head)};
    layer->req = (struct blk_req){
        .op = BLK_READ,
        .len = sizeof(layer->head),
        .iov = &layer->iov,
        .iovcnt = 1,
        .done = head_read,
        .opaque = layer,
    };
    blk_submit(layer->file, &layer->req);
}

/* Is it one of those above? Then there would be no end. */
static const struct chain_layer *same_above(const struct chain_layer *layer)
{
    for (unsigned i = 0; i < layer->depth; i++) {
        const struct chain_layer *above = layer->chain->layers[i];

        if (above->file->identity && layer->file->identity &&
            strcmp(above->file->identity, layer->file->identity) == 0)
            return above;
    }
    return NULL;
}

static void file_opened(struct blk_task *task)
{
    struct chain_layer *layer = task->opaque;
    const struct chain_layer *above;
    struct blk_error error;

    if (task->status < 0) {
        fail_with(layer, &task->error, NULL);
        return;
    }
    layer->told.file = layer->file;
    above = same_above(layer);
    if (above) {
        blk_error_set(&error, ELOOP,
                      "it is the same file as %s, which stands above it: such a chain has no end",
                      above->url->text);
        refuse(layer, &error);
    } else if (layer->told.format == IMAGE_RAW) {
        take_raw(layer);
    } else if (layer->file->size == BLK_SIZE_UNKNOWN) {
        blk_error_set(&error, ESPIPE,
                      "a %s image cannot be read from a stream, for its tables may lie behind the "
                      "data that they lead to; write it to a file first, or copy it as it is with "
                      "-f raw",
                      image_format_name(layer->told.format));
        refuse(layer, &error);
    } else {
        read_tables(layer);
    }
}

/* The last one that was added. False: out of memory. */
static bool open_layer(struct image_chain *chain, enum image_format format)
{
    struct chain_layer *layer = chain->layers[chain->count - 1];
    const struct image_args *args = &chain->image->args;
    struct blk_open_args open = {
        .url = layer->url,
        .session_id = layer->depth == 0 ? args->session_id : 0,
        .settings = args->settings,
        .watcher = args->watcher,
    };

    if (format == IMAGE_BY_NAME)
        format = image_format_of(layer->url);
    layer->assumed = format == IMAGE_BY_NAME;
    layer->told.format = layer->assumed ? IMAGE_RAW : format;
    layer->task = (struct blk_task){.done = file_opened, .opaque = layer};
    layer->file = blk_open(chain->image->loop, &open, &layer->task);
    return layer->file != NULL;
}

/* ---- From outside ----------------------------------------------------------------------------- */

bool image_chain_start(struct image_chain *chain, struct image *image)
{
    chain->image = image;
    chain->l1_left = IMAGE_MAX_L1;
    chain->ended = !add_layer(chain) || !open_layer(chain, image->args.choice.format);
    return !chain->ended;
}

void image_chain_cancel(struct image_chain *chain)
{
    if (chain->ended || chain->cancelled || chain->closing > 0)
        return;
    chain->cancelled = true;
    if (chain->built)
        blk_cancel_all(chain->built);
    for (unsigned i = 0; i < chain->count; i++) {
        if (chain->layers[i]->file)
            blk_cancel_all(chain->layers[i]->file);
        if (chain->layers[i]->data)
            blk_cancel_all(chain->layers[i]->data);
    }
}

static void free_layer(struct chain_layer *layer)
{
    assert(!layer->file && !layer->data);
    qcow2_tables_release(&layer->tables);
    url_release(&layer->own_url);
    url_release(&layer->data_url);
    free(layer->backing);
    free(layer->backing_format);
    free(layer->data_file);
    free(layer);
}

void image_chain_free(struct image_chain *chain)
{
    assert(chain->ended);
    for (unsigned i = 0; i < chain->count; i++)
        free_layer(chain->layers[i]);
    free(chain);
}
