/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/error.h>

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set(struct blk_error *error, int code, enum blk_retry retry, const char *format,
                va_list args) __attribute__((format(printf, 4, 0)));

static void set(struct blk_error *error, int code, enum blk_retry retry, const char *format,
                va_list args)
{
    /* Through a buffer of its own: the arguments may point into error->text. */
    char text[sizeof(error->text)];

    vsnprintf(text, sizeof(text), format, args);
    error->code = code;
    error->retry = retry;
    error->whole = false;
    memcpy(error->text, text, sizeof(text));
}

int blk_error_set(struct blk_error *error, int code, const char *format, ...)
{
    assert(code > 0);
    if (error) {
        va_list args;

        va_start(args, format);
        set(error, code, BLK_FATAL, format, args);
        va_end(args);
    }
    return -code;
}

int blk_error_set_retry(struct blk_error *error, int code, enum blk_retry retry, const char *format,
                        ...)
{
    assert(code > 0);
    if (error) {
        va_list args;

        va_start(args, format);
        set(error, code, retry, format, args);
        va_end(args);
    }
    return -code;
}

void blk_error_prefix(struct blk_error *error, const char *format, ...)
{
    char prefix[sizeof(error->text)];
    const char *cause = error->text[0] ? error->text : strerror(error->code);
    size_t room = sizeof(error->text) - sizeof(": ");
    va_list args;

    va_start(args, format);
    vsnprintf(prefix, sizeof(prefix), format, args);
    va_end(args);
    /* Where not all finds room, the end of a long name is the least loss. */
    room = strlen(cause) < room - 40 ? room - strlen(cause) : 40;
    if (strlen(prefix) > room)
        strcpy(prefix + room - 3, "...");
    blk_error_set_retry(error, error->code, error->retry, "%s: %s", prefix, cause);
}

void blk_error_clear(struct blk_error *error)
{
    error->code = 0;
    error->retry = BLK_FATAL;
    error->whole = false;
    error->text[0] = '\0';
}
