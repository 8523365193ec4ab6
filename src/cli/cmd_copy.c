/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The run of `lunferry copy`. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/units.h>

#include "cmd_copy.h"

/* ---- The run ---------------------------------------------------------------------------------- */

static void notice(void *opaque, bool important, const char *text)
{
    const struct copy_command *command = opaque;

    run_notice(&command->run, important, text);
}

static void bad_range(void *opaque, uint64_t offset, uint64_t len)
{
    const struct copy_command *command = opaque;

    if (command->bad_blocks) {
        fprintf(command->bad_blocks, "%" PRIu64 " %" PRIu64 "\n", offset, len);
        fflush(command->bad_blocks);
    } else {
        say("source: %s: %" PRIu64 " bytes at offset %" PRIu64
            " cannot be read; zeros take their place",
            command->text_count == 2 ? command->urls[0].text : "all together", len, offset);
    }
}

static bool open_bad_blocks(struct copy_command *command)
{
    if (!command->bad_blocks_path)
        return true;
    command->bad_blocks = fopen(command->bad_blocks_path, command->options.resume ? "ae" : "wxe");
    if (!command->bad_blocks)
        say("--bad-blocks: %s: %s", command->bad_blocks_path, strerror(errno));
    return command->bad_blocks != NULL;
}

/* False: the list is not all there. */
static bool close_bad_blocks(struct copy_command *command)
{
    bool good;

    if (!command->bad_blocks)
        return true;
    good = ferror(command->bad_blocks) == 0;
    if (fclose(command->bad_blocks) != 0 || !good) {
        say("--bad-blocks: %s could not be written", command->bad_blocks_path);
        return false;
    }
    return true;
}

static void done(struct copy_job *job, void *opaque)
{
    (void)job;
    ((struct copy_command *)opaque)->run.ended = true;
}

static void out_of_patience(struct loop_timer *timer)
{
    struct copy_command *command = container_of(timer, struct copy_command, patience);

    say("interrupted; something does not let go, a temporary file may be left");
    _exit(EXIT_SIGNAL + command->signal);
}

static void on_stop(struct run *run, int number)
{
    struct copy_command *command = container_of(run, struct copy_command, run);

    switch (++command->signal_count) {
    case 1:
        command->signal = number;
        copy_stop(command->job);
        break;
    case 2:
        copy_abort(command->job);
        command->patience.fire = out_of_patience;
        loop_timer_set(command->run.loop, &command->patience,
                       loop_now(command->run.loop) + LOOP_SECOND);
        break;
    default:
        out_of_patience(&command->patience);
    }
}

static const char *phase_name(enum copy_phase phase)
{
    switch (phase) {
    case COPY_OPENING:
        return "opening both ends";
    case COPY_CHECKING:
        return "checking both ends";
    case COPY_PREPARING:
        return "preparing the target";
    case COPY_COPYING:
        return "copying";
    case COPY_FINISHING:
        return "making it durable";
    case COPY_RECORDING:
        return "writing the digests";
    case COPY_CLOSING:
    case COPY_ENDED:
        return "closing";
    }
    return "?";
}

static void look(const void *job, struct progress_now *now)
{
    struct copy_progress copy;

    copy_progress(job, &copy);
    now->phase = phase_name(copy.phase);
    now->total = copy.total;
    now->done = copy.done;
    if (copy.data_total > 0) { /* zeros take no time to speak of */
        now->total = copy.data_total;
        now->done = min_u64(copy.data_done, copy.data_total);
    }
    now->moved = copy.phase > COPY_COPYING;
    snprintf(now->requests, sizeof(now->requests), "reads %u, writes %u", copy.reading,
             copy.writing);
    if (copy.verified > 0 && copy.verified < copy.total) {
        now->total = copy.total;
        now->done = copy.verified;
        snprintf(now->requests, sizeof(now->requests), "reading it back");
    }
}

static int run(struct copy_command *command)
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
    loop_timer_cancel(command->run.loop, &command->patience);
    status = copy_report(command, copy_result(command->job));
    copy_free(command->job);
    loop_free(command->run.loop);
    return status;
}

/* All of them, so that all faults are told at once. */
static bool parse_endpoints(struct copy_command *command)
{
    bool good = true;

    command->urls = calloc(command->text_count, sizeof(*command->urls));
    if (!command->urls) {
        say("out of memory");
        return false;
    }
    for (unsigned i = 0; i < command->text_count; i++)
        good = endpoint_parse(command->texts[i], &command->urls[i]) && good;
    if (command->digests_text) {
        good = endpoint_parse(command->digests_text, &command->digest_file) && good;
        command->options.digest_file = &command->digest_file;
    }
    if (command->base_digests_text) {
        good = endpoint_parse(command->base_digests_text, &command->base_digests) && good;
        command->options.base_digests = &command->base_digests;
    }
    return good;
}

