/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a session to a LUN that may be used, and back: opening, recovering, reserving, closing.
 *
 * What has to be done before a request is sent is the same for a first session and for all that
 * follow it:
 *
 *   session up -> look at the LUN (probe.c) -> is it the one that it was?
 *              -> reset it, where an earlier session was on another portal
 *              -> renew the registration, where it is reserved for us
 *              -> look again, if either was done: a target may not show all to one who is not registered
 *
 * Logging in with the ISID of the session before ends that one's commands (RFC 7143 6.3.5), but only
 * within one target portal group, and the library does not tell groups. So by another address a LOGICAL
 * UNIT RESET makes sure that no late write of the old session lands on newer data.
 */
#include "lun.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

/* The library negotiates a MaxBurstLength of 256 KiB and one R2T at a time: a longer WRITE would take
 * a round trip per burst, one after the other, where several WRITEs take theirs together. */
#define MAX_WRITE (256 * KIB)
/* Measured on tgt over loopback: 2.1 GiB/s, against 1.9 with half of it and 1.2 with twice as much. */
#define MAX_READ (512 * KIB)
/* Of tgt, and a common size of targets' task sets. The command window (MaxCmdSN, RFC 7143 4.2.2.1)
 * is the library's business. */
#define MAX_DEPTH 128

#define RELEASE_PATIENCE (5 * LOOP_SECOND) /* with a target that may be gone */

/* ---- Ends ------------------------------------------------------------------------------------- */

static void end(struct lun *lun, int status, const struct blk_error *error)
{
    enum lun_state state = lun->state;

    lun->state = LUN_IDLE;
    switch (state) {
    case LUN_OPENING:
        blk_opened(&lun->dev, status, error);
        break;
    case LUN_RECOVERING:
        blk_recovered(&lun->dev, status, error);
        break;
    default:
        assert(state == LUN_RESERVING);
        blk_task_done(&lun->dev, status, error);
        break;
    }
}

static void fail(struct lun *lun, const struct blk_error *reason)
{
    end(lun, -reason->code, reason);
}

/* Once the LUN is known, a refusal may be that of a target which is still being set up, whatever it
 * says: only another LUN is final. */
static void fail_for_now(struct lun *lun, const struct blk_error *reason)
{
    struct blk_error error = *reason;

    if (lun->cancelled) /* the session may have failed by itself just before */
        blk_error_set(&error, ECANCELED, "cancelled");
    else if (lun->is_known)
        error.retry = BLK_LOST;
    fail(lun, &error);
}

/* ---- What was found --------------------------------------------------------------------------- */

/* A length in bytes, at most `max`, that a transfer may have. A power of two, so that requests which
 * are cut at its multiples leave no small rests. */
static uint32_t transfer_limit(const struct lun_facts *facts, uint64_t max)
{
    uint64_t told = (uint64_t)facts->max_transfer * facts->block_size;

    while (told != 0 && max > told && max > facts->block_size)
        max /= 2;
    return (uint32_t)max;
}

/* NAA formats 2, 5 and 6 and EUI-64 hold an IEEE company id (SPC-4 7.8.6): nothing else in the world
 * has the same one. */
static bool is_unique(const char *identity)
{
    return strncmp(identity, "eui.", 4) == 0 || strncmp(identity, "naa.2", 5) == 0 ||
           strncmp(identity, "naa.5", 5) == 0 || strncmp(identity, "naa.6", 5) == 0;
}

/* What a target made up for itself (tgt numbers its LUNs from 1, on every machine) says little
 * without where it is. */
static int set_identity(struct lun *lun, struct blk_error *error)
{
    const struct lun_facts *facts = &lun->opened;
    char **identity = &lun->dev.identity;
    int len;

    if (is_unique(facts->identity))
        len = asprintf(identity, "%s", facts->identity);
    else
        len = asprintf(identity, "%s %s LUN %u of %s at %s", facts->identity, facts->serial,
                       lun->login.lun, lun->login.target, lun->session.portal);
    if (len < 0) {
        *identity = NULL;
        return blk_error_set(error, ENOMEM, "out of memory");
    }
    return 0;
}

static uint64_t size_of(const struct lun_facts *facts)
{
    return facts->blocks * facts->block_size;
}

