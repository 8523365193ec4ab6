/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What failures mean: an errno, whether repeating helps, and a sentence that begins, where a server
 * refused, with the protocol's own word: "NFS3ERR_NOSPC: no space left on the server's filesystem".
 */
#ifndef LUNFERRY_NFS_STATUS_H
#define LUNFERRY_NFS_STATUS_H

#include <lunferry/error.h>

/* How a server can reject a call as such (RFC 5531 section 9). */
enum nfs_refusal {
    NFS_REFUSAL_OTHER,
    NFS_REFUSAL_PROGRAM,   /* PROG_UNAVAIL, PROG_MISMATCH */
    NFS_REFUSAL_PROCEDURE, /* PROC_UNAVAIL */
    NFS_REFUSAL_ARGUMENTS, /* GARBAGE_ARGS */
    NFS_REFUSAL_SYSTEM,    /* SYSTEM_ERR */
    NFS_REFUSAL_DENIED,    /* MSG_DENIED, practically always AUTH_ERROR */
    NFS_REFUSAL_GARBLED,   /* the library cannot decode the reply */
};

/* From the library's words, which are all that it passes on. words may be NULL. */
enum nfs_refusal nfs_refusal_of(const char *words);
int nfs_refusal_error(struct blk_error *error, enum nfs_refusal refusal, const char *program_name,
                      unsigned port);

/* A connection that could not be made, or broke: all of them BLK_LOST. code: errno. */
int nfs_connect_error(struct blk_error *error, int code, const char *address, unsigned port,
                      const char *hint);
/* The library keeps the errno to itself; `hint` is what was left in errno, 0 if unknown, and fd the
 * connection, which is asked too. */
int nfs_lost_error(struct blk_error *error, int hint, int fd, const char *address, unsigned port,
                   const char *program_name);

/*
 * nfsstat3 (RFC 1813 2.6), mountstat3 (RFC 1813 5.1.5); status is not OK. Return -errno.
 *
 * BLK_REPEAT is what says of itself that it will pass. All else is BLK_FATAL, NFS3ERR_IO and
 * NFS3ERR_SERVERFAULT too: they tell of a disk or a program that fails, and what fails so mostly goes
 * on failing. To repeat them would keep the fault from whoever has to mend it until nothing moved
 * for all of --give-up; and a server on which a WRITE has failed so may have dropped other data
 * that it has promised to keep.
 */
int nfs_status_error(struct blk_error *error, int status);
int nfs_mount_error(struct blk_error *error, int status);

/*
 * While a session is rebuilt most failures may pass: a server that is starting refuses connections,
 * is not registered with rpcbind, has not read its exports yet. So this makes everything BLK_LOST
 * but ESTALE: NFS3ERR_STALE, NFS3ERR_BADHANDLE, and nfs_object_check()'s verdict.
 */
void nfs_recovery_class(struct blk_error *error);

/* Does the server refuse what we are, rather than what we ask for? Of either status. */
bool nfs_status_is_refusal(int status);

#endif
