/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent reservations (SPC-4 5.13): PERSISTENT RESERVE IN and OUT in chains, one command at a
 * time. Each chain has a function that is told how the last command went and names the next one.
 *
 * The type is Write Exclusive - All Registrants (7h), which lasts while any of our sessions is
 * registered, or, where the target does not have it, Write Exclusive - Registrants Only (5h). Under
 * both every registered session may write and everyone may read.
 *
 * Whose a reservation is must be decided before we register: under type 7h every registrant holds it,
 * and so would we. A registration that a target has taken away from us is therefore never simply
 * renewed: it was taken away so that we should not write.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_ATTENTIONS 10
#define MAX_KEYS       63 /* that are looked at */

/* SPC-4 6.15, 6.16 */
static const struct service {
    bool out;
    uint8_t action;
    uint16_t answer_len;
    const char *name;
} services[] = {
    [RESERVE_CAPABILITIES] = {false, 2, 8, "REPORT CAPABILITIES"},
    [RESERVE_READ_RESERVATION] = {false, 1, 24, "READ RESERVATION"},
    [RESERVE_READ_KEYS] = {false, 0, 8 + 8 * MAX_KEYS, "READ KEYS"},
    [RESERVE_READ_STATUS] = {false, 3, 4096, "READ FULL STATUS"},
    [RESERVE_REGISTER] = {true, 6, 0, "REGISTER AND IGNORE EXISTING KEY"},
    [RESERVE_RESERVE] = {true, 1, 0, "RESERVE"},
    [RESERVE_PREEMPT] = {true, 4, 0, "PREEMPT"},
    [RESERVE_PREEMPT_ABORT] = {true, 5, 0, "PREEMPT AND ABORT"},
    [RESERVE_RELEASE] = {true, 2, 0, "RELEASE"},
    [RESERVE_UNREGISTER] = {true, 0, 0, "REGISTER"},
};

const char *reservation_type_name(unsigned type)
{
    static const char *const names[] = {
        [1] = "Write Exclusive",
        [3] = "Exclusive Access",
        [5] = "Write Exclusive - Registrants Only",
        [6] = "Exclusive Access - Registrants Only",
        [7] = "Write Exclusive - All Registrants",
        [8] = "Exclusive Access - All Registrants",
    };

    return type < sizeof(names) / sizeof(names[0]) && names[type] != NULL ? names[type]
                                                                          : "of an unknown type";
}

/* ---- What the target says --------------------------------------------------------------------- */

/* SPC-4 6.15.4. Without the mask (TMV) there is nothing to go by. */
static void take_capabilities(struct reservation *r, const struct answer *answer)
{
    bool told = answer_bit(answer, 3, 7);

    r->persists = answer_bit(answer, 2, 0);
    if (told && !answer_bit(answer, 4, 7) && answer_bit(answer, 4, 5))
        r->wanted_type = RESERVE_TYPE_REGISTRANTS;
}

/* SPC-4 6.15.3 */
void reservation_take_holder(struct reservation *r, const struct answer *answer)
{
    bool held = answer_get(answer, 4, 4) >= 16;

    r->found_type = held ? answer_get(answer, 21, 1) & 0x0f : 0;
    r->found_key = held ? answer_get(answer, 8, 8) : 0;
}

/* SPC-4 6.15.2 */
void reservation_take_keys(struct reservation *r, const struct answer *answer)
{
    size_t count = (size_t)answer_get(answer, 4, 4) / 8;

    r->own_keys = r->break_keys = r->other_keys = 0;
    r->other_key = 0;
    for (size_t i = 0; i < count && 8 + 8 * (i + 1) <= answer->len; i++) {
        uint64_t key = answer_get(answer, 8 + 8 * i, 8);

        if (key == r->key)
            r->own_keys++;
        else if (r->break_key != 0 && key == r->break_key)
            r->break_keys++;
        else if (r->other_keys++ == 0)
            r->other_key = key;
    }
}