static int finish_opening(struct lun *lun, struct blk_error *error)
{
    const struct lun_facts *facts = &lun->opened;
    struct blk_dev *dev = &lun->dev;
    int rc;

    if (!lun->is_known)
        lun->opened = lun->facts;
    else if (lun->facts.blocks < facts->blocks)
        return blk_error_set(error, ESTALE,
                             "another session finds a smaller LUN there: %" PRIu64
                             " blocks of %" PRIu32 " bytes, not %" PRIu64,
                             lun->facts.blocks, facts->block_size, facts->blocks);
    rc = set_identity(lun, error);
    if (rc < 0)
        return rc;
    dev->size = dev->opened.size = size_of(facts);
    dev->round_trip = lun->session.round_trip;
    dev->limits = (struct blk_limits){
        .align = facts->block_size,
        .mem_align = 1,
        .max_read = transfer_limit(facts, MAX_READ),
        .max_write = transfer_limit(facts, MAX_WRITE),
        .max_depth = MAX_DEPTH,
    };
    dev->caps = BLK_BARE;
    if (facts->can_fua)
        dev->caps |= BLK_CAN_FUA;
    provisioning_open(&lun->provisioning, facts);
    lun->is_known = lun->is_open = true;
    return 0;
}

/* "serial number "x" (naa.600...)" */
static const char *name_of(const struct lun_facts *facts, char text[256])
{
    snprintf(text, 256, "serial number \"%s\"%s%s%s", facts->serial,
             facts->identity[0] != '\0' ? " (" : "", facts->identity,
             facts->identity[0] != '\0' ? ")" : "");
    return text;
}

static int compare(const struct lun *lun, struct blk_error *error)
{
    const struct lun_facts *then = &lun->opened, *now = &lun->facts;
    char then_text[256], now_text[256];

    if (!lun->is_known)
        return 0;
    if (strcmp(then->serial, now->serial) != 0 || strcmp(then->identity, now->identity) != 0)
        return blk_error_set(error, ESTALE, "LUN %u is another one now: %s, where %s was",
                             lun->login.lun, name_of(now, now_text), name_of(then, then_text));
    if (then->block_size != now->block_size)
        return blk_error_set(error, ESTALE,
                             "LUN %u is another one now: blocks of %" PRIu32
                             " bytes, where blocks of %" PRIu32 " were",
                             lun->login.lun, now->block_size, then->block_size);
    return 0;
}

static int check_writable(const struct lun *lun, struct blk_error *error)
{
    if (!lun->dev.writable || !lun->facts.write_protected)
        return 0;
    return blk_error_set(error, EROFS, "LUN %u is write-protected by the target", lun->login.lun);
}

/* ---- Step by step ----------------------------------------------------------------------------- */

static void attached(struct lun *lun)
{
    struct blk_error error = {0};

    if (!lun->is_open && finish_opening(lun, &error) < 0) {
        fail(lun, &error);
        return;
    }
    cache_told(&lun->cache, lun->facts.write_cache);
    provisioning_look(&lun->provisioning, &lun->facts);
    provisioning_offer(&lun->provisioning, &lun->opened, &lun->dev);
    lun->dev.seen.size = size_of(&lun->facts);
    lun->fresh = false;
    iscsi_session_settle(&lun->session);
    snprintf(lun->portal, sizeof(lun->portal), "%s", lun->session.portal);
    end(lun, 0, NULL);
}

static void go_on(struct lun *lun)
{
    if (lun->reset_due) {
        iscsi_session_reset_lun(&lun->session);
    } else if (lun->renew_due) {
        reservation_renew(&lun->reservation);
    } else if (lun->changed_by_us) {
        lun->changed_by_us = false;
        probe_start(&lun->probe);
    } else {
        attached(lun);
    }
}

static void was_reset(struct session *session, int response)
{
    struct lun *lun = container_of(session, struct lun, session);
    struct blk_error error = {0};

    if (response != ISCSI_TMR_FUNC_COMPLETE) {
        blk_error_set_retry(&error, EIO, BLK_LOST,
                            "the target refuses a LOGICAL UNIT RESET (response %d), without which "
                            "writes of the session before%s%s could still land",
                            response, lun->portal[0] != '\0' ? ", by portal " : "", lun->portal);
        iscsi_session_abandon(session, &error);
        return;
    }
    lun->reset_due = false;
    lun->changed_by_us = true;
    go_on(lun);
}

