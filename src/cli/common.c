/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the subcommands share: messages, endpoints, session options. */
#include <argp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/driver.h>
#include <lunferry/secret.h>
#include <lunferry/units.h>

#include "cli.h"

#define DEFAULT_TIMEOUT (30 * LOOP_SECOND)
#define DEFAULT_GIVE_UP (600 * LOOP_SECOND)

/* Some terminals obey U+0080 to U+009F as they do the escape sequences that those stand for. */
void make_printable(char *text)
{
    for (; *text; text++) {
        unsigned char here = (unsigned char)text[0], next = (unsigned char)text[1];

        if (here < 0x20 || here == 0x7f) {
            *text = '?';
        } else if (here == 0xc2 && next >= 0x80 && next < 0xa0) {
            *text++ = '?';
            *text = '?';
        }
    }
}

void say(const char *format, ...)
{
    char text[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    make_printable(text);
    /* The bar, if there is one, is drawn anew below. */
    fprintf(stderr, "%slunferry: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", text);
}

static void warn_if_exposed(const char *path)
{
    if (secret_file_is_exposed(path))
        say("everybody on this machine can read the password in %s; `chmod go-rwx' would keep it "
            "to you",
            path);
}

bool endpoint_parse(const char *text, struct url *url)
{
    static const char *const options[] = {"password-file", "mutual-password-file"};
    struct blk_error error;

    if (url_parse(arguments_full(text), url, &error) < 0 || blk_check_url(url, &error) < 0) {
        say("%s", error.text);
        return false;
    }
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (url_param(url, options[i]))
            warn_if_exposed(url_param(url, options[i]));
    }
    return true;
}

void endpoint_print_syntax(const struct blk_driver *driver)
{
    printf("  %s\n", driver->syntax);
    for (const struct url_option *option = driver->options; option && option->name; option++)
        printf("      %s=%s\n", option->name, option->help);
}

void option_number(struct argp_state *state, const char *option, const char *arg, uint64_t min,
                   uint64_t max, unsigned *number)
{
    struct blk_error error;
    uint64_t value = 0;

    if (units_parse_number(arg, min, max, &value, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
    *number = (unsigned)value;
}

void option_chunk(struct argp_state *state, const char *option, const char *arg, uint32_t *chunk)
{
    struct blk_error error;
    uint64_t value = 0;

    if (units_parse_size(arg, &value, &error) < 0)
        argp_error(state, "%s: %s", option, error.text);
    if (value == 0 || value % 4096 != 0 || value > COPY_MAX_CHUNK)
        argp_error(state, "%s: %s is no multiple of 4k between 4k and 16M", option, arg);
    *chunk = (uint32_t)value;
}

enum { OPT_TIMEOUT = 0x200, OPT_GIVE_UP, OPT_INITIATOR, OPT_PASSWORD_FILE };

static const struct argp_option session_options[] = {
    {"timeout", OPT_TIMEOUT, "S", 0,
     "A connection on which nothing moved for S seconds is dead (30)", 10},
    {"give-up", OPT_GIVE_UP, "S", 0,
     "Lost connections are built anew and requests repeated until nothing has moved for S seconds "
     "(600); or `never'",
     10},
    {"initiator-name", OPT_INITIATOR, "IQN", 0,
     "iSCSI initiator name (InitiatorName in /etc/iscsi/initiatorname.iscsi, else made from the "
     "machine id)",
     10},
    {"password-file", OPT_PASSWORD_FILE, "FILE", 0,
     "The first line of FILE is the CHAP password of each endpoint that has a user name and no "
     "password-file= of its own",
     10},
    {0},
};

static error_t parse_session(int key, char *arg, struct argp_state *state)
{
    struct blk_settings *settings = state->input;
    struct blk_error error;

    switch (key) {
    case OPT_TIMEOUT:
        if (units_parse_seconds(arg, &settings->timeout, &error) < 0)
            argp_error(state, "--timeout: %s", error.text);
        return 0;
    case OPT_GIVE_UP:
        if (strcmp(arg, "never") == 0)
            settings->give_up = LOOP_NEVER;
        else if (units_parse_seconds(arg, &settings->give_up, &error) < 0)
            argp_error(state, "--give-up: %s", error.text);
        return 0;
    case OPT_INITIATOR:
        settings->initiator_name = arg;
        return 0;
    case OPT_PASSWORD_FILE:
        settings->password_file = arg;
        warn_if_exposed(arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp session_argp = {session_options, parse_session, NULL, NULL, NULL, NULL, NULL};

void settings_init(struct blk_settings *settings)
{
    *settings = (struct blk_settings){
        .timeout = DEFAULT_TIMEOUT,
        .give_up = DEFAULT_GIVE_UP,
    };
}
