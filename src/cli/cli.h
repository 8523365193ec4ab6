/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line: the only code of lunferry that prints or exits.
 *
 * Each subcommand is a file with one table of options, which argp checks and prints as help, and one
 * function that returns the exit status.
 */
#ifndef LUNFERRY_CLI_H
#define LUNFERRY_CLI_H

#include <signal.h>

#include <lunferry/block.h>
#include <lunferry/copy.h>
#include <lunferry/loop.h>
#include <lunferry/url.h>

enum exit_status {
    EXIT_DONE = 0,
    EXIT_UNTOUCHED = 2,  /* usage, a refusal, an end that does not open: nothing was changed */
    EXIT_INCOMPLETE = 3, /* failed after writing began */
    EXIT_SIGNAL = 128,   /* and the signal's number: interrupted */
};

int cmd_copy(int argc, char **argv);
int cmd_info(int argc, char **argv);

/* Prints "lunferry: ..." on stderr, as one line of its own even while a progress bar is shown. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Replaces control characters: labels and names come from disks and servers of other people. */
void make_printable(char *text);

/* Parses and checks an endpoint; false after having said what is wrong with it. *url is to be
 * released in either case. */
bool endpoint_parse(const char *text, struct url *url);
/* A driver's URL form and its options, for help. */
void endpoint_print_syntax(const struct blk_driver *driver);

/* ---- Options that subcommands share ----------------------------------------------------------- */

/* argp's state for the session options (--timeout, --initiator-name), as a child of each command's
 * argp; the input is a struct blk_settings *. */
extern const struct argp session_argp;
void settings_init(struct blk_settings *settings);

/* ---- Signals ---------------------------------------------------------------------------------- */

/* What came, to be looked at in the loop. */
struct signals {
    struct loop *loop;
    void (*stop)(struct signals *signals, int number); /* SIGINT, SIGTERM, SIGHUP */
    void (*report)(struct signals *signals);           /* SIGUSR1 */
    /* private */
    struct loop_watch watch;
    int served; /* of the stops that came */
};

/* One at a time. */
void signals_start(struct signals *signals, struct loop *loop);
void signals_stop(struct signals *signals);

/* ---- Progress --------------------------------------------------------------------------------- */

struct progress;

/* Shows how `job` gets on: a bar redrawn in place on a terminal, or lines from time to time elsewhere
 * if `lines`. */
struct progress *progress_start(struct loop *loop, const struct copy_job *job, bool lines);
/* One line now, whatever was asked for. */
void progress_report(struct loop *loop, const struct copy_job *job, uint64_t started);
/* Takes the bar away. */
void progress_end(struct progress *progress);

#endif
