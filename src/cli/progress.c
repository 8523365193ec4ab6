/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <lunferry/units.h>

#include "cli.h"

#define REDRAW     (200 * LOOP_MSECOND)
#define LINE_EVERY (5 * LOOP_SECOND)

/* The current speed is that of the last few seconds. */
#define SAMPLES 16

struct progress {
    struct loop *loop;
    struct progress_source source;
    struct loop_timer timer;
    bool terminal;
    uint64_t started;
    struct {
        uint64_t at, done;
    } samples[SAMPLES];
    unsigned sample_count;
};

static uint64_t rate(uint64_t bytes, uint64_t ns)
{
    return ns == 0 ? 0 : (uint64_t)((double)bytes * 1e9 / (double)ns);
}

/* "12%  123.0 MiB of 1.00 GiB  812 MiB/s now, 790 MiB/s mean  0:07 left  reads 16, writes 15" */
static void describe(char *text, size_t len, const struct progress_now *now, uint64_t speed,
                     uint64_t mean)
{
    char done[UNITS_TEXT], total[UNITS_TEXT], speed_text[UNITS_TEXT], mean_text[UNITS_TEXT];
    char left[UNITS_TEXT];

    if (now->total == 0 && now->done > 0) /* a stream: nobody knows how much there will be */
        snprintf(text, len, "%s  %s/s now, %s/s mean  %s", units_size(done, now->done),
                 units_size(speed_text, speed), units_size(mean_text, mean), now->requests);
    else if (now->total == 0)
        snprintf(text, len, "%s", now->phase);
    else if (now->moved)
        snprintf(text, len, "100%%  %s, %s/s mean  %s", units_size(total, now->total),
                 units_size(mean_text, mean), now->phase);
    else
        snprintf(text, len, "%3u%%  %s of %s  %s/s now, %s/s mean  %s left  %s",
                 (unsigned)(now->done * 100 / now->total), units_size(done, now->done),
                 units_size(total, now->total), units_size(speed_text, speed),
                 units_size(mean_text, mean),
                 mean > 0 ? units_duration(left, (now->total - now->done + mean - 1) / mean) : "?",
                 now->requests);
}

static unsigned terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

/* The text, and a bar in what is left of the line. */
static void draw(const struct progress_now *now, const char *text)
{
    unsigned width = terminal_width(), used = (unsigned)strlen(text);
    char bar[42] = "";

    if (now->total > 0 && used + 16 < width) {
        unsigned room = width - used - 5;
        unsigned cells = room > sizeof(bar) - 2 ? (unsigned)sizeof(bar) - 2 : room;
        unsigned full = (unsigned)((double)now->done / (double)now->total * cells);

        memset(bar, '#', full);
        memset(bar + full, '.', cells - full);
        bar[cells] = '\0';
        fprintf(stderr, "\r[%s] %s\033[K", bar, text);
    } else {
        fprintf(stderr, "\r%.*s\033[K", (int)width - 1, text);
    }
    fflush(stderr);
}

/* Remembers where it is now; returns the speed since the oldest sample. */
static uint64_t sample(struct progress *progress, uint64_t at, uint64_t done)
{
    unsigned slot = progress->sample_count++ % SAMPLES;
    unsigned oldest = progress->sample_count > SAMPLES ? progress->sample_count % SAMPLES : 0;

    progress->samples[slot].at = at;
    progress->samples[slot].done = done;
    if (done < progress->samples[oldest].done) /* some of it was lost */
        return 0;
    return rate(done - progress->samples[oldest].done, at - progress->samples[oldest].at);
}

static void tick(struct loop_timer *timer)
{
    struct progress *progress = container_of(timer, struct progress, timer);
    uint64_t at = loop_now(progress->loop), speed;
    struct progress_now now;
    char text[256];

    progress->source.look(progress->source.job, &now);
    speed = sample(progress, at, now.done);
    describe(text, sizeof(text), &now, speed, rate(now.done, at - progress->started));
    if (progress->terminal)
        draw(&now, text);
    else
        fprintf(stderr, "lunferry: %s\n", text);
    loop_timer_set(progress->loop, timer, at + (progress->terminal ? REDRAW : LINE_EVERY));
}

struct progress *progress_start(struct loop *loop, const struct progress_source *source, bool lines)
{
    struct progress *progress;
    bool terminal = isatty(STDERR_FILENO);

    if (!terminal && !lines)
        return NULL;
    progress = calloc(1, sizeof(*progress));
    if (!progress)
        return NULL;
    progress->loop = loop;
    progress->source = *source;
    progress->terminal = terminal;
    progress->timer.fire = tick;
    progress->started = loop_now(loop);
    sample(progress, progress->started, 0);
    loop_timer_set(loop, &progress->timer, loop_now(loop) + (terminal ? REDRAW / 4 : LINE_EVERY));
    return progress;
}

void progress_report(struct loop *loop, const struct progress_source *source, uint64_t started)
{
    struct progress_now now;
    char text[256];
    uint64_t mean;

    source->look(source->job, &now);
    mean = rate(now.done, loop_now(loop) - started);
    describe(text, sizeof(text), &now, mean, mean);
    say("%s", text);
}

void progress_end(struct progress *progress)
{
    if (!progress)
        return;
    loop_timer_cancel(progress->loop, &progress->timer);
    if (progress->terminal)
        fputs("\r\033[K", stderr);
    free(progress);
}
