/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of `lunferry copy`. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "cmd_copy.h"

enum {
    OPT_IN_ORDER = 0x100,
    OPT_LANES,
    OPT_REQUEST_SIZE,
    OPT_OVERWRITE,
    OPT_SYNC,
    OPT_FLUSH_SIZE,
    OPT_VERIFY,
    OPT_SALVAGE,
    OPT_BAD_BLOCKS,
    OPT_ALLOW_LIVE,
    OPT_RATE_LIMIT,
    OPT_RESUME,
    OPT_JOURNAL,
    OPT_RESERVE,
    OPT_BREAK_RESERVATION,
    OPT_BREAK_LOCK,
    OPT_TARGET_IS_ZERO,
    OPT_ZERO_TAIL,
    OPT_DISCARD,
    OPT_SOURCE_RANGE,
    OPT_TARGET_OFFSET,
    OPT_DRY_RUN,
    OPT_DELTA,
    OPT_BASE_DIGESTS,
    OPT_DIGESTS,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is written:", 1},
    {"overwrite", OPT_OVERWRITE, NULL, 0,
     "Replace a file that exists, or what is on a LUN or block device", 1},
    {NULL, 'n', NULL, 0,
     "Write into the file that is there, in place, instead of making a new one beside it (needs "
     "--overwrite; never truncates)",
     1},
    {"source-range", OPT_SOURCE_RANGE, "OFFSET+LENGTH", 0,
     "Copy only so many bytes of SOURCE, from OFFSET on (64k+1G)", 1},
    {"target-offset", OPT_TARGET_OFFSET, "OFFSET", 0,
     "Write the image from OFFSET on into a LUN, a block device, or a file with -n; what is around "
     "it "
     "stays; its first MiB is not written last then",
     1},
    {NULL, 'S', "SIZE", 0,
     "So many zero bytes in a row, aligned, are not written as data but skipped or zeroed (4k); 0: "
     "everything is written",
     1},
    {"target-is-zero", OPT_TARGET_IS_ZERO, NULL, 0,
     "What exists reads as zeros all over: zeros need not be written (new files and what thin LUNs "
     "report as unallocated are known to)",
     1},
    {"discard", OPT_DISCARD, NULL, 0,
     "Unmap all of the target first, also what lies behind the image; what it does not report as "
     "unallocated then is zeroed where the image is zero",
     1},
    {"zero-tail", OPT_ZERO_TAIL, NULL, 0,
     "Zero what lies behind the image, to the end of the target, too (otherwise it stays)", 1},
    {"delta", OPT_DELTA, NULL, 0,
     "Read what the target holds beside SOURCE, and write only what differs (its first MiB is not "
     "written last then). With -B: compare SOURCE with BASE, also where SOURCE has a backing "
     "file itself",
     1},
    {"digests", OPT_DIGESTS, "FILE", 0,
     "Keep the SHA-256 of every block of a new TARGET in FILE, a path or an nfs:// URL, for "
     "`lunferry checksum --check'; taken from what is read, nothing is read twice",
     1},
    {"base-digests", OPT_BASE_DIGESTS, "FILE", 0,
     "A digest file of BASE (with -B): where SOURCE and BASE are compared, only blocks with "
     "other digests are read from BASE",
     1},
    {"dry-run", OPT_DRY_RUN, NULL, 0,
     "Open both ends and say what would be read, written, zeroed and skipped; change nothing", 1},
    {NULL, 0, NULL, 0, "How:", 2},
    {NULL, 'm', "N", 0,
     "Keep up to N chunks in flight, from their read to their write (8 to 64, by the measured "
     "round trip)",
     2},
    {NULL, 'W', NULL, 0, "Let writes complete out of order (this is the default)", 2},
    {"in-order", OPT_IN_ORDER, NULL, 0,
     "Start each write when all before it are complete (slower; leaves the head of a LUN "
     "unguarded)",
     2},
    {"request-size", OPT_REQUEST_SIZE, "READ[,WRITE]", 0,
     "The longest read and, if that is to be another, the longest write, in bytes: multiples of 4k "
     "up to 16M (512k). A chunk holds the longer of the two",
     2},
    {"lanes", OPT_LANES, "N", 0,
     "Threads, each with connections of its own to both ends and with -m chunks in flight (1)", 2},
    {"rate-limit", OPT_RATE_LIMIT, "BYTES", 0, "Copy at most so many bytes a second (k, M, G)", 2},
    {NULL, 0, NULL, 0, "Safety:", 3},
    {"verify", OPT_VERIFY, NULL, 0,
     "Read the target back when all is written, and compare SHA-256 digests; what differs is "
     "copied "
     "once more",
     3},
    {"sync", OPT_SYNC, NULL, 0,
     "Have each write made durable by itself (slower; otherwise the target is flushed from time to "
     "time, and what a restart of its server has lost is copied again)",
     3},
    {"flush-size", OPT_FLUSH_SIZE, "SIZE", 0,
     "Flush the target after SIZE written, at the latest (1G at first, then as it pays)", 3},
    {"allow-live", OPT_ALLOW_LIVE, NULL, 0,
     "Only warn when the source has changed while it was copied", 3},
    {"salvage", OPT_SALVAGE, NULL, 0,
     "Where the source cannot be read, write zeros and go on; ends with status 5", 3},
    {"bad-blocks", OPT_BAD_BLOCKS, "FILE", 0,
     "List what could not be read in FILE, a line each: offset and length in bytes (with "
     "--salvage)",
     3},
    {"resume", OPT_RESUME, NULL, 0,
     "Go on with a copy that failed or was killed: what it made durable is not copied again", 3},
    {"journal", OPT_JOURNAL, "FILE", 0,
     "Keep the record that --resume needs in FILE, from the start on; `none': keep none (normally: "
     "in $XDG_STATE_HOME/lunferry, ~/.local/state/lunferry or, for root, /var/lib/lunferry, when a "
     "copy takes more than a few seconds)",
     3},
    {"reserve", OPT_RESERVE, NULL, 0,
     "Take a persistent reservation of the target LUN, so that no other initiator writes to it "
     "meanwhile",
     3},
    {"break-reservation", OPT_BREAK_RESERVATION, "KEY", 0,
     "Take the reservation away from the initiator that holds it under KEY (with --reserve)", 3},
    {"break-lock", OPT_BREAK_LOCK, NULL, 0,
     "Take the lock of the target's name away from another lunferry, which is known to be dead", 3},
    {NULL, 0, NULL, 0, "What is shown:", 4},
    {NULL, 'p', NULL, 0, "Show progress and a summary even where stderr is no terminal", 4},
    {NULL, 'q', NULL, 0, "Show errors only", 4},
    {NULL, 0, NULL, 0, "Connections:", 10},
    {0},
};

