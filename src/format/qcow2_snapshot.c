/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The snapshot table, and L1 tables: pure functions over bytes of strangers. */
#include "qcow2_checks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define MAX_EXTRA 1024u /* bytes of extra data; QEMU's limit */

/* ---- The snapshot table ----------------------------------------------------------------------- */

struct snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t size; /* of the disk */
    const unsigned char *id, *name;
    uint16_t id_len, name_len;
};

struct table {
    const struct qcow2_header *header;
    const unsigned char *bytes;
    size_t len;
    struct blk_error *error;
    size_t position; /* of the next entry */
    uint32_t number; /* of the next entry, from 1 */
};

/* The next entry. False: there is a sentence (EINVAL). */
static bool next_snapshot(struct table *table, struct snapshot *snapshot)
{
    const unsigned char *at = table->bytes + table->position;
    size_t left = table->len - table->position, len = QCOW2_SNAPSHOT_ENTRY;
    uint32_t extra = 0;

    if (left >= len) {
        extra = qcow2_get32(at + 36);
        if (extra > MAX_EXTRA) {
            blk_error_set(table->error, EINVAL,
                          "its snapshot %" PRIu32 " of %" PRIu32 " has %" PRIu32
                          " bytes of extra data; the most is %u",
                          table->number, table->header->snapshot_count, extra, MAX_EXTRA);
            return false;
        }
        *snapshot = (struct snapshot){
            .l1_offset = qcow2_get64(at),
            .l1_entries = qcow2_get32(at + 8),
            .id_len = qcow2_get16(at + 12),
            .name_len = qcow2_get16(at + 14),
            .id = at + len + extra,
        };
        len += extra + snapshot->id_len + snapshot->name_len;
    }
    if (left < len) {
        blk_error_set(table->error, EINVAL,
                      "its snapshot table is cut off, or goes on for too long: of snapshot %" PRIu32
                      " of %" PRIu32 " not all is within the %zu bytes that it can have",
                      table->number, table->header->snapshot_count, table->len);
        return false;
    }
    snapshot->name = snapshot->id + snapshot->id_len;
    /* Images of version 2 may do without. */
    snapshot->size = extra >= 16 ? qcow2_get64(at + 48) : table->header->size;
    /* The padding of the last one may be missing. */
    table->position += min_u64(round_up(len, 8), left);
    table->number++;
    return true;
}

static struct table first_entry(const struct qcow2_header *header, const unsigned char *bytes,
                                size_t len, struct blk_error *error)
{
    return (struct table){header, bytes, len, error, 0, 1};
}

static bool same(const unsigned char *bytes, size_t len, const char *wanted)
{
    return len == strlen(wanted) && memcmp(bytes, wanted, len) == 0;
}

/* ---- Choosing --------------------------------------------------------------------------------- */

/* "1" (yesterday), "2" (today): as many as find room, of a table that is sound. */
static int refuse_unknown(struct table table, const char *wanted)
{
    char list[256] = "", quoted[QCOW2_QUOTE], id[QCOW2_QUOTE], name[QCOW2_QUOTE];
    struct snapshot snapshot;
    size_t used = 0;

    qcow2_quote(quoted, (const unsigned char *)wanted, strlen(wanted));
    if (table.header->snapshot_count == 0)
        return blk_error_set(table.error, ENOENT,
                             "it has no internal snapshot \"%s\", and no others either", quoted);
    while (table.number <= table.header->snapshot_count) {
        uint32_t left = table.header->snapshot_count - table.number + 1;
        char one[2 * QCOW2_QUOTE + 16];
        int len;

        if (!next_snapshot(&table, &snapshot))
            return -EINVAL;
        len = snprintf(one, sizeof(one), "%s\"%s\" (id %s)", used ? ", " : "",
                       qcow2_quote(name, snapshot.name, snapshot.name_len),
                       qcow2_quote(id, snapshot.id, snapshot.id_len));
        /* Room for the words of the other branch. */
        if (used + (size_t)len + 24 > sizeof(list)) {
            snprintf(list + used, sizeof(list) - used, " and %" PRIu32 " more", left);
            break;
        }
        memcpy(list + used, one, (size_t)len + 1);
        used += (size_t)len;
    }
    return blk_error_set(table.error, ENOENT, "it has no internal snapshot \"%s\"; there %s %s",
                         quoted, table.header->snapshot_count == 1 ? "is" : "are", list);
}

