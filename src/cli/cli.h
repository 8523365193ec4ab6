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
#include <lunferry/image.h>
#include <lunferry/image_make.h>
#include <lunferry/loop.h>
#include <lunferry/url.h>

struct argp_state;

enum exit_status {
    EXIT_DONE = 0,
    EXIT_DIFFERENT = 1,  /* compare, or checksum --check, found a difference */
    EXIT_UNTOUCHED = 2,  /* usage, a refusal, an end that does not open: nothing was changed */
    EXIT_INCOMPLETE = 3, /* failed after writing, or a comparison's reading, or a map, began */
    EXIT_SALVAGED = 5,   /* done, but for what the source has lost */
    EXIT_SIGNAL = 128,   /* and the signal's number: interrupted */
};

int cmd_checksum(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_copy(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_measure(int argc, char **argv);

/* Prints "lunferry: ..." on stderr, as one line of its own even while a progress bar is shown. From
 * any thread. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Passwords in arguments ------------------------------------------------------------------- */

/* Everybody can read the arguments of a process, and usage errors quote them. Those that hold a
 * password are overwritten where they stand, with "***" for it; call it first. */
void arguments_hide(int argc, char **argv);
/* What the user wrote: `text` is an argument, or a part of one that begins before its password. */
const char *arguments_full(const char *text);
/* Nobody needs them any more. */
void arguments_forget(void);

/* ---- Messages and endpoints ------------------------------------------------------------------- */

/* Replaces control characters: labels and names come from disks and servers of other people. */
void make_printable(char *text);

/* Parses and checks an endpoint; false after having said what is wrong with it. *url is to be
 * released in either case. */
bool endpoint_parse(const char *text, struct url *url);
/* A driver's URL form and its options, for help. */
void endpoint_print_syntax(const struct blk_driver *driver);

/* ---- Options that subcommands share ----------------------------------------------------------- */

/* argp's state for the session options (--timeout, --give-up...), as a child of each command's
 * argp; the input is a struct blk_settings *. */
extern const struct argp session_argp;
void settings_init(struct blk_settings *settings);

/* For parsers: the value of an option, or argp's end of the program with a sentence. */
void option_number(struct argp_state *state, const char *option, const char *arg, uint64_t min,
                   uint64_t max, unsigned *number);
/* The bytes that one request of a job moves. */
void option_chunk(struct argp_state *state, const char *option, const char *arg, uint32_t *chunk);

/* What the user says of images: -f, -l, --allow-backing; and of two that are compared: -f, -F,
 * --allow-backing. As a child of a command's argp; the input is a struct image_options *. */
extern const struct argp image_argp;
extern const struct argp image_pair_argp;

struct image_options {
    struct image_choice choices[2]; /* the second: of B */
    const char **allowed;           /* what both of them point to */
    size_t allowed_count;
};

void image_options_release(struct image_options *images);
void option_format(struct argp_state *state, const char *option, const char *arg,
                   enum image_format *format);

/* What the user says of the image that is made: -O, -o, -c, --compression, -B, -F. As a child of a command's
 * argp; the input is a struct target_options *, which begins as all zeros. */
extern const struct argp target_argp;

struct target_options {
    struct image_layout layout;    /* valid when it is complete */
    enum image_format format;      /* -O; BY_NAME: not said */
    const char *base;              /* -B: an endpoint, as it was written; NULL: none */
    enum image_format base_format; /* -F; BY_NAME: not said */
    /* private */
    const char *properties;      /* the last -o; NULL: none */
    bool type_said, method_said; /* -o compression_type, --compression */
    enum image_compression type, method;
};

/* Puts together what was said, the name of the target, which may tell its format (NULL: there is no target), and
 * what is usual for the rest. layout.backing is `base`, until the caller knows better. False after having said
 * what does not go together. */
bool target_options_complete(struct target_options *target, const struct url *url);

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

/* How far a job is. */
struct progress_now {
    const char *phase; /* "opening both ends" */
    uint64_t total,
        done;          /* bytes; total is 0 as long as it is not known: the phase is shown then */
    bool moved;        /* all bytes are done, what remains takes no bytes: the phase again */
    char requests[64]; /* in flight, in words */
};

struct progress_source {
    void (*look)(const void *job, struct progress_now *now);
    const void *job;
};

struct progress;

/* Shows how a job gets on: a bar redrawn in place on a terminal, or lines from time to time elsewhere
 * if `lines`. */
struct progress *progress_start(struct loop *loop, const struct progress_source *source,
                                bool lines);
/* One line now, whatever was asked for. */
void progress_report(struct loop *loop, const struct progress_source *source, uint64_t started);
/* Takes the bar away. */
void progress_end(struct progress *progress);

/* ---- A command's job -------------------------------------------------------------------------- */

/* What surrounds a job: its loop, the signals, the progress display. */
struct run {
    bool show, quiet;                          /* -p, -q */
    void (*stop)(struct run *run, int number); /* a signal says so */
    struct progress_source shown;              /* set when the job is started */
    bool ended;                                /* set by the job's done() */
    struct loop *loop;
    uint64_t started; /* ns */
    struct signals signals;
};

/* Makes the loop. False after having said why not. */
bool run_open(struct run *run);
void run_until_ended(struct run *run);
/* One line for the user that is no failure. From any thread. */
void run_notice(const struct run *run, bool important, const char *text);

#endif