static const char doc[] =
    "Copies the image at SOURCE to TARGET; several SOURCEs make one image, in their order. Holes "
    "and "
    "zeros are not moved: they are skipped where the target is known to be zero, and otherwise "
    "made "
    "by the cheapest means that it has. A new file gets its name only when it is complete and "
    "durable. A LUN or block device must be at least as large as the image; what lies behind the "
    "image stays as it is; its first MiB is written last, so that an incomplete copy does not "
    "boot. "
    "Connections that are lost are built again. A LUN in use changes unseen: copy a snapshot."
    "\v"
    "Endpoints are iscsi:// and nfs:// URLs, paths, null:SIZE, ram:SIZE and random:SIZE; "
    "`lunferry --help` shows their forms. - is stdin as the SOURCE, stdout as the TARGET: the raw "
    "bytes, of any number. SIZE takes k, M, G, T, P (powers of 1024).\n\n"
    "Signals: SIGINT and SIGTERM stop the copy, remove the temporary file (unless --resume can go "
    "on "
    "with it), and end with 130 or 143; a second one does not wait for what is on the wire. "
    "SIGUSR1 "
    "prints a line of progress.";

/* At least 1. */
static void parse_bytes(struct argp_state *state, const char *option, const char *arg,
                        uint64_t *bytes)
{
    struct blk_error error;

    if (units_parse_size(arg, bytes, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
    if (*bytes == 0)
        argp_error(state, "%s: 0 is too little", option);
}

static void parse_offset(struct argp_state *state, const char *option, const char *arg,
                         uint64_t *bytes)
{
    struct blk_error error;

    if (units_parse_size(arg, bytes, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
}

/* "64k+1G" */
static void parse_range(struct argp_state *state, const char *arg, uint64_t *offset, uint64_t *len)
{
    const char *plus = strchr(arg, '+');
    char *from = plus ? strndup(arg, (size_t)(plus - arg)) : NULL;

    if (*len > 0)
        argp_error(state, "--source-range: one range only");
    if (!plus)
        argp_error(state, "--source-range: \"%s\" is no OFFSET+LENGTH, such as 64k+1G", arg);
    if (!from)
        argp_failure(state, EXIT_UNTOUCHED, ENOMEM, "--source-range");
    parse_offset(state, "--source-range", from, offset);
    free(from);
    parse_offset(state, "--source-range", plus + 1, len);
    if (*len == 0)
        argp_error(state, "--source-range: \"%s\" is empty; a LENGTH of 1 or more is needed", arg);
    if (*len > INT64_MAX - min_u64(*offset, INT64_MAX))
        argp_error(state, "--source-range: \"%s\" ends beyond 8 EiB", arg);
}

/* "64k", "64k,1M". A chunk is as long as the longer one, and whole writes, if that is possible. */
static void parse_request_size(struct argp_state *state, const char *arg, struct copy_options *o)
{
    const char *comma = strchr(arg, ',');
    char *read = strndup(arg, comma ? (size_t)(comma - arg) : strlen(arg));
    uint32_t longer, whole;

    if (!read)
        argp_failure(state, EXIT_UNTOUCHED, ENOMEM, "--request-size");
    option_chunk(state, "--request-size", read, &o->read_size);
    free(read);
    o->write_size = o->read_size;
    if (comma)
        option_chunk(state, "--request-size", comma + 1, &o->write_size);
    longer = o->read_size > o->write_size ? o->read_size : o->write_size;
    whole = (longer + o->write_size - 1) / o->write_size * o->write_size;
    o->chunk = whole <= COPY_MAX_CHUNK ? whole : longer;
}

static void parse_zero_unit(struct argp_state *state, const char *arg, uint32_t *unit)
{
    uint64_t bytes;

    parse_offset(state, "-S", arg, &bytes);
    if (bytes > COPY_MAX_CHUNK)
        argp_error(state, "-S: %s is more than 16M", arg);
    *unit = (uint32_t)bytes;
}

static void add_endpoint(struct argp_state *state, struct copy_command *command, const char *arg)
{
    const char **texts =
        realloc(command->texts, (command->text_count + 1) * sizeof(*command->texts));

    if (!texts) {
        argp_failure(state, EXIT_UNTOUCHED, ENOMEM, "%s", arg);
        return;
    }
    command->texts = texts;
    command->texts[command->text_count++] = arg;
}

/* As messages show it: up to 16 hexadecimal digits. */
static void parse_key(struct argp_state *state, const char *arg, uint64_t *key)
{
    char *end;

    errno = 0;
    *key = strtoull(arg, &end, 16);
    if (errno != 0 || *end != '\0' || *key == 0 || arg[0] == '-')
        argp_error(state, "--break-reservation: \"%s\" is no key of up to 16 hexadecimal digits",
                   arg);
}

static void check_together(struct argp_state *state, const struct copy_command *command)
{
    const struct copy_options *o = &command->options;

    if (command->text_count < 2)
        argp_error(state, "a SOURCE and a TARGET are needed");
    if (command->text_count > COPY_MAX_SOURCES + 1)
        argp_error(state, "more than %d sources", COPY_MAX_SOURCES);
    if (o->source_len > 0 && command->text_count > 2)
        argp_error(state, "--source-range is for one SOURCE, and here are %u",
                   command->text_count - 1);
    if (o->in_order && command->any_order)
        argp_error(state, "-W and --in-order contradict each other");
    if (o->in_order && o->lanes > 1)
        argp_error(state, "--in-order works with one lane only");
    if (o->compare && (o->discard || o->target_is_zero))
        argp_error(state,
                   "--delta counts on what the target holds, and %s says that it holds nothing",
                   o->discard ? "--discard" : "--target-is-zero");
    if (o->compare && o->resume)
        argp_error(state, "--delta begins anew each time: what is there already is not copied");
    if (o->in_place && !o->overwrite)
        argp_error(state, "-n changes the file that is there: it needs --overwrite too");
    if (o->verify && o->chunk % COPY_VERIFY_CHUNK != 0)
        argp_error(state, "with --verify, the longer --request-size is a multiple of 256k");
    if (command->bad_blocks_path && !o->salvage)
        argp_error(state, "--bad-blocks lists what --salvage finds: it needs that too");
    if (o->break_reservation && !o->reserve)
        argp_error(state, "--break-reservation needs --reserve too");
    if (o->resume && o->in_order)
        argp_error(state, "a copy that is written in order cannot be resumed");
    if (o->resume && command->digests_text)
        argp_error(state,
                   "--digests cannot be resumed, for what an earlier run has copied has none; "
                   "`lunferry checksum --digests FILE TARGET' makes them afterwards");
    if (o->resume && o->journal && !o->journal[0])
        argp_error(state, "--resume needs the journal");
    if (command->run.show && command->run.quiet)
        argp_error(state, "-p and -q contradict each other");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct copy_command *command = state->input;
    struct copy_options *o = &command->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->settings;
        state->child_inputs[1] = &command->images;
        state->child_inputs[2] = &command->target;
        break;
    case 'm':
        option_number(state, "-m", arg, 1, COPY_MAX_DEPTH, &o->depth);
        break;
    case 'W':
        command->any_order = true;
        break;
    case OPT_IN_ORDER:
        o->in_order = true;
        break;
    case OPT_LANES:
        option_number(state, "--lanes", arg, 1, COPY_MAX_LANES, &o->lanes);
        break;
    case OPT_REQUEST_SIZE:
        parse_request_size(state, arg, o);
        command->chunk_said = true;
        break;
    case OPT_OVERWRITE:
        o->overwrite = true;
        break;
    case 'n':
        o->in_place = true;
        break;
    case OPT_SYNC:
        o->sync = true;
        break;
    case OPT_FLUSH_SIZE:
        parse_bytes(state, "--flush-size", arg, &o->flush_bytes);
        break;
    case OPT_VERIFY:
        o->verify = true;
        break;
    case OPT_SALVAGE:
        o->salvage = true;
        break;
    case OPT_BAD_BLOCKS:
        command->bad_blocks_path = arg;
        break;
    case OPT_ALLOW_LIVE:
        o->allow_live = true;
        break;
    case OPT_RATE_LIMIT:
        parse_bytes(state, "--rate-limit", arg, &o->rate);
        break;
    case OPT_RESUME:
        o->resume = true;
        break;
    case OPT_JOURNAL:
        o->journal = strcmp(arg, "none") == 0 ? "" : arg;
        break;
    case OPT_RESERVE:
        o->reserve = true;
        break;
    case OPT_BREAK_RESERVATION:
        parse_key(state, arg, &o->break_reservation);
        break;
    case OPT_BREAK_LOCK:
        o->break_lock = true;
        break;
    case 'S':
        parse_zero_unit(state, arg, &o->zero_unit);
        break;
    case OPT_TARGET_IS_ZERO:
        o->target_is_zero = true;
        break;
    case OPT_ZERO_TAIL:
        o->zero_tail = true;
        break;
    case OPT_DISCARD:
        o->discard = true;
        break;
    case OPT_SOURCE_RANGE:
        parse_range(state, arg, &o->source_offset, &o->source_len);
        break;
    case OPT_TARGET_OFFSET:
        parse_offset(state, "--target-offset", arg, &o->target_offset);
        break;
    case OPT_DELTA:
        o->compare = true;
        break;
    case OPT_DIGESTS:
        command->digests_text = arg;
        o->digests = COPY_DIGESTS_OF_TARGET;
        break;
    case OPT_BASE_DIGESTS:
        command->base_digests_text = arg;
        break;
    case OPT_DRY_RUN:
        o->dry_run = true;
        break;
    case 'p':
        command->run.show = true;
        break;
    case 'q':
        command->run.quiet = true;
        break;
    case ARGP_KEY_ARG:
        add_endpoint(state, command, arg);
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
    {&session_argp, 0, NULL, 10}, {&image_argp, 0, NULL, 5}, {&target_argp, 0, NULL, 6}, {0}};
const struct argp copy_argp = {options, parse, "SOURCE... TARGET", doc, children, NULL, NULL};
