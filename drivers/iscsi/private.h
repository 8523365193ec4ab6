/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The iSCSI driver, seen from its own files.
 *
 *   device.c   the blk_driver: requests become SCSI commands, answers become results
 *   attach.c   opening, recovering, reserving, closing: from a session to a LUN that may be used
 *   describe.c what is told of a device
 *   reserve.c  persistent reservations
 *   provisioning.c  zeros, freeing, extents: which commands the LUN has for them, until it refuses
 *   probe.c    what the LUN says about itself
 *   answer.c   fields of the data that a command brought
 *   cache.c    when an acknowledged write is durable
 *   session.c  one iSCSI session: sending, staying alive, ending
 *   connect.c  how it comes up: addresses, connecting, logging in
 *   login.c    who we are: target and initiator names, ISID, CHAP secrets
 *   sense.c    what status and sense mean: errno, sentence, retry class, failing LBA
 *   shim.c     what one version of libiscsi needs and others do not
 *
 * Upwards each file uses the ones below it only. Only device.c knows requests, lun.h has what it
 * shares with attach.c and describe.c, and only session.c, connect.c and the shim call into the
 * library's context.
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
    const char *password_file; /* blk_settings' */
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
/* session_id: of a session that this one replaces; 0: none. */
int login_prepare(struct login *login, const struct url *url, const struct blk_settings *settings,
                  uint64_t session_id, struct blk_error *error);
/* The same for the clone with this number, > 0, of what logged in as `origin`. */
void login_prepare_clone(struct login *login, const struct login *origin, unsigned number);
/* The ISID as a number, which is never 0. */
uint64_t login_session_id(const struct login *login);
/* Reads them from the first of: the URL's option for a file; login->password_file; the environment;
 * systemd's credentials; the URL itself. To be wiped in either case. */
int secrets_load(struct secrets *secrets, const struct url *url, const struct login *login,
                 struct blk_error *error);
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
 * portal in turn until one admits it. Once it is down it may be started again: with the same ISID,
 * which ends at the target what may be left of it there.
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
    bool forgotten; /* perhaps: sent before a reset */
    uint64_t sent;  /* ns */
};

struct session {
    /* Filled by the owner before iscsi_session_start(). */
    struct loop *loop;
    const struct url *url;
    const struct login *login;
    uint64_t timeout;               /* ns of silence after which it is dead */
    void (*up)(struct session *);   /* logged in: commands may be sent */
    void (*down)(struct session *); /* it did not come up, or was lost: `error` says why */
    void (*closed)(struct session *);
    /* The answer to iscsi_session_reset_lun(), RFC 7143 11.6.1; not called when the session ends. */
    void (*reset)(struct session *, int response);

    /* For the owner to read. */
    enum session_state state;
    struct blk_error error;
    char portal[SESSION_PORTAL_MAX]; /* "192.0.2.1:3260", the one in use */
    bool had_choice;                 /* there may be other ways to the target than `portal` */
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
    bool looking;       /* `look` is on its way */
    bool resetting;     /* a task management request is unanswered */
    bool in_service;    /* the library is on the stack */
    size_t first;       /* index into url->hosts of the portal to begin with */
    size_t tried;       /* portals from there on, the one in use included */
    unsigned address;   /* index into resolve.addresses of the next one to try */
    unsigned moves;     /* redirections followed */
    uint16_t port;      /* of the addresses in `resolve` */
    char moved_to[256]; /* where the target sends us; "" when nowhere */
    struct secrets secrets;
    struct resolve resolve;
    struct liveness live;
    struct command look; /* whether the LUN was reset, when all is silent */
    struct loop_watch watch;
    struct loop_call send, drop;
    struct loop_timer goodbye;
};

void iscsi_session_start(struct session *session);
/* Only in SESSION_UP. Takes the task over, which may be NULL (no memory): that ends the session. */
void iscsi_session_send(struct session *session, struct command *command, struct scsi_task *task);
/* Only in SESSION_UP, with no commands on their way: LOGICAL UNIT RESET (SAM-5 7.7) -> reset(). */
void iscsi_session_reset_lun(struct session *session);

/* Portals. Each session begins with the one where the last one was settled, for one that serves us
 * well; the others follow in the order of the URL. All only in SESSION_UP. */
