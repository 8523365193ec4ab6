/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What came of a copy: summary, errors, how to go on. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/units.h>

#include "cmd_copy.h"

static void summarise(const struct copy_command *command, const struct copy_result *result)
{
    uint64_t ns = loop_now(command->run.loop) - command->run.started;
    double seconds = (double)ns / 1e9;
    char bytes[UNITS_TEXT], moved[UNITS_TEXT], zeroed[UNITS_TEXT], skipped[UNITS_TEXT];
    char speed[UNITS_TEXT];

    if (command->run.quiet || (!command->run.show && !isatty(STDERR_FILENO)))
        return;
    fprintf(stderr,
            "lunferry: copied %s in %.2f s: %s of data moved (%s/s), %s zeroed, %s skipped\n",
            units_size(bytes, result->bytes), seconds, units_size(moved, result->moved),
            units_size(speed, (uint64_t)((double)result->moved / seconds)),
            units_size(zeroed, result->zeroed), units_size(skipped, result->skipped));
    if (result->resumed > 0)
        fprintf(stderr, "lunferry: %s were there from the earlier run\n",
                units_size(bytes, result->resumed));
    if (result->losses > 0 || result->repeated > 0)
        fprintf(stderr, "lunferry: %u lost connections, %" PRIu64 " repeated requests\n",
                result->losses, result->repeated);
    if (result->lost > 0)
        fprintf(stderr, "lunferry: %s copied again, which a restart of the target had lost\n",
                units_size(bytes, result->lost));
    if (command->options.verify)
        fprintf(stderr, "lunferry: what was written was read back and is the same%s\n",
                result->mended > 0 ? ", after some was copied again" : "");
}

/* An argument as a shell takes it. */
static void print_quoted(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";

    if (text[0] != '\0' && text[strspn(text, plain)] == '\0') {
        fputs(text, stderr);
        return;
    }
    fputc('\'', stderr);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stderr);
        else
            fputc(*text, stderr);
    }
    fputc('\'', stderr);
}

/* An endpoint without its password. */
static const char *argument_text(const struct copy_command *command, const char *arg)
{
    for (unsigned i = 0; i < command->text_count; i++) {
        if (arg == command->texts[i])
            return command->urls[i].text;
    }
    return arg;
}

/* Is it "--digests" or its FILE, or both in one? That cannot be resumed. */
static bool is_digests(const struct copy_command *command, char **arg)
{
    const char *text = command->digests_text;

    return text && (arg[1] == text || (text >= *arg && text <= *arg + strlen(*arg)));
}

static void print_resume(const struct copy_command *command)
{
    fputs("lunferry: go on with: lunferry copy", stderr);
    if (!command->options.resume)
        fputs(" --resume", stderr);
    for (char **arg = command->argv + 1; *arg; arg++) {
        if (is_digests(command, arg))
            continue;
        fputc(' ', stderr);
        print_quoted(argument_text(command, *arg));
    }
    fputc('\n', stderr);
}

/* What the user finds there now. */
static const char *aftermath(const struct copy_result *result)
{
    if (result->complete)
        return "the target is complete";
    if (!result->touched)
        return "nothing was changed";
    if (result->kept)
        return "the file of that name, if there was one, is as it was";
    return "the target is not complete";
}

/* The answer to a question, so on stdout. */
static void print_estimate(const struct copy_command *command, const struct copy_result *result)
{
    const struct copy_estimate *e = &result->estimate;
    char text[UNITS_TEXT];

    printf("to read and write      %s in %" PRIu64 " reads, %" PRIu64 " writes%s\n",
           units_size(text, e->data), e->reads, e->writes,
           command->options.zero_unit > 0 && e->data > 0 ? ", less what turns out to be zeros"
                                                         : "");
    printf("to be made zero        %s in %" PRIu64 " requests\n", units_size(text, e->zeroed),
           e->zeros);
    printf("there already          %s\n", units_size(text, e->skipped));
    printf("size of the image      %s (%" PRIu64 " bytes)\n", units_size(text, e->size), e->size);
    printf("memory for data        %s in %u chunks\n", units_size(text, result->buffer_bytes),
           result->depth * command->options.lanes);
    if (!e->source_tells)
        printf("The source does not tell where its data is: all of it counts as data.\n");
    if (!e->target_tells && command->options.zero_unit > 0)
        printf("The target does not tell what is zero: zeros count as to be made.\n");
    if (e->compares)
        printf("What is equal is found by reading only: all of it counts as to be written.\n");
    if (command->options.discard)
        printf("--discard was not carried out: what it would free counts as it is now.\n");
}

int copy_report(const struct copy_command *command, const struct copy_result *result)
{
    bool interrupted = command->signal && result->error.code == ECANCELED;
    char bad[UNITS_TEXT];

    if (result->status == 0 && command->options.dry_run) {
        print_estimate(command, result);
        errno = 0;
        if (fflush(stdout) == 0 && !ferror(stdout))
            return EXIT_DONE;
        say("writing to stdout failed: %s", strerror(errno ? errno : EIO));
        return EXIT_UNTOUCHED;
    }
    if (result->status == 0) {
        summarise(command, result);
        if (result->bad == 0)
            return EXIT_DONE;
        say("%s of the source could not be read and are zeros in the target",
            units_size(bad, result->bad));
        return EXIT_SALVAGED;
    }
    say("%s; %s", interrupted ? "interrupted" : result->error.text, aftermath(result));
    if (result->resumable) {
        say("what was copied so far is kept");
        print_resume(command);
        if (command->digests_text)
            say("its digests are then made with: lunferry checksum --digests %s %s",
                command->digest_file.text, command->options.target->text);
    }
    if (interrupted)
        return EXIT_SIGNAL + command->signal;
    return result->touched ? EXIT_INCOMPLETE : EXIT_UNTOUCHED;
}