/* SPC-4 6.15.5: the name of who is registered under `key`, from its TransportID (7.6.4.6). */
void reservation_take_owner(struct reservation *r, const struct answer *answer, uint64_t key)
{
    size_t end = 8 + (size_t)answer_get(answer, 4, 4), at = 8;
    bool holder_found = false;

    r->owner[0] = '\0';
    while (at + 24 <= end && at + 24 <= answer->len) {
        size_t id = at + 24, id_len = (size_t)answer_get(answer, at + 20, 4);
        bool holder = answer_bit(answer, at + 12, 0);

        if (answer_get(answer, at, 8) == key && !holder_found && id_len >= 4 &&
            (answer_get(answer, id, 1) & 0x0f) == 5) {
            answer_text(answer, id + 4, (size_t)answer_get(answer, id + 2, 2), r->owner,
                        sizeof(r->owner));
            r->owner[strcspn(r->owner, ",")] = '\0'; /* ",i,0x" and the ISID */
            holder_found = holder;
        }
        if (id_len > answer->len)
            break;
        at = id + id_len;
    }
}

static bool all_registrants(unsigned type)
{
    return type == 7 || type == 8;
}

/* Under types 7h and 8h no key is told: everyone who is registered holds it. */
bool reservation_is_ours(const struct reservation *r)
{
    if (r->found_type == 0)
        return false;
    return all_registrants(r->found_type) ? r->own_keys > 0 : r->found_key == r->key;
}

/* Somebody's who is to keep it; *key: whose. */
bool reservation_is_foreign(const struct reservation *r, uint64_t *key)
{
    *key = all_registrants(r->found_type) ? r->other_key : r->found_key;
    if (r->found_type == 0 || reservation_is_ours(r))
        return false;
    if (all_registrants(r->found_type))
        return r->other_keys > 0 || r->break_keys == 0;
    return r->break_key == 0 || r->found_key != r->break_key;
}

/* ---- Commands --------------------------------------------------------------------------------- */

static void answered(struct command *command, int status, struct scsi_task *task);

/* SPC-4 6.16.3: the basic parameter list, 24 bytes. */
static void fill_parameters(struct reservation *r, enum reserve_step step)
{
    uint64_t key = 0, action_key = 0;

    switch (step) {
    case RESERVE_REGISTER:
        action_key = r->key;
        break;
    case RESERVE_PREEMPT:
    case RESERVE_PREEMPT_ABORT:
        key = r->key;
        action_key = r->victim;
        break;
    default:
        key = r->key;
        break;
    }
    memset(r->parameters, 0, sizeof(r->parameters));
    scsi_set_uint64(r->parameters, key);
    scsi_set_uint64(r->parameters + 8, action_key);
    if (step == RESERVE_REGISTER && r->persists)
        r->parameters[20] = 0x01; /* APTPL: keep it through a loss of power */
}

static void ask(struct reservation *r, enum reserve_step step)
{
    const struct service *service = &services[step];
    uint8_t cdb[10] = {service->out ? 0x5f : 0x5e, service->action};
    struct scsi_task *task;

    r->step = step;
    r->command = (struct command){.done = answered};
    if (service->out) {
        if (step != RESERVE_REGISTER && step != RESERVE_UNREGISTER)
            cdb[2] = (uint8_t)r->type; /* scope: the logical unit */
        cdb[8] = sizeof(r->parameters);
        fill_parameters(r, step);
        r->iov = (struct scsi_iovec){r->parameters, sizeof(r->parameters)};
    } else {
        scsi_set_uint16(cdb + 7, service->answer_len);
    }
    task = scsi_create_task(sizeof(cdb), cdb, service->out ? SCSI_XFER_WRITE : SCSI_XFER_READ,
                            service->out ? (int)sizeof(r->parameters) : service->answer_len);
    if (task != NULL && service->out)
        scsi_task_set_iov_out(task, &r->iov, 1);
    /* Whatever comes of it: what may have been registered is to be unregistered. */
    if (step == RESERVE_REGISTER)
        r->registered = true;
    iscsi_session_send(r->session, &r->command, task);
}