void iscsi_session_settle(struct session *session);
/* Ends it; the next one begins with the next portal. */
void iscsi_session_leave_portal(struct session *session, const struct blk_error *reason);
/* Goes on to the next portal of the same attempt, as if this one had refused -> up() or down().
 * False: there is none. */
bool iscsi_session_try_next_portal(struct session *session, const struct blk_error *reason);
/* A unit attention has told of a reset: what is on its way may never be answered. */
void iscsi_session_was_reset(struct session *session);
/* The library's words for what it did not understand in the last answer. */
const char *iscsi_session_complaint(const struct session *session);
/* Ends it without a goodbye, for a reason. */
void iscsi_session_abandon(struct session *session, const struct blk_error *reason);
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

/* What an answer says beside failing its command. */
enum sense_effect {
    SENSE_CACHE_LOST = 1 << 0,   /* power on, reset (29/00 to 29/04): a volatile cache is empty */
    SENSE_MODE_CHANGED = 1 << 1, /* 2A/01: a volatile cache may have been turned on */
    SENSE_FENCED = 1 << 2,       /* 2A/03 to 2A/05: a reservation or registration was taken away */
    SENSE_POOL_LOW = 1 << 3,     /* 38/07: the thin pool is filling up */
    SENSE_PORT_CLOSED = 1 << 4,  /* 04/0B, 04/0C: this target port does not serve the LUN now */
};
unsigned sense_effects(const struct sense *sense);

/* What an answer's meaning depends on beside the answer. */
struct standing {
    bool reserved;      /* the LUN is reserved for us */
    bool other_portals; /* there are further ones to go to */
};

/* Fills *error and returns -errno. `complaint` is iscsi_session_complaint(). */
int sense_error(struct blk_error *error, int status, const struct scsi_task *task,
                const struct standing *standing, const char *complaint);

/* ---- cache.c ---------------------------------------------------------------------------------- */

/*
 * When an acknowledged write is durable. A device that has a volatile cache (WCE), or does not say,
 * keeps what it acknowledged for as long as an epoch lasts. The epoch ends with a reset or power on,
 * and with the session: what became of the target meanwhile, the next one is not reliably told.
 *
 * Whether there is such a cache can change. Until the caching page is read again there may be one;
 * and what was acknowledged while there may have been one needs a flush, whatever the page says now.
 */
struct cache {
    bool on;
    uint64_t epoch;        /* never BLK_NO_EPOCH; starts at random, no value comes twice */
    uint64_t acknowledged; /* writes that only a flush makes durable */
    uint64_t flushed;      /* of them */
};

int cache_init(struct cache *cache, struct blk_error *error);
void cache_new_session(struct cache *cache);
void cache_attention(struct cache *cache, unsigned effects); /* enum sense_effect */
void cache_told(struct cache *cache, bool on);
/* A write was acknowledged. forced: with FUA. Returns whether it is durable. */
bool cache_wrote(struct cache *cache, bool forced);
bool cache_needs_flush(const struct cache *cache);
/* Around SYNCHRONIZE CACHE: the first gives what the second, if it succeeds, is told. */
uint64_t cache_flush_begins(const struct cache *cache);
void cache_flush_ended(struct cache *cache, uint64_t begun);

/* ---- answer.c --------------------------------------------------------------------------------- */

/* What came back: bytes behind the end of a short answer read as zeros, which is "not told". */
struct answer {
    const uint8_t *data;
    size_t len;
};

struct answer answer_of(const struct scsi_task *task);
uint64_t answer_get(const struct answer *answer, size_t at, size_t bytes); /* big-endian */
bool answer_bit(const struct answer *answer, size_t at, unsigned number);
/* Printable text without blanks at its ends. */
void answer_text(const struct answer *answer, size_t at, size_t len, char *text, size_t size);

/* ---- shim.c ----------------------------------------------------------------------------------- */

/* To be called for each new context. */
void shim_prepare(struct iscsi_context *context);
/* In place of iscsi_service(). writing: WRITEs are on their way. */
int shim_service(struct iscsi_context *context, int events, bool writing);

/* ---- probe.c ---------------------------------------------------------------------------------- */

