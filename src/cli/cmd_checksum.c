/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A checksum is a copy to nowhere, of which the digests are kept. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/digest.h>
#include <lunferry/units.h>

#include "cli.h"
#include "json_text.h"

#define NOWHERE "null:8191P"

enum { OPT_DIGESTS = 0x100, OPT_CHECK, OPT_OVERWRITE, OPT_LANES, OPT_REQUEST_SIZE, OPT_JSON };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is done with the digests:", 1},
    {"digests", OPT_DIGESTS, "FILE", 0,
     "Write the SHA-256 of every block to FILE, a path or an nfs:// URL, for later checks", 1},
    {"check", OPT_CHECK, NULL, 0,
     "Compare with the digests in FILE instead, and print the START and LENGTH of every range of "
     "blocks that differs, in bytes, a line each",
     1},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "Replace FILE, if it is a digest file", 1},
    {NULL, 0, NULL, 0, "How:", 2},
    {NULL, 'm', "N", 0, "Keep up to N chunks in flight (8 to 64, by the measured round trip)", 2},
    {"lanes", OPT_LANES, "N", 0,
     "Threads, each with a connection of its own and with -m chunks in flight (1)", 2},
    {"request-size", OPT_REQUEST_SIZE, "SIZE", 0,
     "Bytes of one chunk, a multiple of 4k up to 16M (512k); whole blocks in any case", 2},
    {NULL, 0, NULL, 0, "What is shown:", 3},
    {"json", OPT_JSON, NULL, 0,
     "Print the answer as a JSON object on one line; with --check, one for each range before it",
     3},
    {NULL, 'p', NULL, 0, "Show progress even where stderr is no terminal", 3},
    {NULL, 'q', NULL, 0, "Show errors and the answer only; of --check, only the ranges", 3},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Reads ENDPOINT, of which only data is read where it tells where that is, and prints one "
    "digest "
    "of "
    "all of it: SHA-256 over the digests of its blocks, which is the same for the same content, "
    "however sparse."
    "\v"
    "ENDPOINT is an iscsi:// or nfs:// URL, a path, null:SIZE, ram:SIZE or random:SIZE; "
    "`lunferry --help` shows their forms. A digest file stands for one file with its size and "
    "mtime, and is refused for any other; LUNs and block devices have none.\n\n"
    "Exit status: 0 done, or the same; 1 different from FILE; 2 it could not be opened, FILE is of "
    "no use, or usage; 3 reading failed, or FILE could not be written; 130 and 143 interrupted. "
    "SIGUSR1 prints a line of progress.";

struct checksum_command {
    struct run run;
    struct url url, nowhere, file;
    const char *text, *file_text;
    struct copy_options options;
    struct image_options images;
    bool check, json;
    struct copy_job *job;
    int signal;       /* the first one that came; 0: none */
    int output_error; /* errno of writing to stdout; 0: none */
};

/* ---- Options ---------------------------------------------------------------------------------- */