static void begin(struct reservation *r,
                  void (*next)(struct reservation *, enum reserve_step, enum reserve_outcome),
                  enum reserve_step first)
{
    r->next = next;
    r->attentions = 0;
    r->checked = r->gone = false;
    blk_error_clear(&r->error);
    ask(r, first);
}

static void end(struct reservation *r)
{
    r->done(r, -r->error.code);
}

static void take(struct reservation *r, const struct scsi_task *task)
{
    struct answer answer = answer_of(task);

    switch (r->step) {
    case RESERVE_CAPABILITIES:
        take_capabilities(r, &answer);
        break;
    case RESERVE_READ_RESERVATION:
        reservation_take_holder(r, &answer);
        break;
    case RESERVE_READ_KEYS:
        reservation_take_keys(r, &answer);
        break;
    case RESERVE_READ_STATUS:
        reservation_take_owner(r, &answer, r->victim);
        break;
    default:
        break;
    }
}

static enum reserve_outcome judge(struct reservation *r, int status, const struct scsi_task *task)
{
    static const struct standing standing;
    struct sense sense = sense_decode(task);
    struct blk_error error = {0};

    if (sense_is_success(status, task)) {
        if (status == SCSI_STATUS_GOOD)
            take(r, task);
        return RESERVE_IS_GOOD;
    }
    sense_error(&error, status, task, &standing, iscsi_session_complaint(r->session));
    blk_error_prefix(&error, "%s", services[r->step].name);
    if (r->error.code == 0) /* the first reason counts */
        r->failure = error;
    if (status == SCSI_STATUS_RESERVATION_CONFLICT)
        return RESERVE_IS_CONFLICT;
    return sense.present && sense.key == SCSI_SENSE_ILLEGAL_REQUEST ? RESERVE_IS_REFUSED
                                                                    : RESERVE_HAS_FAILED;
}

static void answered(struct command *command, int status, struct scsi_task *task)
{
    struct reservation *r = container_of(command, struct reservation, command);
    enum reserve_outcome outcome;

    if (status == SCSI_STATUS_CANCELLED)
        return; /* the session's end is the owner's to handle */
    if (sense_is_unit_attention(status, task) && r->attentions++ < MAX_ATTENTIONS) {
        struct sense sense = sense_decode(task);

        r->attention(r, &sense);
        if (r->session->state == SESSION_UP)
            ask(r, r->step);
        return;
    }
    outcome = judge(r, status, task);
    if (r->session->state == SESSION_UP)
        r->next(r, r->step, outcome);
}

/* ---- Taking one ------------------------------------------------------------------------------- */

static void fail(struct reservation *r, const struct blk_error *error)
{
    if (r->error.code == 0)
        r->error = *error;
    if (r->registered)
        ask(r, RESERVE_UNREGISTER);
    else
        end(r);
}

static void fail_unsupported(struct reservation *r)
{
    struct blk_error error = r->failure;

    error.code = ENOTSUP;
    blk_error_prefix(&error, "the target has no persistent reservations that fit");
    fail(r, &error);
}

static void fail_busy(struct reservation *r)
{
    struct blk_error error = {0};

    blk_error_set(&error, EBUSY,
                  "reserved already under key %016" PRIx64 " (%s)%s%s; "
                  "--break-reservation %016" PRIx64 " would take it",
                  r->victim, reservation_type_name(r->found_type),
                  r->owner[0] != '\0' ? " by " : "", r->owner, r->victim);
    fail(r, &error);
}