/* The backing file, where it is and how the image will name it. */
static bool find_base(struct copy_command *command)
{
    struct target_options *target = &command->target;
    const struct url *url = &command->urls[command->text_count - 1];
    enum image_format format = target->base_format;
    struct blk_error error;

    if (!target->base && command->base_digests_text) {
        say("--base-digests are those of BASE, and -B names none");
        return false;
    }
    if (!target->base)
        return true;
    if (image_backing_name(url, arguments_full(target->base), &command->base,
                           &command->base_recorded, &error) < 0) {
        say("-B: %s", error.text);
        return false;
    }
    if (format == IMAGE_BY_NAME)
        format = image_format_of(&command->base);
    target->layout.backing = command->base_recorded;
    target->layout.backing_format = image_format_name(format ? format : IMAGE_RAW);
    if (image_layout_complete(&target->layout, &error) < 0) {
        say("%s", error.text);
        return false;
    }
    command->options.base = &command->base;
    command->options.base_image = command->images.choices[0];
    command->options.base_image.snapshot = NULL;
    command->options.base_image.format = target->base_format;
    return true;
}

static bool refuse_for_format(const char *option, const char *why)
{
    say("%s: %s", option, why);
    return false;
}

/* What only a raw image has, or only one that is there already. */
static bool check_format(const struct copy_command *command)
{
    static const char whole[] = "an image of the format qcow2 is always made anew and whole; for "
                                "raw targets only (-O raw)";
    const struct copy_options *o = &command->options;

    if (!image_layout_has_format(&command->target.layout))
        return true;
    if (o->in_place)
        return refuse_for_format("-n", whole);
    if (o->target_offset > 0)
        return refuse_for_format("--target-offset", whole);
    if (o->zero_tail)
        return refuse_for_format("--zero-tail", whole);
    if (o->discard)
        return refuse_for_format("--discard", whole);
    if (o->target_is_zero)
        return refuse_for_format("--target-is-zero", whole);
    if (o->resume)
        return refuse_for_format("--resume", "what an unfinished qcow2 image holds is known only "
                                             "when it is finished: start anew");
    if (o->compare && !command->target.base)
        return refuse_for_format("--delta", "a new image holds nothing that SOURCE could differ "
                                            "from, unless -B names its backing image");
    if (o->verify)
        return refuse_for_format("--verify", "a qcow2 image can be read when it is finished: "
                                             "`lunferry compare SOURCE TARGET' does it then");
    return true;
}

/* Chunks are whole clusters. */
static bool fit_chunk(struct copy_command *command)
{
    const struct image_layout *layout = &command->target.layout;

    if (!image_layout_has_format(layout) || command->options.chunk % layout->cluster_size == 0)
        return true;
    if (command->chunk_said) {
        say("--request-size: %" PRIu32 " bytes are no multiple of the cluster size, %" PRIu32,
            command->options.chunk, layout->cluster_size);
        return false;
    }
    command->options.chunk = layout->cluster_size;
    return true;
}

static bool choose_format(struct copy_command *command)
{
    if (!target_options_complete(&command->target, &command->urls[command->text_count - 1]) ||
        !find_base(command) || !check_format(command) || !fit_chunk(command))
        return false;
    command->options.layout = command->target.layout;
    return true;
}

static void release_endpoints(struct copy_command *command)
{
    for (unsigned i = 0; command->urls && i < command->text_count; i++)
        url_release(&command->urls[i]);
    url_release(&command->base);
    free(command->base_recorded);
    free(command->urls);
    free(command->texts);
    url_release(&command->digest_file);
    url_release(&command->base_digests);
    image_options_release(&command->images);
}

int cmd_copy(int argc, char **argv)
{
    struct copy_command command = {
        .options =
            {
                .lanes = 1,
                .chunk = COPY_DEFAULT_CHUNK,
                .zero_unit = COPY_DEFAULT_ZERO_UNIT,
                .notice = notice,
                .bad_range = bad_range,
                .done = done,
                .opaque = &command,
            },
    };
    mode_t mask = umask(0);
    int status = EXIT_UNTOUCHED;

    umask(mask);
    command.options.mode = 0666 & ~mask;
    settings_init(&command.options.settings);
    command.argv = argv;
    argp_err_exit_status = EXIT_UNTOUCHED;
    argv[0] = (char *)(uintptr_t) "lunferry copy";
    argp_parse(&copy_argp, argc, argv, 0, NULL, &command);
    if (parse_endpoints(&command) && choose_format(&command) && open_bad_blocks(&command)) {
        command.options.image = command.images.choices[0];
        command.options.sources = command.urls;
        command.options.source_count = command.text_count - 1;
        command.options.target = &command.urls[command.text_count - 1];
        status = run(&command);
    }
    if (!close_bad_blocks(&command) && (status == EXIT_DONE || status == EXIT_SALVAGED))
        status = EXIT_INCOMPLETE;
    release_endpoints(&command);
    return status;
}
