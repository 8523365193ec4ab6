/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libnfs as this driver sees it. The only place that knows how the library's versions differ: 4 and
 * 5 have one set of signatures, 6 and later (LIBNFS_API_V2) another. Everything else in drivers/nfs
 * calls the library through here, and uses its XDR types, which are the same everywhere.
 *
 * Only the raw calls are used: the high-level ones blur error codes, ignore the write verifier and
 * hide file handles. The library's own recovery is off: no reconnect, no timeouts. Both have been
 * seen to deliver wrong data, or to write it.
 */
#ifndef LUNFERRY_NFS_SHIM_H
#define LUNFERRY_NFS_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <nfsc/libnfs.h>

#include <nfsc/libnfs-raw.h>

#include <nfsc/libnfs-raw-nfs.h>

#include <lunferry/error.h>

/* True where the library reads into, and sends from, the caller's buffers: then a request that is
 * still with the library cannot be abandoned, its connection must be dropped. */
#ifdef LIBNFS_API_V2
#define SHIM_BORROWS_BUFFERS true
#else
#define SHIM_BORROWS_BUFFERS false
#endif

/* For descriptions: "4.0.0", or what is known of it. */
const char *shim_version(void);

/* AUTH_SYS, RFC 5531 appendix A. */
#define SHIM_MAX_GIDS 16

struct shim_credentials {
    uint32_t uid, gid;
    uint32_t gids[SHIM_MAX_GIDS];
    unsigned gid_count;
};

struct shim_endpoint {
    const char *address; /* numeric */
    uint16_t port;
    int program, version; /* which RPC program is there */
};

/*
 * Begins a TCP connection. `connected` is called from within rpc_service() or shim_close(), and
 * tells nothing that the socket does not: calls may be queued as soon as it is connected. The
 * library binds to a source port below 1024 when it may. Returns NULL when out of memory. When the
 * connection could not even be begun, *status is a negative errno, and the context is only good for
 * shim_close(). Any thread may call this at any time.
 */
struct rpc_context *shim_connect(const struct shim_endpoint *endpoint,
                                 const struct shim_credentials *credentials, rpc_cb connected,
                                 void *opaque, int *status);
/* Calls back, with RPC_STATUS_CANCEL, what is outstanding, but not always all of it. Never to be
 * called from within a callback. `connecting`: shim_connect() succeeded, and nothing came of it. */
void shim_close(struct rpc_context *rpc, bool connecting);

/* Where a call goes to, and who gets its reply. */
struct shim_out {
    struct rpc_context *rpc;
    rpc_cb reply;
    void *opaque;
};

/* One RPC each: encodes the arguments, which need to live no longer than the call, and queues it.
 * Returns 0, or -ENOMEM and then there will be no reply. */

int shim_null(const struct shim_out *out, int program, int version);

/* rpcbind: which TCP port has a program? By version 2 over IPv4, by version 3 over IPv6, since
 * version 2 cannot speak of IPv6. The reply is for shim_port(). */
int shim_getport(const struct shim_out *out, bool ipv6, int program, int version);
/* 0: the program is not registered. */
uint16_t shim_port(bool ipv6, const void *reply);

int shim_mnt(const struct shim_out *out, const char *directory);
int shim_export(const struct shim_out *out);

int shim_getattr(const struct shim_out *out, GETATTR3args *args);
int shim_setattr(const struct shim_out *out, SETATTR3args *args);
int shim_lookup(const struct shim_out *out, LOOKUP3args *args);
int shim_access(const struct shim_out *out, ACCESS3args *args);
int shim_readlink(const struct shim_out *out, READLINK3args *args);
int shim_create(const struct shim_out *out, CREATE3args *args);
int shim_remove(const struct shim_out *out, REMOVE3args *args);
int shim_rename(const struct shim_out *out, RENAME3args *args);
int shim_link(const struct shim_out *out, LINK3args *args);
int shim_readdir(const struct shim_out *out, READDIR3args *args);
int shim_fsinfo(const struct shim_out *out, FSINFO3args *args);
int shim_commit(const struct shim_out *out, COMMIT3args *args);

/*
 * args->count bytes to, or from, what lies `skip` bytes into the iov. Where the library copies, the
 * buffers of a WRITE are free again on return, and those of a READ are filled from
 * shim_read_data(); where it does not (SHIM_BORROWS_BUFFERS), they are its own until the reply.
 */
int shim_read(const struct shim_out *out, READ3args *args, const struct iovec *iov, int iovcnt,
              size_t skip);
int shim_write(const struct shim_out *out, WRITE3args *args, const struct iovec *iov, int iovcnt,
               size_t skip);
/*
 * What a READ brought: *data, valid within the reply's callback, or NULL when it is in the iov
 * already; *len is the number of bytes. The iov and skip are those of shim_read(). Returns 0, or
 * -errno with a sentence for a reply that makes no sense or that the library lost.
 */
int shim_read_data(const READ3resok *reply, const struct iovec *iov, size_t skip, size_t wanted,
                   const void **data, size_t *len, struct blk_error *error);

#endif
