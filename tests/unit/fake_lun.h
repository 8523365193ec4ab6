/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN as its target shows it: answers the SCSI commands that the iSCSI driver sends, persistent
 * reservations included (SPC-4 5.13), and tells what it was asked. A nexus is a small number, one for
 * each session and portal.
 */
#ifndef LUNFERRY_TEST_FAKE_LUN_H
#define LUNFERRY_TEST_FAKE_LUN_H

#include <stdbool.h>
#include <stdint.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define FAKE_NEXUSES 16

struct fake_sense {
    unsigned char key, asc, ascq; /* key 0: none */
};

struct fake_lun {
    /* Filled by the test. */
    const char *serial, *designator;
    uint64_t blocks;
    uint32_t block_size;
    bool write_protected, write_cache, can_fua;
    bool absent;                               /* no such LUN */
    struct fake_sense state;                   /* of TEST UNIT READY */
    struct fake_sense attention[FAKE_NEXUSES]; /* for the next command */
    unsigned attention_at;                     /* opcode that gets it; 0: the first that comes */
    uint64_t blocks_then; /* with the attention the LUN gets this size; 0: no */
    bool busy_for_pages;  /* BUSY to INQUIRY with EVPD */
    bool no_reservations, no_all_registrants, no_preempt_abort, no_full_status, persists;
    bool no_type_mask, deaf_to_preempt;
    /* Provisioning. */
    bool thin, capacity_lbprz; /* READ CAPACITY(16) */
    struct fake_limits {       /* VPD page B0h */
        bool listed;
        uint32_t max_unmap, max_descriptors, granularity, alignment;
        uint64_t max_same;
    } limits;
    struct fake_provisioning { /* VPD page B2h */
        bool listed;
        unsigned char bits, type;
    } provisioning;
    unsigned char
        same_support; /* SUPPORT of 93h; 0: REPORT SUPPORTED OPERATION CODES is not known */
    struct fake_sense refuses_same, refuses_same_unmap, refuses_unmap,
        refuses_status;               /* key 0: no */
    unsigned same_residual;           /* which WRITE SAME reports */
    unsigned char status[8 + 16 * 8]; /* what GET LBA STATUS answers */
    size_t status_len;
    /* What came: a word for each command, but for those of looking at the LUN. */
    char log[2000];
    unsigned last_fua; /* of the last READ or WRITE */
    /* Reservations. */
    uint64_t keys[FAKE_NEXUSES]; /* 0: not registered */
    unsigned type;               /* 0: not reserved */
    unsigned holder;             /* nexus; of types 7 and 8 everyone who is registered */
};

void fake_lun_init(struct fake_lun *lun);
/* Sets the task's status and data. Returns the status. */
int fake_lun_answer(struct fake_lun *lun, unsigned nexus, struct scsi_task *task);
void fake_lun_log(struct fake_lun *lun, const char *word);
/* The log is this; empties it. */
void fake_lun_check_log(struct fake_lun *lun, const char *expected);

#endif
