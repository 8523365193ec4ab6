/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "status.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "shim.h"

struct meaning {
    int status;
    int code;
    enum blk_retry retry;
    const char *word, *phrase;
};

static const struct meaning meanings[] = {
    {NFS3ERR_PERM, EPERM, BLK_FATAL, "NFS3ERR_PERM", "the server does not permit it"},
    {NFS3ERR_NOENT, ENOENT, BLK_FATAL, "NFS3ERR_NOENT", "no such file or directory"},
    {NFS3ERR_IO, EIO, BLK_FATAL, "NFS3ERR_IO", "a disk error on the server"},
    {NFS3ERR_NXIO, ENXIO, BLK_FATAL, "NFS3ERR_NXIO", "no such device on the server"},
    {NFS3ERR_ACCES, EACCES, BLK_FATAL, "NFS3ERR_ACCES", "permission denied by the server"},
    {NFS3ERR_EXIST, EEXIST, BLK_FATAL, "NFS3ERR_EXIST", "the name is taken"},
    {NFS3ERR_XDEV, EXDEV, BLK_FATAL, "NFS3ERR_XDEV", "the names are on different filesystems"},
    {NFS3ERR_NODEV, ENODEV, BLK_FATAL, "NFS3ERR_NODEV", "no such device on the server"},
    {NFS3ERR_NOTDIR, ENOTDIR, BLK_FATAL, "NFS3ERR_NOTDIR", "not a directory"},
    {NFS3ERR_ISDIR, EISDIR, BLK_FATAL, "NFS3ERR_ISDIR", "it is a directory"},
    {NFS3ERR_INVAL, EINVAL, BLK_FATAL, "NFS3ERR_INVAL", "the server calls it invalid"},
    {NFS3ERR_FBIG, EFBIG, BLK_FATAL, "NFS3ERR_FBIG",
     "larger than a file may be on the server's filesystem"},
    {NFS3ERR_NOSPC, ENOSPC, BLK_FATAL, "NFS3ERR_NOSPC", "no space left on the server's filesystem"},
    {NFS3ERR_ROFS, EROFS, BLK_FATAL, "NFS3ERR_ROFS", "the export is read-only"},
    {NFS3ERR_MLINK, EMLINK, BLK_FATAL, "NFS3ERR_MLINK", "too many hard links"},
    {NFS3ERR_NAMETOOLONG, ENAMETOOLONG, BLK_FATAL, "NFS3ERR_NAMETOOLONG", "the name is too long"},
    {NFS3ERR_NOTEMPTY, ENOTEMPTY, BLK_FATAL, "NFS3ERR_NOTEMPTY", "the directory is not empty"},
    {NFS3ERR_DQUOT, EDQUOT, BLK_FATAL, "NFS3ERR_DQUOT", "the disk quota on the server is used up"},
    {NFS3ERR_STALE, ESTALE, BLK_FATAL, "NFS3ERR_STALE",
     "the file is gone: it was removed, or its filesystem is no longer exported"},
    {NFS3ERR_REMOTE, EREMOTE, BLK_FATAL, "NFS3ERR_REMOTE", "it is on yet another server"},
    {NFS3ERR_BADHANDLE, ESTALE, BLK_FATAL, "NFS3ERR_BADHANDLE",
     "the server does not know its own file handle any more"},
    {NFS3ERR_NOT_SYNC, EINVAL, BLK_FATAL, "NFS3ERR_NOT_SYNC",
     "the file's attributes were changed meanwhile"},
    {NFS3ERR_BAD_COOKIE, EINVAL, BLK_FATAL, "NFS3ERR_BAD_COOKIE",
     "the directory changed while it was read"},
    {NFS3ERR_NOTSUPP, ENOTSUP, BLK_FATAL, "NFS3ERR_NOTSUPP", "the server does not support it"},
    {NFS3ERR_TOOSMALL, EINVAL, BLK_FATAL, "NFS3ERR_TOOSMALL",
     "the server wants a larger buffer for its answer"},
    {NFS3ERR_SERVERFAULT, EIO, BLK_FATAL, "NFS3ERR_SERVERFAULT",
     "a fault in the server (its log may say which)"},
    {NFS3ERR_BADTYPE, EINVAL, BLK_FATAL, "NFS3ERR_BADTYPE",
     "the server does not support this type of file"},
    {NFS3ERR_JUKEBOX, EAGAIN, BLK_REPEAT, "NFS3ERR_JUKEBOX", "the server asks to try again later"},
    /* Of version 4 (RFC 8881 15.1), for servers that let it slip; there it is what JUKEBOX is here. */
    {10013, EAGAIN, BLK_REPEAT, "NFS4ERR_GRACE", "the server is in its grace period"},
};

static const struct meaning mount_meanings[] = {
    {1, EPERM, BLK_FATAL, "MNT3ERR_PERM", "the server does not permit it"},
    {2, ENOENT, BLK_FATAL, "MNT3ERR_NOENT", "no such directory on the server"},
    {5, EIO, BLK_FATAL, "MNT3ERR_IO", "a disk error on the server"},
    {13, EACCES, BLK_FATAL, "MNT3ERR_ACCES", "it is not exported to this client"},
    {20, ENOTDIR, BLK_FATAL, "MNT3ERR_NOTDIR", "not a directory on the server"},
    {22, EINVAL, BLK_FATAL, "MNT3ERR_INVAL", "the server calls the path invalid"},
    {63, ENAMETOOLONG, BLK_FATAL, "MNT3ERR_NAMETOOLONG", "the path is too long"},
    {10004, ENOTSUP, BLK_FATAL, "MNT3ERR_NOTSUPP", "the server does not support it"},
    {10006, EIO, BLK_FATAL, "MNT3ERR_SERVERFAULT", "a fault in the server (its log may say which)"},
};

