/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sizes of a raw file and of a qcow2 one: the header, L1 and L2 tables, refcounts, and the clusters. */
#include <lunferry/measure.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include <lunferry/units.h>

#include "qcow2.h"

#define ENTRY_SIZE                                                                                 \
    8u /* bytes of an entry in the L1 and the refcount table, and usually in an L2 table */

/* Clusters of an image of which all is allocated. */
struct clusters {
    uint64_t data, l2, l1, refcounts, reftable;
};

static uint64_t div_round_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

/* Refcounts count the clusters that they lie in, too: more of them are added until there are enough. */
static void count_refcounts(const struct image_layout *layout, struct clusters *clusters)
{
    uint64_t per_block = UINT64_C(8) * layout->cluster_size / layout->refcount_bits, last;
    uint64_t others = 1 + clusters->data + clusters->l2 + clusters->l1;

    do {
        last = clusters->refcounts + clusters->reftable;
        clusters->refcounts = div_round_up(others + last, per_block);
        clusters->reftable = div_round_up(clusters->refcounts, layout->cluster_size / ENTRY_SIZE);
    } while (clusters->refcounts + clusters->reftable != last);
}

static void count(const struct image_layout *layout, uint64_t size, struct clusters *clusters)
{
    unsigned entry_size = layout->extended_l2 ? 2 * ENTRY_SIZE : ENTRY_SIZE;

    *clusters = (struct clusters){.data = div_round_up(size, layout->cluster_size)};
    clusters->l2 = div_round_up(clusters->data, layout->cluster_size / entry_size);
    clusters->l1 = div_round_up(clusters->l2, layout->cluster_size / ENTRY_SIZE);
    count_refcounts(layout, clusters);
}

/* As qemu-img has it. A refcount table that is too long comes only with what is really allocated. */
static int check(const struct image_layout *layout, uint64_t size, struct blk_error *error)
{
    struct clusters clusters;

    count(layout, size, &clusters);
    if (clusters.l2 * ENTRY_SIZE > QCOW2_MAX_L1)
        return blk_error_set(error, EFBIG,
                             "an image of %" PRIu64 " bytes in clusters of %u would need an L1 "
                             "table of more than 32 MiB; a larger -o cluster_size makes it smaller",
                             size, layout->cluster_size);
    return 0;
}

int measure_start(struct measure *measure, const struct image_layout *layout, uint64_t size,
                  struct blk_error *error)
{
    *measure = (struct measure){.layout = *layout, .size = size};
    return layout->format == IMAGE_QCOW2 ? check(layout, size, error) : 0;
}

void measure_data(struct measure *measure, uint64_t offset, uint64_t len)
{
    uint64_t cluster = measure->layout.cluster_size, from, end;

    assert(len > 0 && offset <= measure->size && len <= measure->size - offset);
    if (measure->layout.format != IMAGE_QCOW2)
        return;
    from = round_down(offset, cluster);
    end = round_up(offset + len, cluster);
    /* The run before may have ended in the same one. */
    if (from < measure->end)
        from = measure->end;
    measure->data += end - from;
    measure->end = end;
}

void measure_end(const struct measure *measure, struct measure_result *result)
{
    const struct image_layout *layout = &measure->layout;
    struct clusters all;
    uint64_t metadata;

    if (layout->format != IMAGE_QCOW2) {
        *result = (struct measure_result){measure->size, measure->size};
        return;
    }
    count(layout, measure->size, &all);
    metadata = (1 + all.l2 + all.l1 + all.refcounts + all.reftable) * layout->cluster_size;
    result->fully_allocated = metadata + all.data * layout->cluster_size;
    result->required = metadata + measure->data;
    /* Zeros that hide what is in a backing image are data: version 2 has no zero clusters. */
    if (layout->backing && layout->version == 2)
        result->required = result->fully_allocated;
}
