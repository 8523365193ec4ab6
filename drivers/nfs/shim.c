/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-portmap.h>

#define RPCBIND_NETID_TCP6 "tcp6"
#define STACK_IOV          16

/*
 * Public from libnfs 7 on; the older ones export it without declaring it. From 6 on the default is
 * 60 s, after which a request that is still being sent leaves the queue, and the bytes of the next
 * one become its payload.
 */
void rpc_set_timeout(struct rpc_context *rpc, int timeout_msecs);

/*
 * Two lanes may connect at once, but making a context and connecting it are not thread-safe in the
 * library: both keep static counters (the transaction number's salt, the next low source port), and
 * getservbyport() has a static buffer. Held for the length of shim_connect(), which does not block.
 */
static pthread_mutex_t connect_lock = PTHREAD_MUTEX_INITIALIZER;

const char *shim_version(void)
{
#if defined(LIBNFS_BUILD_VERSION)
    return LIBNFS_BUILD_VERSION;
#elif defined(LIBNFS_API_V2)
    return "6 or later";
#else
    return "4 or 5";
#endif
}

/*
 * The older libraries allocate a buffer for every WRITE and every reply, up to a little over 1 MiB.
 * By default glibc gives such memory back to the system again and again, and pays for it with page
 * faults: writing in pieces of 512 KiB, eight at a time, took 0.58 s of CPU per GiB so, and 0.31 s
 * with these limits. They are the process's own, and setting them again changes nothing.
 */