/* What a LUN says about itself now. */
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
    bool capacity_lbprz;        /* LBPRZ, which is one bit here */
    /* VPD page B0h, in blocks; 0: not told */
    uint32_t max_transfer, optimal_transfer;
    uint32_t max_unmap_blocks, max_unmap_descriptors; /* 0: no UNMAP */
    uint32_t unmap_granularity, unmap_alignment;
    uint64_t max_write_same;
    /* VPD page B2h */
    bool provisioning_told;               /* the page exists */
    bool can_unmap, can_write_same_unmap; /* LBPU, LBPWS */
    unsigned lbprz;                       /* three bits: provisioning_unmapped() */
    unsigned provisioning;                /* 0: not told, 1: resource, 2: thin */
    /* REPORT SUPPORTED OPERATION CODES, of WRITE SAME(16) */
    enum lun_support { SUPPORT_NOT_TOLD, SUPPORT_NO, SUPPORT_YES } write_same;
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
    PROBE_WRITE_SAME,
    PROBE_ITEMS,
};

struct probe {
    /* Filled by the owner. */
    struct session *session;
    struct standing standing;
    void (*attention)(struct probe *probe,
                      const struct sense *sense); /* came instead of an answer */
    /* status is 0 or -errno; not called when the session ends. */
    void (*done)(struct probe *probe, int status);
    /* For the owner to read. */
    struct lun_facts facts;
    struct blk_error error;
    unsigned effects; /* of what failed it, enum sense_effect */
    /* private to probe.c */
    struct probe_command {
        struct command command;
        struct probe *probe;
        unsigned attentions;
    } commands[PROBE_ITEMS];
    unsigned next_round; /* bit per enum probe_item: to be asked when this round is answered */
    unsigned outstanding;
    bool again; /* everything, once this is answered */
};

/* May be started anew when it is done, or when its session has ended. */
void probe_start(struct probe *probe);

/* ---- provisioning.c --------------------------------------------------------------------------- */

/*
 * What a LUN can do beside reading and writing: make zeros, free blocks, tell which are in use.
 *
 * Each goes by a command that targets need not have, so what the LUN's pages promise is only tried. A
 * command that is refused, or that costs two sessions before it has succeeded once, is not used by
 * this device any more. A later look at the LUN may take commands away; it never brings one back.
 */
enum means {
    MEANS_SAME,       /* WRITE SAME(16) of a block of zeros */
    MEANS_SAME_UNMAP, /* the same with UNMAP: what cannot be unmapped is written */
    MEANS_UNMAP,      /* UNMAP */
    MEANS_STATUS,     /* GET LBA STATUS(16) */
    MEANS_NONE,
};

struct provisioning {
    bool reads_zeros; /* what is unmapped does */
    /* private to provisioning.c; sets of 1 << enum means */
    unsigned usable;
    unsigned proven; /* have succeeded */
    unsigned lost;   /* were on their way when this session ended */
    unsigned char losses[MEANS_NONE];
};

/* What such a command sends; kept until it is done. */
struct means_data {
    struct scsi_iovec iov;
    uint8_t parameters[24];
};

/* What unmapped blocks read as (LBPRZ, SBC-4, Logical Block Provisioning VPD page). */
enum unmapped { UNMAPPED_NOT_TOLD, UNMAPPED_ZEROS, UNMAPPED_PATTERN };
enum unmapped provisioning_unmapped(const struct lun_facts *facts);

void provisioning_open(struct provisioning *provisioning, const struct lun_facts *facts);
/* The LUN was looked at again. */
void provisioning_look(struct provisioning *provisioning, const struct lun_facts *facts);
/* Sets the capabilities and limits that follow; `facts` are those at the opening. */
void provisioning_offer(const struct provisioning *provisioning, const struct lun_facts *facts,
                        struct blk_dev *dev);

/* By which command a ZERO, DISCARD or EXTENTS is to be done now. */
enum means provisioning_means(const struct provisioning *provisioning, enum blk_op op,
                              bool may_unmap);
const char *means_name(enum means means);
/* blocks > 0. NULL: no memory. */
struct scsi_task *means_task(struct means_data *data, enum means means, uint64_t lba,
                             uint32_t blocks, uint32_t block_size);
/* GET LBA STATUS with room for so many extents, and more than this: its answer. */
struct scsi_task *means_status_task(uint64_t lba, size_t extents);
/* Is it the command that the target does not want, and not something about the blocks? */
bool means_is_refusal(int status, const struct scsi_task *task);