static void probed(struct probe *probe, int status)
{
    struct lun *lun = container_of(probe, struct lun, probe);
    struct blk_error error = probe->error;

    if (status < 0) {
        if ((probe->effects & SENSE_PORT_CLOSED) != 0 &&
            iscsi_session_try_next_portal(&lun->session, &error))
            return;
        /* what is no disk, or has other blocks, is certainly not what it was */
        if (error.code == ENOTBLK || error.code == ENOTSUP)
            fail(lun, &error);
        else
            fail_for_now(lun, &error);
        return;
    }
    lun->facts = probe->facts;
    if (compare(lun, &error) < 0 || check_writable(lun, &error) < 0)
        fail(lun, &error);
    else
        go_on(lun);
}

static void probe_attention(struct probe *probe, const struct sense *sense)
{
    lun_heed(container_of(probe, struct lun, probe), sense);
}

static void look(struct lun *lun)
{
    lun->probe.standing = lun_standing(lun);
    lun->renew_due = lun->reservation.held;
    probe_start(&lun->probe);
}

/* ---- Giving back ------------------------------------------------------------------------------ */

static void end_releasing(struct lun *lun)
{
    const struct reservation *r = &lun->reservation;

    assert(lun->state == LUN_RELEASING);
    loop_timer_cancel(lun->dev.loop, &lun->patience);
    if (r->registered)
        blk_warn(&lun->dev, "could not %s: key %016" PRIx64 " stays registered with LUN %u%s%s",
                 r->held && !r->borrowed ? "release the reservation" : "unregister", r->key,
                 lun->login.lun, r->error.code != 0 ? ": " : "", r->error.text);
    lun->state = LUN_CLOSING;
    iscsi_session_close(&lun->session);
}

static void release(struct lun *lun)
{
    reservation_release(&lun->reservation, lun->fresh);
}

static void out_of_patience(struct loop_timer *timer)
{
    struct lun *lun = container_of(timer, struct lun, patience);

    lun->restart = false;
    iscsi_session_cancel(&lun->session); /* -> session_down() */
}

/* ---- The session's calls ---------------------------------------------------------------------- */

/* May writes of an earlier session still be on their way through another portal? */
static bool came_another_way(const struct lun *lun)
{
    if (lun->portal[0] != '\0')
        return strcmp(lun->portal, lun->session.portal) != 0;
    return lun->resumes && lun->session.had_choice; /* nobody knows which way it was */
}

/* Commands at which the target has dropped the session more than once are not used any more. */
static void give_up_means(struct lun *lun)
{
    unsigned means = provisioning_new_session(&lun->provisioning);

    for (unsigned i = 0; i < MEANS_NONE; i++) {
        if ((means >> i & 1) != 0)
            blk_warn(&lun->dev, "the session was lost at %s, twice: LUN %u is not sent it any more",
                     means_name(i), lun->login.lun);
    }
}

static void session_up(struct session *session)
{
    struct lun *lun = container_of(session, struct lun, session);

    cache_new_session(&lun->cache);
    give_up_means(lun);
    lun->fresh = true;
    if (lun->state == LUN_RELEASING) {
        release(lun);
        return;
    }
    lun->reset_due = lun->dev.writable && came_another_way(lun);
    lun->changed_by_us = false;
    look(lun);
}

static void session_down(struct session *session)
{
    struct lun *lun = container_of(session, struct lun, session);

    if (lun->restart && (!lun->cancelled || lun->state == LUN_RELEASING)) {
        lun->restart = false;
        iscsi_session_start(session);
        return;
    }
    lun->restart = false;
    switch (lun->state) {
    case LUN_OPENING:
    case LUN_RECOVERING:
    case LUN_RESERVING:
        fail_for_now(lun, &session->error);
        break;
    case LUN_RELEASING:
        lun->reservation.error = session->error;
        if (session->error.code == ECANCELED) /* out_of_patience() */
            blk_error_set(&lun->reservation.error, ETIMEDOUT, "no answer for %g s",
                          (double)RELEASE_PATIENCE / LOOP_SECOND);
        end_releasing(lun);
        break;
    case LUN_IDLE: /* its requests have ended; the next one will, too */
    case LUN_CLOSING:
        break;
    }
}

static void session_closed(struct session *session)
{
    blk_closed(&container_of(session, struct lun, session)->dev);
}

/* ---- The reservation's calls ------------------------------------------------------------------ */

static void reservation_attention(struct reservation *r, const struct sense *sense)
{
    lun_heed(container_of(r, struct lun, reservation), sense);
}

