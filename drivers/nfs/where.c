/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "where.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/units.h>

const struct url_option nfs_options[] = {
    {"version", "3: the NFS version, and the only one there is"},
    {"nfsport", "N: the NFS server's TCP port, instead of asking rpcbind"},
    {"mountport", "N: the TCP port of MOUNT version 3, instead of asking rpcbind"},
    {"uid", "N: the user id to act as (the process's own)"},
    {"gid", "N: the group id to act as (the process's own)"},
    {"gids", "N,N,...: up to 16 further group ids (the process's own, if no uid or gid is given)"},
    {NULL, NULL},
};

static int parse_version(const struct url *url, struct blk_error *error)
{
    const char *version = url_param(url, "version");

    if (!version || strcmp(version, "3") == 0)
        return 0;
    if (strcmp(version, "4") == 0 || strncmp(version, "4.", 2) == 0)
        return blk_error_set(error, EINVAL,
                             "version=4 is not possible: libnfs does not renew an NFSv4 lease or "
                             "recover its state, and in common versions cannot write; use NFSv3 "
                             "(leave the option out)");
    return blk_error_set(error, EINVAL, "version=%s is not possible, only version=3", version);
}

static int parse_ports(const struct url *url, struct nfs_where *where, struct blk_error *error)
{
    uint64_t nfs, mount;
    uint16_t in_host = url->hosts[0].port;

    if (url_param_number(url, "nfsport", 1, UINT16_MAX, in_host, &nfs, error) < 0 ||
        url_param_number(url, "mountport", 1, UINT16_MAX, 0, &mount, error) < 0)
        return -error->code;
    if (in_host && nfs != in_host)
        return blk_error_set(error, EINVAL, "port %u beside the host and nfsport=%u contradict",
                             in_host, (unsigned)nfs);
    where->nfs_port = (uint16_t)nfs;
    where->mount_port = (uint16_t)mount;
    return 0;
}

static int parse_gids(const char *text, struct shim_credentials *credentials,
                      struct blk_error *error)
{
    char number[16];

    while (*text) {
        size_t len = strcspn(text, ",");
        uint64_t gid;

        if (credentials->gid_count == SHIM_MAX_GIDS)
            return blk_error_set(error, EINVAL, "gids: AUTH_SYS carries at most %d groups",
                                 SHIM_MAX_GIDS);
        if (len >= sizeof(number))
            return blk_error_set(error, EINVAL, "gids: not a list of group ids: \"%s\"", text);
        memcpy(number, text, len);
        number[len] = '\0';
        if (units_parse_number(number, 0, UINT32_MAX, &gid, error) < 0) {
            blk_error_prefix(error, "gids");
            return -error->code;
        }
        credentials->gids[credentials->gid_count++] = (uint32_t)gid;
        text += len;
        if (*text == ',')
            text++;
    }
    return 0;
}

/* As the kernel's client does it: who runs lunferry has the rights of all of his groups. */
static void own_groups(struct shim_credentials *credentials)
{
    int count = getgroups(0, NULL);
    gid_t *all = count > 0 ? calloc((size_t)count, sizeof(*all)) : NULL;

    if (all)
        count = getgroups(count, all);
    for (int i = 0; all && i < count && credentials->gid_count < SHIM_MAX_GIDS; i++) {
        if (all[i] != credentials->gid)
            credentials->gids[credentials->gid_count++] = all[i];
    }
    free(all);
}

static int parse_credentials(const struct url *url, struct shim_credentials *credentials,
                             struct blk_error *error)
{
    const char *gids = url_param(url, "gids");
    uint64_t uid, gid;

    if (url_param_number(url, "uid", 0, UINT32_MAX, geteuid(), &uid, error) < 0 ||
        url_param_number(url, "gid", 0, UINT32_MAX, getegid(), &gid, error) < 0)
        return -error->code;
    credentials->uid = (uint32_t)uid;
    credentials->gid = (uint32_t)gid;
    credentials->gid_count = 0;
    if (gids)
        return parse_gids(gids, credentials, error);
    if (!url_param(url, "uid") && !url_param(url, "gid"))
        own_groups(credentials);
    return 0;
}

/* Copies the path's components, each with a '/' before it, without "." and empty ones. Returns how
 * many there are, or -EINVAL. */
static int normalise(const char *path, char *out, struct blk_error *error)
{
    int count = 0;

    while (*path) {
        size_t len = strcspn(path, "/");

        if (len == 2 && memcmp(path, "..", 2) == 0)
            return blk_error_set(error, EINVAL, "the path must not contain \"..\"");
        if (len > 255)
            return blk_error_set(error, ENAMETOOLONG,
                                 "a part of the path is longer than 255 bytes");
        if (len > 0 && !(len == 1 && *path == '.')) {
            *out++ = '/';
            memcpy(out, path, len);
            out += len;
            count++;
        }
        path += len;
        if (*path)
            path++;
    }
    *out = '\0';
    return count;
}

static int parse_path(const struct url *url, struct nfs_where *where, struct blk_error *error)
{
    const char *path = url->path ? url->path : "";
    size_t len = strlen(path);
    char *last;
    int count;

    if (len > 1 && path[len - 1] == '/')
        return blk_error_set(error, EINVAL,
                             "the path must name a file, not a directory (it ends in '/')");
    /* MNTPATHLEN, RFC 1813 5.1.2 */
    if (len > 1024)
        return blk_error_set(error, ENAMETOOLONG, "the path is longer than 1024 bytes");
    where->directory = malloc(len + 2);
    if (!where->directory)
        return blk_error_set(error, ENOMEM, "out of memory");
    count = normalise(path, where->directory, error);
    if (count < 0)
        return -error->code;
    if (count == 0 || (count == 1 && strncmp(path, "//", 2) != 0))
        return blk_error_set(error, EINVAL,
                             "the path must name an exported directory and a file in it: "
                             "nfs://host/export/file (where \"/\" itself is exported: "
                             "nfs://host//file)");
    last = strrchr(where->directory, '/');
    where->file = strdup(last + 1);
    if (!where->file)
        return blk_error_set(error, ENOMEM, "out of memory");
    if (last == where->directory)
        last++;
    *last = '\0';
    return 0;
}

int nfs_where_parse(const struct url *url, struct nfs_where *where, struct blk_error *error)
{
    struct blk_error ignored;
    int status;

    if (!error)
        error = &ignored;
    memset(where, 0, sizeof(*where));
    if (url->host_count != 1 || !url->hosts[0].host[0])
        return blk_error_set(error, EINVAL, "an nfs:// URL names one host");
    if (url->user || url->password)
        return blk_error_set(error, EINVAL,
                             "NFS knows no user names or passwords; use uid=N and gid=N");
    where->host = url->hosts[0].host;
    status = parse_version(url, error);
    if (status == 0)
        status = parse_ports(url, where, error);
    if (status == 0)
        status = parse_credentials(url, &where->credentials, error);
    if (status == 0)
        status = parse_path(url, where, error);
    return status;
}

void nfs_where_release(struct nfs_where *where)
{
    free(where->directory);
    free(where->file);
    where->directory = where->file = NULL;
}

int nfs_check(const struct url *url, struct blk_error *error)
{
    struct nfs_where where;
    int status = nfs_where_parse(url, &where, error);

    nfs_where_release(&where);
    return status;
}