/* Reads all of the table, so that it is sound whichever was wanted, and where it ends is known. */
static int find(struct table *table, const char *wanted, struct snapshot *found)
{
    struct snapshot snapshot, by_name = {0};
    struct table start = *table;
    uint32_t ids = 0, names = 0;
    char quoted[QCOW2_QUOTE];

    while (table->number <= table->header->snapshot_count) {
        if (!next_snapshot(table, &snapshot))
            return -EINVAL;
        if (same(snapshot.id, snapshot.id_len, wanted)) {
            *found = snapshot;
            ids++;
        }
        if (same(snapshot.name, snapshot.name_len, wanted)) {
            by_name = snapshot;
            names++;
        }
    }
    if (ids + names == 0)
        return refuse_unknown(start, wanted);
    if (ids == 0)
        *found = by_name;
    if (ids > 1 || (ids == 0 && names > 1))
        return blk_error_set(table->error, EINVAL,
                             "%" PRIu32 " of its internal snapshots have the %s \"%s\"%s",
                             ids ? ids : names, ids ? "id" : "name",
                             qcow2_quote(quoted, (const unsigned char *)wanted, strlen(wanted)),
                             ids ? "" : "; name one by its id");
    return 0;
}

/* The header as it is with the snapshot in place of the state now. */
static int check_snapshot(const struct qcow2_header *header, uint64_t table_len, uint64_t file_size,
                          struct blk_error *error)
{
    static const char what[] = "snapshot's L1 table";
    struct qcow2_table tables[] = {
        {what, header->l1_offset, UINT64_C(8) * header->l1_entries},
        {"snapshot table", header->snapshot_offset, table_len},
        {"refcount table", header->refcount_offset,
         (uint64_t)header->refcount_clusters << header->cluster_bits},
    };
    int status;

    if (header->size > INT64_MAX)
        return blk_error_set(error, EINVAL,
                             "its snapshot's disk has %" PRIu64 " bytes; the most is %" PRId64,
                             header->size, INT64_MAX);
    status = qcow2_l1_check_place(header, what, file_size, error);
    return status < 0 ? status : qcow2_tables_check_apart(tables, COUNT(tables), error);
}

int qcow2_snapshot_select(struct qcow2_header *header, const unsigned char *table, size_t len,
                          uint64_t file_size, const char *wanted, struct blk_error *error)
{
    struct table entries = first_entry(header, table, len, error);
    struct qcow2_header selected = *header;
    struct snapshot snapshot = {0};
    int status;

    /* There are none in such an image: all of it lies at its place in the data file. */
    if (header->snapshot_count > 0 && (header->incompatible & QCOW2_DATA_FILE))
        return blk_error_set(
            error, EINVAL, "its data is in a data file, and so it can have no internal snapshots");
    status = find(&entries, wanted, &snapshot);
    if (status < 0)
        return status;
    selected.l1_offset = snapshot.l1_offset;
    selected.l1_entries = snapshot.l1_entries;
    selected.size = snapshot.size;
    status = check_snapshot(&selected, entries.position, file_size, error);
    if (status < 0)
        return status;
    *header = selected;
    return 0;
}

/* ---- L1 tables -------------------------------------------------------------------------------- */

#define L1_OFFSET UINT64_C(0x00fffffffffffe00)
#define L1_COPIED (UINT64_C(1) << 63)

/* `entry` is not 0. */
static int check_entry(const struct qcow2_header *header, uint64_t entry, uint64_t file_size,
                       struct blk_error *error)
{
    uint64_t cluster_size = UINT64_C(1) << header->cluster_bits;
    struct qcow2_table tables[] = {
        {"L2 table", entry, UINT64_C(8) << header->l2_bits},
        {"header", 0, header->version == 1 ? QCOW2_HEADER_V1 : cluster_size},
        {"L1 table", header->l1_offset, UINT64_C(8) * header->l1_entries},
        {"refcount table", header->refcount_offset, header->refcount_clusters * cluster_size},
        {"snapshot table", header->snapshot_offset,
         UINT64_C(1) * header->snapshot_count * QCOW2_SNAPSHOT_ENTRY},
    };
    int status = 0;

    if (header->version > 1) {
        if (entry & ~(L1_OFFSET | L1_COPIED))
            return blk_error_set(error, EINVAL,
                                 "bits 0 to 8 and 56 to 62 of it are reserved, and have to be 0");
        tables[0].offset = entry & L1_OFFSET;
        if (tables[0].offset == 0)
            return 0;
        tables[0].len = cluster_size;
        status = qcow2_table_check_start(header, &tables[0], error);
    }
    if (status == 0)
        status = qcow2_table_check_end(&tables[0], file_size, error);
    return status < 0 ? status : qcow2_tables_check_apart(tables, COUNT(tables), error);
}

int qcow2_l1_check(const struct qcow2_header *header, const unsigned char *table,
                   uint64_t file_size, struct blk_error *error)
{
    for (uint32_t i = 0; i < header->l1_entries; i++) {
        uint64_t entry = qcow2_get64(table + 8 * (size_t)i);
        int status = entry ? check_entry(header, entry, file_size, error) : 0;

        if (status < 0 && error != NULL)
            blk_error_prefix(error, "entry %" PRIu32 " of its L1 table is 0x%016" PRIx64, i, entry);
        if (status < 0)
            return status;
    }
    return 0;
}