static void check_together(struct argp_state *state, const struct checksum_command *command)
{
    if (!command->text)
        argp_error(state, "an ENDPOINT is needed");
    if (command->check && !command->file_text)
        argp_error(state, "--check needs the digests to compare with: --digests FILE");
    if (command->check && command->options.overwrite)
        argp_error(state, "--check reads the digest file: there is nothing to --overwrite");
    if (command->run.show && command->run.quiet)
        argp_error(state, "-p and -q contradict each other");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct checksum_command *command = state->input;
    struct copy_options *o = &command->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->settings;
        state->child_inputs[1] = &command->images;
        break;
    case OPT_DIGESTS:
        command->file_text = arg;
        break;
    case OPT_CHECK:
        command->check = true;
        break;
    case OPT_OVERWRITE:
        o->overwrite = true;
        break;
    case 'm':
        option_number(state, "-m", arg, 1, COPY_MAX_DEPTH, &o->depth);
        break;
    case OPT_LANES:
        option_number(state, "--lanes", arg, 1, COPY_MAX_LANES, &o->lanes);
        break;
    case OPT_REQUEST_SIZE:
        option_chunk(state, "--request-size", arg, &o->chunk);
        break;
    case OPT_JSON:
        command->json = true;
        break;
    case 'p':
        command->run.show = true;
        break;
    case 'q':
        command->run.quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (command->text)
            argp_error(state, "\"%s\" is one argument too many: only ENDPOINT", arg);
        command->text = arg;
        break;
    case ARGP_KEY_END:
        check_together(state, command);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {
    {&session_argp, 0, NULL, 10}, {&image_argp, 0, NULL, 5}, {0}};
static const struct argp argp = {options, parse, "ENDPOINT", doc, children, NULL, NULL};

/* ---- JSON ------------------------------------------------------------------------------------- */

/* A line; takes the object over. */
static void print_object(struct checksum_command *command, json_t *object)
{
    if (!object || json_dumpf(object, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        if (command->output_error == 0)
            command->output_error = !object ? ENOMEM : errno ? errno : EIO;
    }
    json_decref(object);
}

static void print_json(struct checksum_command *command, const struct copy_result *result)
{
    const struct copy_digest_result *digests = &result->digests;
    bool answered = result->status == 0;
    char root[DIGEST_TEXT];
    json_t *object = json_pack("{s:o}", "endpoint", json_text(command->url.text));

    if (object && answered) {
        json_object_set_new(object, "root", json_string(digest_text(root, digests->root)));
        json_object_set_new(object, "block-size", json_integer(digests->block));
        json_object_set_new(object, "size", json_integer((json_int_t)digests->size));
        json_object_set_new(object, "mtime-ns",
                            digests->mtime_ns ? json_integer(digests->mtime_ns) : json_null());
    }
    if (object && answered && command->check) {
        json_object_set_new(object, "same", json_boolean(digests->ranges == 0));
        json_object_set_new(object, "ranges", json_integer((json_int_t)digests->ranges));
        json_object_set_new(object, "range-bytes", json_integer((json_int_t)digests->range_bytes));
    }
    if (object && !answered)
        json_object_set_new(object, "error", json_text(result->error.text));
    print_object(command, object);
}

/* ---- What is told ----------------------------------------------------------------------------- */

static void differs(void *opaque, uint64_t offset, uint64_t len)
{
    struct checksum_command *command = opaque;

    if (command->output_error)
        return;
    errno = 0;
    /* The bar, if there is one, is drawn anew below. */
    if (isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (command->json)
        print_object(command, json_pack("{s:I, s:I}", "start", (json_int_t)offset, "length",
                                        (json_int_t)len));
    else if (printf("%" PRIu64 " %" PRIu64 "\n", offset, len) < 0)
        command->output_error = errno ? errno : EIO;
}

/* The ranges have stdout for themselves. */
static void print_answer(const struct checksum_command *command, const struct copy_result *result)
{
    const struct copy_digest_result *digests = &result->digests;
    char root[DIGEST_TEXT];

    if (digests->ranges > 0) {
        if (!command->run.quiet)
            say("%s is not what %s says: %" PRIu64 " bytes in %" PRIu64 " range%s of blocks",
                command->url.text, command->file.text, digests->range_bytes, digests->ranges,
                digests->ranges == 1 ? "" : "s");
        return;
    }
    if (command->run.quiet && command->check)
        return;
    printf("%s  %s  %" PRIu64 " bytes in blocks of %" PRIu32 "%s\n",
           digest_text(root, digests->root), command->url.text, digests->size, digests->block,
           command->check ? ": the same" : "");
}

static int report(struct checksum_command *command, const struct copy_result *result)
{
    bool interrupted = command->signal && result->error.code == ECANCELED;

    errno = 0;
    if (command->json && !command->output_error)
        print_json(command, result);
    else if (result->status == 0)
        print_answer(command, result);
    if ((fflush(stdout) != 0 || ferror(stdout)) && !command->output_error)
        command->output_error = errno ? errno : EIO;
    if (command->output_error) {
        say("writing to stdout failed: %s", strerror(command->output_error));
        return EXIT_INCOMPLETE;
    }
    if (result->status < 0) {
        say("%s", interrupted ? "interrupted" : result->error.text);
        if (interrupted)
            return EXIT_SIGNAL + command->signal;
        return result->touched ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
    }
    return result->digests.ranges > 0 ? EXIT_DIFFERENT : EXIT_DONE;
}

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct checksum_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void done(struct copy_job *job, void *opaque)
{
    (void)job;
    ((struct checksum_command *)opaque)->run.ended = true;
}

static void look(const void *job, struct progress_now *now)
{
    struct copy_progress copy;

    copy_progress(job, &copy);
    now->phase = copy.phase < COPY_COPYING ? "opening" : "comparing or writing the digests";
    now->total = copy.total;
    now->done = copy.done;
    if (copy.data_total > 0) { /* zeros take no time to speak of */
        now->total = copy.data_total;
        now->done = min_u64(copy.data_done, copy.data_total);
    }
    now->moved = copy.phase > COPY_COPYING;
    snprintf(now->requests, sizeof(now->requests), "reads %u", copy.reading);
}

/* A digest file that is being written gets its name, or its temporary file goes. */
static void on_stop(struct run *run, int number)
{
    struct checksum_command *command = container_of(run, struct checksum_command, run);

    if (command->signal == 0) {
        command->signal = number;
        copy_stop(command->job);
    } else {
        copy_abort(command->job);
    }
}

static int run(struct checksum_command *command)
{
    int status;

    if (!run_open(&command->run))
        return EXIT_UNTOUCHED;
    command->job = copy_start(command->run.loop, &command->options);
    if (!command->job) {
        say("out of memory");
        loop_free(command->run.loop);
        return EXIT_UNTOUCHED;
    }
    command->run.shown = (struct progress_source){look, command->job};
    command->run.stop = on_stop;
    run_until_ended(&command->run);
    status = report(command, copy_result(command->job));
    copy_free(command->job);
    loop_free(command->run.loop);
    return status;
}

/* Both, so that both faults are told at once. */
static bool parse_endpoints(struct checksum_command *command)
{
    bool good = endpoint_parse(command->text, &command->url);

    if (command->file_text) {
        good &= endpoint_parse(command->file_text, &command->file);
        command->options.digest_file = &command->file;
    }
    return endpoint_parse(NOWHERE, &command->nowhere) && good;
}

int cmd_checksum(int argc, char **argv)
{
    struct checksum_command command = {
        .options =
            {
                .source_count = 1,
                .lanes = 1,
                .chunk = COPY_DEFAULT_CHUNK,
                .zero_unit = COPY_DEFAULT_ZERO_UNIT,
                .journal = "",
                .digests = COPY_DIGESTS_OF_SOURCE,
                .differs = differs,
                .notice = notice,
                .done = done,
                .opaque = &command,
            },
    };
    mode_t mask = umask(0);
    int status = EXIT_UNTOUCHED;

    umask(mask);
    command.options.mode = 0666 & ~mask;
    settings_init(&command.options.settings);
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry checksum";
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    command.options.sources = &command.url;
    command.options.target = &command.nowhere;
    command.options.image = command.images.choices[0];
    if (command.check)
        command.options.digests = COPY_DIGESTS_CHECK;
    if (parse_endpoints(&command))
        status = run(&command);
    url_release(&command.url);
    url_release(&command.nowhere);
    url_release(&command.file);
    image_options_release(&command.images);
    return status;
}
