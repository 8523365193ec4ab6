/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The iSCSI driver, seen from its own files.
 *
 *   device.c   the blk_driver: requests become SCSI commands, answers become results
 *   probe.c    what the LUN says about itself when it is opened
 *   session.c  one iSCSI session: sending, staying alive, ending
 *   connect.c  how it comes up: addresses, connecting, logging in
 *   login.c    who we are: target and initiator names, ISID, CHAP secrets
 *   sense.c    what status and sense mean: errno, sentence, retry class, failing LBA
 *   shim.c     what one version of libiscsi needs and others do not
 *
 * Upwards each file uses the ones below it only. Nothing here knows a request (device.c alone does),
 * and only session.c, connect.c and the shim call into the library's context.
 *
 * The process must ignore SIGPIPE: libiscsi sends payload with writev(2), which has no MSG_NOSIGNAL.
 */
#ifndef LUNFERRY_DRIVERS_ISCSI_PRIVATE_H
#define LUNFERRY_DRIVERS_ISCSI_PRIVATE_H

#include <stddef.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <lunferry/driver.h>

/* ---- login.c ---------------------------------------------------------------------------------- */

#define ISCSI_NAME_MAX 223   /* bytes of an iSCSI name, RFC 7143 4.2.7.1 */
#define ISCSI_LUN_MAX  16383 /* of flat space addressing, SAM-5 4.7.7 */

/* Who logs in to what. Made at open; never changes, so that a clone may read its origin's. */
struct login {
    char initiator[ISCSI_NAME_MAX + 1];
    const char *initiator_from; /* where that name was found, for people */
    char target[ISCSI_NAME_MAX + 1];
    unsigned lun;
    bool header_digest;
    /* The ISID (RFC 7143 11.12.5) in its random format: 24 bits and a 16-bit qualifier. Logging in
     * again with the same one reinstates the session (6.3.5). */
    uint32_t isid;
    uint16_t isid_qualifier;
};

/* CHAP; an empty user means none. The sizes are what libiscsi passes on uncut: its strings have 255
 * bytes, and "CHAP_N=" stands before a user. */
struct secrets {
    char user[248], password[256];               /* we, to the target */
    char mutual_user[248], mutual_password[256]; /* the target, to us */
};

extern const struct url_option login_options[];

/* The driver's check hook: the form of path and options. */
int login_check(const struct url *url, struct blk_error *error);
/* The ISID differs from that of `other`, which may be NULL. */
int login_prepare(struct login *login, const struct url *url, const struct blk_settings *settings,
                  const struct login *other, struct blk_error *error);
/* Reads them where the URL and the environment say they are. To be wiped in either case. */
int secrets_load(struct secrets *secrets, const struct url *url, struct blk_error *error);
void secrets_wipe(struct secrets *secrets);

/* The first two bytes of a PDU's LUN field, which are all that libiscsi fills: LUNs up to 255 by
 * peripheral device addressing, others by flat space addressing (SAM-5 4.7.7). */
int lun_field(unsigned lun);

/* The sentence for a login that failed, from what the library says about it; NULL: the target has
 * moved. -EREMOTE when it has. */
int login_failure(struct blk_error *error, const struct login *login, const struct secrets *secrets,
                  const char *library_text);

/* ---- session.c -------------------------------------------------------------------------------- */

/*
 * A session is one connection to one target portal, logged in. It tries every address of every
 * portal in turn until one admits it.
 *
 * A command that was sent ends in exactly one done(), whatever becomes of the session. When the
 * session ends, by a failure or on request, first all its commands end, then `down` is called.
 * Neither is ever called from inside iscsi_session_*(), except `closed`.
 */
enum session_state {
    SESSION_DOWN, /* no context: not started, ended, or between two addresses */
    SESSION_RESOLVING,
    SESSION_CONNECTING,
    SESSION_LOGGING_IN,
    SESSION_UP,
    SESSION_LOGGING_OUT,
    SESSION_BROKEN, /* the context is never served again; it is destroyed in a deferred call */
};

#define SESSION_PORTAL_MAX 80

struct session {
    /* Filled by the owner before iscsi_session_start(). */
    struct loop *loop;
    const struct url *url;
    const struct login *login;
    uint64_t timeout;               /* ns of silence after which it is dead */
    void (*up)(struct session *);   /* logged in: commands may be sent */
    void (*down)(struct session *); /* it did not come up, or was lost: `error` says why */
    void (*closed)(struct session *);

    /* For the owner to read. */
    enum session_state state;
    struct blk_error error;
    char portal[SESSION_PORTAL_MAX]; /* "192.0.2.1:3260", the one in use */
    uint64_t round_trip;             /* ns, the shortest of the first answers; 0: none yet */

    /* private to session.c and connect.c */
    struct iscsi_context *context;
    struct command *commands; /* sent and not done */
    unsigned writes;          /* of them */
    unsigned timed;           /* answers */
    bool coming_up;           /* further addresses may be tried */
    bool closing;
    bool resolving;     /* `resolve` is at work, in whatever state */
    bool pinged;        /* a NOP-Out is unanswered */
    bool in_service;    /* the library is on the stack */
    unsigned host;      /* index into url->hosts of the next one to try */
    unsigned address;   /* index into resolve.addresses of the next one to try */
    unsigned moves;     /* redirections followed */
    uint16_t port;      /* of the addresses in `resolve` */
    char moved_to[256]; /* where the target sends us; "" when nowhere */
    struct secrets secrets;
    struct resolve resolve;
    struct liveness live;
    struct loop_watch watch;
    struct loop_call send, drop;
    struct loop_timer goodbye;
};