static int set(struct blk_error *error, const struct meaning *table, size_t count, int status,
               const char *protocol)
{
    for (size_t i = 0; i < count; i++) {
        if (table[i].status == status)
            return blk_error_set_retry(error, table[i].code, table[i].retry, "%s: %s",
                                       table[i].word, table[i].phrase);
    }
    return blk_error_set(error, EIO,
                         "the server answered with %s status %d, which is not in RFC 1813",
                         protocol, status);
}

int nfs_status_error(struct blk_error *error, int status)
{
    return set(error, meanings, sizeof(meanings) / sizeof(meanings[0]), status, "NFS");
}

int nfs_mount_error(struct blk_error *error, int status)
{
    return set(error, mount_meanings, sizeof(mount_meanings) / sizeof(mount_meanings[0]), status,
               "MOUNT");
}

void nfs_recovery_class(struct blk_error *error)
{
    error->retry = error->code == ESTALE ? BLK_FATAL : BLK_LOST;
}

bool nfs_status_is_refusal(int status)
{
    return status == NFS3ERR_PERM || status == NFS3ERR_ACCES;
}

enum nfs_refusal nfs_refusal_of(const char *words)
{
    /* The same in all versions of the library. */
    static const struct {
        const char *part;
        enum nfs_refusal refusal;
    } known[] = {
        {"Program not available", NFS_REFUSAL_PROGRAM},
        {"version mismatch", NFS_REFUSAL_PROGRAM},
        {"Procedure not available", NFS_REFUSAL_PROCEDURE},
        {"Garbage arguments", NFS_REFUSAL_ARGUMENTS},
        {"System Error", NFS_REFUSAL_SYSTEM},
        {"not accepted", NFS_REFUSAL_DENIED},
        {"rejected by server", NFS_REFUSAL_GARBLED},
    };

    for (size_t i = 0; words && i < sizeof(known) / sizeof(known[0]); i++) {
        if (strstr(words, known[i].part))
            return known[i].refusal;
    }
    return NFS_REFUSAL_OTHER;
}

int nfs_refusal_error(struct blk_error *error, enum nfs_refusal refusal, const char *program_name,
                      unsigned port)
{
    switch (refusal) {
    case NFS_REFUSAL_PROGRAM:
        return blk_error_set(error, EPROTONOSUPPORT, "the server does not speak %s on port %u",
                             program_name, port);
    case NFS_REFUSAL_PROCEDURE:
        return blk_error_set(error, ENOTSUP, "the server lacks this procedure of %s", program_name);
    case NFS_REFUSAL_ARGUMENTS:
        return blk_error_set(error, EPROTO,
                             "the server cannot decode the request (GARBAGE_ARGS, RFC 5531)");
    case NFS_REFUSAL_SYSTEM:
        return blk_error_set_retry(error, EIO, BLK_REPEAT,
                                   "the server answered SYSTEM_ERR (RFC 5531)");
    case NFS_REFUSAL_DENIED:
        return blk_error_set(error, EACCES,
                             "the server denies our AUTH_SYS credentials (MSG_DENIED, RFC 5531)");
    case NFS_REFUSAL_GARBLED:
    case NFS_REFUSAL_OTHER:
        break;
    }
    return blk_error_set(error, EPROTO, "the server's answer is no proper reply of %s",
                         program_name);
}

int nfs_connect_error(struct blk_error *error, int code, const char *address, unsigned port,
                      const char *hint)
{
    bool refused = code == ECONNREFUSED;

    return blk_error_set_retry(error, code, BLK_LOST, "connecting to %s port %u: %s%s%s", address,
                               port, strerror(code), refused ? "; " : "", refused ? hint : "");
}

static int lost_code(int hint, int fd)
{
    char byte;
    ssize_t got;

    switch (hint) {
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
    case ENOMEM:
    case ENOBUFS:
        return hint;
    default:
        break;
    }
    got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 || hint == EPIPE)
        return EPIPE;
    /* What is no RPC reply makes the library give up without reading on. */
    return got > 0 || errno == EAGAIN ? EPROTO : errno;
}

int nfs_lost_error(struct blk_error *error, int hint, int fd, const char *address, unsigned port,
                   const char *program_name)
{
    int code = lost_code(hint, fd);

    if (code == EPIPE || code == ECONNRESET)
        return blk_error_set_retry(error, ECONNRESET, BLK_LOST,
                                   "the connection to %s port %u was %s by the server", address,
                                   port, code == EPIPE ? "closed" : "reset");
    if (code == EPROTO)
        return blk_error_set_retry(error, EPROTO, BLK_LOST,
                                   "what came from %s port %u is no reply of %s", address, port,
                                   program_name);
    return blk_error_set_retry(error, code, BLK_LOST, "the connection to %s port %u broke: %s",
                               address, port, strerror(code));
}