/* How such a command ended. */
void provisioning_worked(struct provisioning *provisioning, enum means means);
void provisioning_refused(struct provisioning *provisioning, enum means means);
void provisioning_lost(struct provisioning *provisioning, enum means means);
/* A new session is up. Returns what is given up now, a set of 1 << enum means. */
unsigned provisioning_new_session(struct provisioning *provisioning);

/* The answer to GET LBA STATUS(16), as the extents of [offset, offset + len). */
void provisioning_take_extents(const struct provisioning *provisioning, const struct answer *answer,
                               uint32_t block_size, uint64_t offset, uint64_t len,
                               struct blk_extents *extents);

/* ---- reserve.c -------------------------------------------------------------------------------- */

#define RESERVE_TYPE_REGISTRANTS 5 /* Write Exclusive - Registrants Only */
#define RESERVE_TYPE_ALL         7 /* Write Exclusive - All Registrants */

enum reserve_step {
    RESERVE_CAPABILITIES,
    RESERVE_READ_RESERVATION,
    RESERVE_READ_KEYS,
    RESERVE_READ_STATUS,
    RESERVE_REGISTER,
    RESERVE_RESERVE,
    RESERVE_PREEMPT,
    RESERVE_PREEMPT_ABORT,
    RESERVE_RELEASE,
    RESERVE_UNREGISTER,
};

enum reserve_outcome {
    RESERVE_IS_GOOD,
    RESERVE_IS_CONFLICT, /* RESERVATION CONFLICT */
    RESERVE_IS_REFUSED,  /* ILLEGAL REQUEST: not with this target */
    RESERVE_HAS_FAILED,
};

/* A persistent reservation and what one session has to do with it. Registrations belong to a session
 * (an I_T nexus: initiator name, ISID and target portal group), the reservation to the LUN. */
struct reservation {
    /* Filled by the owner. */
    struct session *session;
    void (*attention)(struct reservation *r, const struct sense *sense);
    /* status is 0 or -errno; not called when the session ends. */
    void (*done)(struct reservation *r, int status);
    /* For the owner to read. */
    struct blk_error error;
    uint64_t key;
    unsigned type;
    bool held;       /* the LUN is reserved for us */
    bool registered; /* we may be */
    bool borrowed;   /* a clone: its origin releases the reservation */
    bool gone;       /* with an error: somebody has taken it, or the target has lost it */
    unsigned others; /* foreign registrations, which it does not keep from writing */
    /* private to reserve.c */
    uint64_t break_key, victim;
    unsigned wanted_type;
    bool persists; /* PTPL_C: through a loss of power */
    bool checked;  /* what was to be done is done; this is the look afterwards */
    bool found_ours, breaking, anew;
    /* READ RESERVATION; a type of 0: none */
    unsigned found_type;
    uint64_t found_key;
    /* READ KEYS: registrations under our key, under the one to break, under others */
    unsigned own_keys, break_keys, other_keys;
    uint64_t other_key; /* the first of the others */
    char owner[ISCSI_NAME_MAX + 1];
    struct command command;
    enum reserve_step step;
    unsigned attentions;
    struct blk_error failure; /* of the last command */
    void (*next)(struct reservation *r, enum reserve_step step, enum reserve_outcome outcome);
    uint8_t parameters[24];
    struct scsi_iovec iov;
};

/* All three with the session up, no commands on their way, and -> done(). */
/* -EBUSY where it is somebody's who is to keep it. Undoes what it has begun. */
void reservation_take(struct reservation *r, const struct blk_reservation *how);
/* On a new session, or to look: is the reservation still ours? Then registers this session. An error
 * is final where `gone` says so. */
void reservation_renew(struct reservation *r);
/* anew: this session has come up since the last of the other two. */
void reservation_release(struct reservation *r, bool anew);
/* A clone is to be registered with its origin. */
void reservation_borrow(struct reservation *r, const struct reservation *origin);

const char *reservation_type_name(unsigned type);

/* Of an answer, for tests: what it says, and whose the reservation then is. */
void reservation_take_holder(struct reservation *r, const struct answer *answer);
void reservation_take_keys(struct reservation *r, const struct answer *answer);
void reservation_take_owner(struct reservation *r, const struct answer *answer, uint64_t key);
bool reservation_is_ours(const struct reservation *r);
bool reservation_is_foreign(const struct reservation *r, uint64_t *key);

#endif