/* A SCSI command on its way. Zeroed by the owner, kept until done(). */
struct command {
    /* status is a SCSI status (SAM-5 5.3.1) or SCSI_STATUS_ERROR, and the task, which belongs to the
     * session, holds data or sense; or SCSI_STATUS_CANCELLED: the session ended before the answer,
     * task is NULL and session->error says why. */
    void (*done)(struct command *command, int status, struct scsi_task *task);
    struct session *session; /* set by iscsi_session_send() */
    /* private to session.c */
    struct scsi_task *task;
    struct command *next, **link;
    int status; /* of a parked one, see park() */
    bool parked;
    uint64_t sent; /* ns */
};

void iscsi_session_start(struct session *session);
/* Only in SESSION_UP. Takes the task over, which may be NULL (no memory): that ends the session. */
void iscsi_session_send(struct session *session, struct command *command, struct scsi_task *task);
/* The library's words for what it did not understand in the last answer. */
const char *iscsi_session_complaint(const struct session *session);
/* Ends it without a goodbye, with -ECANCELED as its error. Does nothing when it is down. */
void iscsi_session_cancel(struct session *session);
/* No commands are on their way. Logs out if it can -> closed(). */
void iscsi_session_close(struct session *session);

/* Between session.c and connect.c. */

/* Tries the first address. */
void connect_start(struct session *session);
/* Tries the next one, or gives up. In SESSION_DOWN. */
void connect_next(struct session *session);
/* Serves the context from now on. */
void session_listen(struct session *session);
void session_move(struct session *session, enum session_state from, enum session_state to);
/* Ends the connection soon, for a reason, or (NULL) without one. Only the first reason counts: what
 * follows are its consequences. */
void session_break_off(struct session *session, const struct blk_error *reason);
/* Adds what happened at one address to what happened at those before it. */
void session_note_failure(struct session *session, const struct blk_error *reason);
/* No address is left. */
void session_give_up(struct session *session);
/* Reports closed() when nothing is under way any more. */
void session_try_close(struct session *session);

/* ---- sense.c ---------------------------------------------------------------------------------- */

struct sense {
    bool present;
    bool deferred; /* about an earlier command, SPC-4 4.5.7 */
    uint8_t key, asc, ascq;
    bool has_information;
    uint64_t information; /* of a medium error: the LBA */
};

struct sense sense_decode(const struct scsi_task *task);
/* What is told by a status: the data arrived and nothing is wrong. */
bool sense_is_success(int status, const struct scsi_task *task);
bool sense_is_unit_attention(int status, const struct scsi_task *task);
/* The volatile cache may have been lost: power on, reset (29/00 to 29/04). */
bool sense_lost_cache(const struct sense *sense);
/* Fills *error and returns -errno. `complaint` is iscsi_session_complaint(). */
int sense_error(struct blk_error *error, int status, const struct scsi_task *task,
                const char *complaint);

/* ---- shim.c ----------------------------------------------------------------------------------- */

/* To be called for each new context. */
void shim_prepare(struct iscsi_context *context);
/* In place of iscsi_service(). writing: WRITEs are on their way. */
int shim_service(struct iscsi_context *context, int events, bool writing);

/* ---- probe.c ---------------------------------------------------------------------------------- */

/* What a LUN says about itself. */
struct lun_facts {
    /* INQUIRY, and the VPD pages 80h and 83h. "" where not told. */
    char vendor[9], product[17], revision[5];
    char serial[65];
    char identity[129]; /* "naa.6001405...", the best designator of the LUN */
    /* READ CAPACITY(16) */
    uint64_t blocks;
    uint32_t block_size;
    unsigned physical_exponent; /* physical block = block_size << this */
    bool provisioned;           /* LBPME: not fully provisioned */
    bool reads_zeros;           /* LBPRZ: unmapped blocks read as zeros */
    /* VPD page B0h, in blocks; 0: not told */
    uint32_t max_transfer, optimal_transfer;
    uint32_t max_unmap_blocks, max_unmap_descriptors;
    uint32_t unmap_granularity;
    uint64_t max_write_same;
    bool no_zero_write_same; /* WSNZ: WRITE SAME of 0 blocks is refused */
    /* VPD page B2h */
    bool can_unmap, can_write_same_unmap; /* LBPU, LBPWS */
    unsigned provisioning;                /* 0: not told, 1: resource, 2: thin */
    /* MODE SENSE, caching page */
    bool cache_told;  /* the page exists */
    bool write_cache; /* WCE; true where not told: durable then only what was flushed */
    bool can_fua;     /* DPOFUA */
    bool write_protected;
};

enum probe_item {
    PROBE_READY,
    PROBE_PAGES,
    PROBE_INQUIRY,
    PROBE_CAPACITY,
    PROBE_CACHING,
    PROBE_SERIAL,
    PROBE_IDENTITY,
    PROBE_LIMITS,
    PROBE_PROVISIONING,
    PROBE_ITEMS,
};

struct probe {
    /* Filled by the owner. */
    struct session *session;
    void (*done)(struct probe *probe,
                 int status); /* 0 or -errno; not called when the session ends */
    /* For the owner to read. */
    struct lun_facts facts;
    struct blk_error error;
    /* private to probe.c */
    struct probe_command {
        struct command command;
        struct probe *probe;
        unsigned attentions;
    } commands[PROBE_ITEMS];
    unsigned next_round; /* bit per enum probe_item: to be asked when this round is answered */
    unsigned outstanding;
};

void probe_start(struct probe *probe);

#endif
