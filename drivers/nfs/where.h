/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a file is and as whom to ask for it: what an nfs:// URL says, checked and taken apart.
 *
 *   nfs://host[:port]/export/path/file[?nfsport=N&mountport=N&uid=N&gid=N&gids=N,N&version=3]
 */
#ifndef LUNFERRY_NFS_WHERE_H
#define LUNFERRY_NFS_WHERE_H

#include <lunferry/url.h>

#include "shim.h"

extern const struct url_option nfs_options[];

struct nfs_where {
    const char *host;              /* borrowed from the URL */
    uint16_t nfs_port, mount_port; /* 0: ask rpcbind */
    struct shim_credentials credentials;
    char *directory; /* "/export/path": absolute, without "." and empty components */
    char *file;      /* its last component */
};

/* The URL outlives *where. Returns 0 or -errno; *where is to be released in either case. */
int nfs_where_parse(const struct url *url, struct nfs_where *where, struct blk_error *error);
void nfs_where_release(struct nfs_where *where);

/* The driver's check hook. */
int nfs_check(const struct url *url, struct blk_error *error);

#endif