/* READ RESERVATION and READ KEYS have been answered: before anything was done, or (checked) after. */
static void decide(struct reservation *r)
{
    bool foreign = reservation_is_foreign(r, &r->victim);

    r->owner[0] = '\0';
    if (foreign) {
        ask(r, RESERVE_READ_STATUS);
    } else if (!r->checked) {
        r->others = r->other_keys;
        r->found_ours = reservation_is_ours(r);
        r->breaking = r->found_type != 0 && !r->found_ours;
        /* RESERVE again with the type that is there is no change; with another it is a conflict. */
        r->type = r->found_ours && (r->found_type == RESERVE_TYPE_ALL ||
                                    r->found_type == RESERVE_TYPE_REGISTRANTS)
                      ? r->found_type
                      : r->wanted_type;
        ask(r, RESERVE_REGISTER);
    } else if (reservation_is_ours(r) && r->found_type == r->type &&
               (!r->breaking || r->break_keys == 0)) {
        r->held = true;
        r->break_key = 0;
        end(r);
    } else {
        blk_error_set(&r->failure, EBUSY, "the reservation was not obtained");
        fail(r, &r->failure);
    }
}

/* Returns false when there is no other way to try. */
static bool try_another_way(struct reservation *r, enum reserve_step step)
{
    if (step == RESERVE_REGISTER && r->persists) {
        r->persists = false;
    } else if (step == RESERVE_PREEMPT_ABORT) {
        step = RESERVE_PREEMPT;
    } else if (step != RESERVE_REGISTER && r->type == RESERVE_TYPE_ALL) {
        r->type = RESERVE_TYPE_REGISTRANTS;
    } else {
        return false;
    }
    ask(r, step);
    return true;
}

static void check(struct reservation *r)
{
    r->checked = true;
    ask(r, RESERVE_READ_RESERVATION);
}

static void preempt(struct reservation *r, uint64_t key)
{
    r->victim = key;
    ask(r, RESERVE_PREEMPT_ABORT);
}

static void next_of_take(struct reservation *r, enum reserve_step step,
                         enum reserve_outcome outcome)
{
    bool acts = step == RESERVE_REGISTER || step == RESERVE_RESERVE || step == RESERVE_PREEMPT ||
                step == RESERVE_PREEMPT_ABORT;

    if (step == RESERVE_REGISTER &&
        (outcome == RESERVE_IS_REFUSED || outcome == RESERVE_IS_CONFLICT))
        r->registered = false;
    if (step == RESERVE_UNREGISTER) { /* on the way out */
        if (outcome == RESERVE_IS_GOOD || outcome == RESERVE_IS_CONFLICT)
            r->registered = false;
        end(r);
    } else if (step == RESERVE_READ_STATUS) { /* its owner's name is a help, no more */
        fail_busy(r);
    } else if (outcome == RESERVE_HAS_FAILED) {
        /* a target may know APTPL and have nowhere to keep it */
        if (step != RESERVE_REGISTER || !try_another_way(r, step))
            fail(r, &r->failure);
    } else if (step == RESERVE_CAPABILITIES) {
        ask(r, RESERVE_READ_RESERVATION);
    } else if (outcome == RESERVE_IS_REFUSED) {
        if (!acts || !try_another_way(r, step))
            fail_unsupported(r);
    } else if (step == RESERVE_READ_RESERVATION) {
        ask(r, RESERVE_READ_KEYS);
    } else if (step == RESERVE_READ_KEYS) {
        decide(r);
    } else if (step == RESERVE_REGISTER) {
        if (outcome == RESERVE_IS_CONFLICT)
            fail(r, &r->failure);
        else if (r->breaking)
            preempt(r, r->break_key);
        else
            ask(r, RESERVE_RESERVE);
    } else if (step == RESERVE_RESERVE && outcome == RESERVE_IS_CONFLICT && r->found_ours) {
        /* Held under our key by a session that is no more, or with another type. */
        r->type = r->wanted_type;
        preempt(r, r->key);
    } else {
        /* A conflict here means that somebody was quicker; the check will name him. */
        check(r);
    }
}

void reservation_take(struct reservation *r, const struct blk_reservation *how)
{
    r->key = how->key;
    r->break_key = how->break_key;
    r->wanted_type = r->type = RESERVE_TYPE_ALL;
    r->persists = false;
    begin(r, next_of_take, RESERVE_CAPABILITIES);
}