static void keep_buffers(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

static int begin_connect(struct rpc_context *rpc, const struct shim_endpoint *endpoint,
                         rpc_cb connected, void *opaque)
{
#ifdef LIBNFS_API_V2
    /* The only way to tell the library which program it talks to. Without that it takes the reply
     * to a READ that failed for a broken connection. It sends a NULL call of its own first, which
     * ours need not wait for. */
    return rpc_connect_port_async(rpc, endpoint->address, endpoint->port, endpoint->program,
                                  endpoint->version, connected, opaque);
#else
    return rpc_connect_async(rpc, endpoint->address, endpoint->port, connected, opaque);
#endif
}

static struct rpc_context *connect_locked(const struct shim_endpoint *endpoint,
                                          const struct shim_credentials *credentials,
                                          rpc_cb connected, void *opaque, int *status)
{
    uint32_t gids[SHIM_MAX_GIDS];
    struct rpc_context *rpc = rpc_init_context();
    struct AUTH *auth;

    if (!rpc)
        return NULL;
    keep_buffers();
    rpc_set_timeout(rpc, 0);
    memcpy(gids, credentials->gids, sizeof(gids));
    auth = libnfs_authunix_create("lunferry", credentials->uid, credentials->gid,
                                  credentials->gid_count, gids);
    if (!auth) {
        rpc_destroy_context(rpc);
        return NULL;
    }
    rpc_set_auth(rpc, auth);
    errno = 0;
    *status = 0;
    if (begin_connect(rpc, endpoint, connected, opaque) != 0)
        *status = errno ? -errno : -EINVAL;
    return rpc;
}

struct rpc_context *shim_connect(const struct shim_endpoint *endpoint,
                                 const struct shim_credentials *credentials, rpc_cb connected,
                                 void *opaque, int *status)
{
    struct rpc_context *rpc;

    pthread_mutex_lock(&connect_lock);
    rpc = connect_locked(endpoint, credentials, connected, opaque, status);
    pthread_mutex_unlock(&connect_lock);
    return rpc;
}

void shim_close(struct rpc_context *rpc, bool connecting)
{
#ifdef LIBNFS_API_V2
    /* Makes it free what rpc_connect_port_async() allocated. */
    if (connecting)
        rpc_service(rpc, POLLHUP);
#else
    (void)connecting;
#endif
    rpc_destroy_context(rpc);
}

/* ---- Calls whose versions differ in name and result only ------------------------------------- */

#ifdef LIBNFS_API_V2
#define QUEUED(call)    ((call) ? 0 : -ENOMEM)
#define CALL(procedure) rpc_##procedure##_task
#else
#define QUEUED(call)    ((call) == 0 ? 0 : -ENOMEM)
#define CALL(procedure) rpc_##procedure##_async
#endif

#define NFS_CALL(procedure, NAME)                                                                  \
    int shim_##procedure(const struct shim_out *out, NAME##3args * args)                           \
    {                                                                                              \
        return QUEUED(CALL(nfs3_##procedure)(out->rpc, out->reply, args, out->opaque));            \
    }

NFS_CALL(getattr, GETATTR)
NFS_CALL(setattr, SETATTR)
NFS_CALL(lookup, LOOKUP)
NFS_CALL(access, ACCESS)
NFS_CALL(readlink, READLINK)
NFS_CALL(create, CREATE)
NFS_CALL(remove, REMOVE)
NFS_CALL(rename, RENAME)
NFS_CALL(link, LINK)
NFS_CALL(readdir, READDIR)
NFS_CALL(fsinfo, FSINFO)
NFS_CALL(commit, COMMIT)

int shim_null(const struct shim_out *out, int program, int version)
{
    return QUEUED(CALL(null)(out->rpc, program, version, out->reply, out->opaque));
}

int shim_mnt(const struct shim_out *out, const char *directory)
{
    return QUEUED(CALL(mount3_mnt)(out->rpc, out->reply, (char *)directory, out->opaque));
}

int shim_export(const struct shim_out *out)
{
    return QUEUED(CALL(mount3_export)(out->rpc, out->reply, out->opaque));
}

int shim_getport(const struct shim_out *out, bool ipv6, int program, int version)
{
    static char netid[] = RPCBIND_NETID_TCP6, nothing[] = "";
    struct pmap3_mapping map = {
        .prog = (uint32_t)program,
        .vers = (uint32_t)version,
        .netid = netid,
        .addr = nothing,
        .owner = nothing,
    };

    if (ipv6)
        return QUEUED(CALL(pmap3_getaddr)(out->rpc, &map, out->reply, out->opaque));
    return QUEUED(
        CALL(pmap2_getport)(out->rpc, program, version, IPPROTO_TCP, out->reply, out->opaque));
}

/* A universal address (RFC 5665) ends in the port's two bytes: "::1.8.1" is port 2049. */
static uint16_t uaddr_port(const char *uaddr)
{
    const char *low = uaddr ? strrchr(uaddr, '.') : NULL, *high = low;
    unsigned long port;

    if (!low)
        return 0;
    while (high > uaddr && high[-1] != '.')
        high--;
    port = strtoul(high, NULL, 10) * 256 + strtoul(low + 1, NULL, 10);
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

uint16_t shim_port(bool ipv6, const void *reply)
{
    uint32_t port;

    if (ipv6)
        return uaddr_port(((const struct pmap3_string_result *)reply)->addr);
    memcpy(&port, reply, sizeof(port));
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* ---- READ and WRITE -------------------------------------------------------------------------- */

/* The first entry of what lies `skip` bytes into the iov; *rest is what of `skip` falls into it. */
static const struct iovec *iov_skip(const struct iovec *iov, size_t skip, size_t *rest)
{
    while (skip >= iov->iov_len) {
        skip -= iov->iov_len;
        iov++;
    }
    *rest = skip;
    return iov;
}

static int wrong_length(uint32_t sent, uint32_t count, size_t wanted, struct blk_error *error)
{
    return blk_error_set(error, EPROTO,
                         "the server sent %" PRIu32 " bytes, called %" PRIu32
                         " by it, where %zu were asked for",
                         sent, count, wanted);
}

#ifdef LIBNFS_API_V2

/* Cuts [skip, skip + len) out of the iov, into `cut`, which has room for as many entries. */
static int iov_cut(struct iovec *cut, const struct iovec *iov, size_t skip, size_t len)
{
    size_t rest;
    int count = 0;

    for (iov = iov_skip(iov, skip, &rest); len > 0; iov++) {
        size_t here = iov->iov_len - rest < len ? iov->iov_len - rest : len;

        if (here > 0) {
            cut[count].iov_base = (char *)iov->iov_base + rest;
            cut[count++].iov_len = here;
        }
        len -= here;
        rest = 0;
    }
    return count;
}

/* The library copies the array, so it may lie on the stack when it is short. */
static struct iovec *cut_room(struct iovec stack[STACK_IOV], int iovcnt)
{
    return iovcnt <= STACK_IOV ? stack : malloc((size_t)iovcnt * sizeof(struct iovec));
}

/*
 * libnfs 7.0.0 reports success for a READ whose reply comes in several fragments (RFC 5531 11), as
 * user-space servers send it, and leaves the buffer as it was. So a mark is put into the buffer
 * before, which no reply leaves there. It is random, since a guest could write a known one to its
 * disk. Replies shorter than the mark are not worth a fragment.
 */
static uint64_t mark;
static pthread_once_t mark_once = PTHREAD_ONCE_INIT;

static void make_mark(void)
{
    if (getrandom(&mark, sizeof(mark), 0) < 0)
        mark = (uintptr_t)&mark * UINT64_C(0x9e3779b97f4a7c15);
}

/* Copies the mark to where the reply will begin, or compares it with what is there. */
static bool mark_is_there(const struct iovec *iov, size_t skip, bool put)
{
    struct iovec cut[sizeof(mark)];
    const char *at = (const char *)&mark;
    bool same = true;
    int count = iov_cut(cut, iov, skip, sizeof(mark));

    for (int i = 0; i < count; at += cut[i].iov_len, i++) {
        if (put)
            memcpy(cut[i].iov_base, at, cut[i].iov_len);
        else
            same = same && memcmp(cut[i].iov_base, at, cut[i].iov_len) == 0;
    }
    return same;
}

int shim_read(const struct shim_out *out, READ3args *args, const struct iovec *iov, int iovcnt,
              size_t skip)
{
    struct iovec stack[STACK_IOV], *cut = cut_room(stack, iovcnt);
    int status = -ENOMEM;

    pthread_once(&mark_once, make_mark);
    if (args->count >= sizeof(mark))
        mark_is_there(iov, skip, true);
    if (cut) {
        int count = iov_cut(cut, iov, skip, args->count);

        status = QUEUED(rpc_nfs3_readv_task(out->rpc, out->reply, cut, count, args, out->opaque));
    }
    if (cut != stack)
        free(cut);
    return status;
}

int shim_write(const struct shim_out *out, WRITE3args *args, const struct iovec *iov, int iovcnt,
               size_t skip)
{
    struct iovec stack[STACK_IOV], *cut = cut_room(stack, iovcnt);
    int status = -ENOMEM;

    if (cut) {
        int count = iov_cut(cut, iov, skip, args->count);

        status = QUEUED(rpc_nfs3_writev_task(out->rpc, out->reply, args, cut, count, out->opaque));
    }
    if (cut != stack)
        free(cut);
    return status;
}

int shim_read_data(const READ3resok *reply, const struct iovec *iov, size_t skip, size_t wanted,
                   const void **data, size_t *len, struct blk_error *error)
{
    *data = NULL;
    *len = reply->count;
    if (*len > wanted)
        return wrong_length(reply->count, reply->count, wanted, error);
    if (*len >= sizeof(mark) && mark_is_there(iov, skip, false))
        return blk_error_set(error, EPROTO,
                             "this libnfs (%s) loses what the server sends in several RPC "
                             "fragments; version 4 or 5 does not",
                             shim_version());
    return 0;
}

#else

int shim_read(const struct shim_out *out, READ3args *args, const struct iovec *iov, int iovcnt,
              size_t skip)
{
    (void)iov;
    (void)iovcnt;
    (void)skip;
    return QUEUED(rpc_nfs3_read_async(out->rpc, out->reply, args, out->opaque));
}

static void gather(char *flat, const struct iovec *iov, size_t rest, size_t len)
{
    for (; len > 0; iov++) {
        size_t here = iov->iov_len - rest < len ? iov->iov_len - rest : len;

        memcpy(flat, (const char *)iov->iov_base + rest, here);
        flat += here;
        len -= here;
        rest = 0;
    }
}

int shim_write(const struct shim_out *out, WRITE3args *args, const struct iovec *iov, int iovcnt,
               size_t skip)
{
    char *flat = NULL;
    size_t rest;
    int status;

    (void)iovcnt;
    iov = iov_skip(iov, skip, &rest);
    if (iov->iov_len - rest >= args->count) {
        args->data.data_val = (char *)iov->iov_base + rest;
    } else {
        flat = malloc(args->count);
        if (!flat)
            return -ENOMEM;
        gather(flat, iov, rest, args->count);
        args->data.data_val = flat;
    }
    args->data.data_len = args->count;
    status = QUEUED(rpc_nfs3_write_async(out->rpc, out->reply, args, out->opaque));
    free(flat);
    return status;
}

int shim_read_data(const READ3resok *reply, const struct iovec *iov, size_t skip, size_t wanted,
                   const void **data, size_t *len, struct blk_error *error)
{
    (void)iov;
    (void)skip;
    *data = reply->data.data_val;
    *len = reply->data.data_len;
    if (*len > wanted || *len != reply->count)
        return wrong_length(reply->data.data_len, reply->count, wanted, error);
    return 0;
}

#endif