static void reservation_done(struct reservation *r, int status)
{
    struct lun *lun = container_of(r, struct lun, reservation);

    switch (lun->state) {
    case LUN_RELEASING:
        end_releasing(lun);
        break;
    case LUN_RESERVING:
        if (status < 0) {
            end(lun, status, &r->error);
            break;
        }
        if (r->others > 0)
            blk_warn(&lun->dev, "the reservation does not keep out %u other registered initiator%s",
                     r->others, r->others > 1 ? "s" : "");
        lun->changed_by_us = true;
        go_on(lun);
        break;
    default:
        if (status == 0) {
            lun->renew_due = false;
            lun->changed_by_us = true;
            go_on(lun);
        } else if (r->gone) {
            fail(lun, &r->error);
        } else {
            fail_for_now(lun, &r->error);
        }
        break;
    }
}

/* ---- Hooks ------------------------------------------------------------------------------------ */

static void prepare(struct lun *lun)
{
    struct session *session = &lun->session;

    session->loop = lun->dev.loop;
    session->url = lun->url;
    session->login = &lun->login;
    session->timeout = lun->settings->timeout;
    session->up = session_up;
    session->down = session_down;
    session->closed = session_closed;
    session->reset = was_reset;
    lun->probe.session = session;
    lun->probe.done = probed;
    lun->probe.attention = probe_attention;
    lun->reservation.session = session;
    lun->reservation.done = reservation_done;
    lun->reservation.attention = reservation_attention;
    lun->dev.session_id = login_session_id(&lun->login);
}

void lun_open(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct lun *lun = lun_of(dev);
    struct blk_error error = {0};
    int rc;

    assert(args->store == NULL);
    lun->url = args->url;
    lun->settings = args->settings;
    lun->resumes = args->session_id != 0;
    lun->state = LUN_OPENING;
    rc = login_prepare(&lun->login, lun->url, lun->settings, args->session_id, &error);
    if (rc == 0)
        rc = cache_init(&lun->cache, &error);
    prepare(lun);
    if (rc < 0)
        fail(lun, &error);
    else
        iscsi_session_start(&lun->session);
}

void lun_clone(struct blk_dev *dev, const struct blk_dev *of, unsigned number)
{
    struct lun *lun = lun_of(dev);
    const struct lun *origin = container_of(of, const struct lun, dev);
    struct blk_error error = {0};
    int rc;

    lun->url = origin->url;
    lun->settings = origin->settings;
    lun->is_clone = true;
    lun->state = LUN_OPENING;
    lun->opened = origin->opened;
    lun->is_known = true;
    login_prepare_clone(&lun->login, &origin->login, number);
    reservation_borrow(&lun->reservation, &origin->reservation);
    rc = cache_init(&lun->cache, &error);
    prepare(lun);
    if (rc < 0)
        fail(lun, &error);
    else
        iscsi_session_start(&lun->session);
}

void lun_recover(struct blk_dev *dev)
{
    struct lun *lun = lun_of(dev);

    assert(lun->state == LUN_IDLE);
    lun->state = LUN_RECOVERING;
    switch (lun->session.state) {
    case SESSION_UP:
        look(lun);
        break;
    case SESSION_DOWN:
        iscsi_session_start(&lun->session);
        break;
    default:
        assert(lun->session.state == SESSION_BROKEN);
        lun->restart = true;
        break;
    }
}

void lun_reserve(struct blk_dev *dev, const struct blk_reservation *how)
{
    struct lun *lun = lun_of(dev);

    assert(lun->state == LUN_IDLE && !lun->is_clone);
    lun->state = LUN_RESERVING;
    lun->reset_due = lun->renew_due = false;
    if (lun->session.state == SESSION_UP)
        reservation_take(&lun->reservation, how);
    else
        fail_for_now(lun, &lun->session.error);
}

void lun_close(struct blk_dev *dev)
{
    struct lun *lun = lun_of(dev);

    assert(lun->state == LUN_IDLE);
    if (!lun->reservation.registered) {
        lun->state = LUN_CLOSING;
        iscsi_session_close(&lun->session);
        return;
    }
    lun->state = LUN_RELEASING;
    lun->patience.fire = out_of_patience;
    loop_timer_set(dev->loop, &lun->patience, loop_now(dev->loop) + RELEASE_PATIENCE);
    if (lun->session.state == SESSION_UP)
        release(lun);
    else if (lun->session.state == SESSION_DOWN)
        iscsi_session_start(&lun->session);
    else
        lun->restart = true;
}

void lun_cancel_all(struct blk_dev *dev)
{
    struct lun *lun = lun_of(dev);

    lun->cancelled = true;
    iscsi_session_cancel(&lun->session);
}