/* ---- Keeping it ------------------------------------------------------------------------------- */

/* SPC-4 leaves a registration alone when its session is lost, so it must still be there. */
static void fail_gone(struct reservation *r)
{
    r->gone = true;
    if (r->found_type == 0)
        blk_error_set(&r->error, EBUSY,
                      "our reservation (key %016" PRIx64
                      ") is gone: it was broken or cleared, or the target "
                      "was restarted and has not kept it; others may have written meanwhile",
                      r->key);
    else
        blk_error_set(&r->error, EBUSY,
                      "our reservation (key %016" PRIx64 ") was taken away: the LUN is reserved "
                      "under key %016" PRIx64 " (%s)",
                      r->key, r->victim, reservation_type_name(r->found_type));
    end(r);
}

static void next_of_renew(struct reservation *r, enum reserve_step step,
                          enum reserve_outcome outcome)
{
    if (outcome != RESERVE_IS_GOOD) {
        r->error = r->failure;
        end(r);
        return;
    }
    switch (step) {
    case RESERVE_READ_RESERVATION:
        ask(r, RESERVE_READ_KEYS);
        break;
    case RESERVE_READ_KEYS:
        reservation_is_foreign(r, &r->victim);
        if (!reservation_is_ours(r))
            fail_gone(r);
        else if (r->checked)
            end(r);
        else
            ask(r, RESERVE_REGISTER);
        break;
    default:
        assert(step == RESERVE_REGISTER);
        check(r);
        break;
    }
}

void reservation_renew(struct reservation *r)
{
    assert(r->held);
    begin(r, next_of_renew, RESERVE_READ_RESERVATION);
}

/* ---- Giving it back --------------------------------------------------------------------------- */

/*
 * A session that is new must be registered before it may release (tgt takes it for another
 * initiator's, though the ISID is the same), but only while we are known there at all: otherwise we
 * would become a holder of somebody else's reservation (7h), and release that. Sessions that
 * are no more, of a job that was killed or by way of another portal, may have left registrations under
 * our key: preempting our own key clears them.
 */
static void next_of_release(struct reservation *r, enum reserve_step step,
                            enum reserve_outcome outcome)
{
    switch (step) {
    case RESERVE_REGISTER:
        ask(r, RESERVE_READ_KEYS);
        break;
    case RESERVE_READ_KEYS:
        if (outcome != RESERVE_IS_GOOD) {
            ask(r, RESERVE_UNREGISTER);
        } else if (r->own_keys == 0) {
            r->held = r->registered = false;
            end(r);
        } else if (r->anew) {
            r->anew = false;
            ask(r, RESERVE_REGISTER);
        } else if (r->own_keys > 1) {
            r->victim = r->key;
            ask(r, RESERVE_PREEMPT);
        } else {
            ask(r, RESERVE_RELEASE);
        }
        break;
    case RESERVE_PREEMPT:
        ask(r, RESERVE_RELEASE);
        break;
    case RESERVE_RELEASE:
        ask(r, RESERVE_UNREGISTER);
        break;
    default:
        assert(step == RESERVE_UNREGISTER);
        r->held = false;
        /* A conflict: there is no registration of ours any more. */
        if (outcome == RESERVE_IS_GOOD || outcome == RESERVE_IS_CONFLICT)
            r->registered = false;
        else
            r->error = r->failure;
        end(r);
        break;
    }
}

void reservation_release(struct reservation *r, bool anew)
{
    assert(r->registered);
    r->anew = anew;
    begin(r, next_of_release, r->borrowed || !r->held ? RESERVE_UNREGISTER : RESERVE_READ_KEYS);
}

void reservation_borrow(struct reservation *r, const struct reservation *origin)
{
    r->key = origin->key;
    r->type = origin->type;
    r->persists = origin->persists;
    r->held = origin->held;
    r->borrowed = true;
}
