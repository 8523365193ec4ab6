/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <lunferry/digest.h>

/* ---- Files of the system ---------------------------------------------------------------------- */

/* At most size - 1 bytes of a file in /proc or /etc, which do not wait for any disk for long.
 * text is "" when it cannot be read. */
static void read_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

    text[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static uint64_t inode(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static void read_machine(char machine[33])
{
    static const char purpose[] = "lunferry holder ";
    char id[64], digits[DIGEST_TEXT];
    uint8_t result[DIGEST_SIZE];
    struct digest *digest = digest_new(NULL);

    machine[0] = '\0';
    read_file("/etc/machine-id", id, sizeof(id));
    /* "uninitialized" stands there early in a first boot. */
    if (digest && strspn(id, "0123456789abcdef") == 32) {
        digest_begin(digest);
        digest_add(digest, purpose, sizeof(purpose) - 1);
        digest_add(digest, id, 32);
        digest_end(digest, result);
        snprintf(machine, 33, "%.32s", digest_text(digits, result));
    }
    digest_free(digest);
}

/* ---- Processes -------------------------------------------------------------------------------- */

struct process {
    bool known;
    char state;
    uint64_t threads, started;
};

/* /proc/PID/stat, proc(5). The program's name, the second field, may hold anything: fields are
 * counted from its ')' on. */
static struct process look_at(uint64_t pid)
{
    struct process process = {0};
    char path[40], text[1024], *field, *end;

    snprintf(path, sizeof(path), "/proc/%" PRIu64 "/stat", pid);
    read_file(path, text, sizeof(text));
    field = strrchr(text, ')');
    if (!field || field[1] != ' ')
        return process;
    field += 2;
    process.state = *field;
    for (unsigned number = 3; number < 22; number++) {
        field = strchr(field, ' ');
        if (!field)
            return process;
        field++;
        if (number + 1 == 20)
            process.threads = strtoull(field, NULL, 10);
    }
    process.started = strtoull(field, &end, 10);
    process.known = *end == ' ';
    return process;
}

void holder_self(struct holder *holder)
{
    *holder = (struct holder){
        .pid_namespace = inode("/proc/self/ns/pid"),
        .time_namespace = inode("/proc/self/ns/time"),
        .pid = (uint64_t)getpid(),
        .started = look_at((uint64_t)getpid()).started,
        .since = time(NULL),
    };
    if (gethostname(holder->host, sizeof(holder->host)) < 0)
        holder->host[0] = '\0';
    holder->host[sizeof(holder->host) - 1] = '\0';
    for (char *c = holder->host; *c; c++) {
        if (*c <= ' ' || *c >= 0x7f)
            *c = '?';
    }
    read_machine(holder->machine);
    read_file("/proc/sys/kernel/random/boot_id", holder->boot, sizeof(holder->boot));
    holder->boot[strspn(holder->boot, "0123456789abcdef-")] = '\0';
}

/* ---- Lines ------------------------------------------------------------------------------------ */

const char *holder_encode(const struct holder *holder, char text[HOLDER_TEXT])
{
    snprintf(text, HOLDER_TEXT,
             "host=%s machine=%s boot=%s pid-namespace=%" PRIu64 " time-namespace=%" PRIu64
             " pid=%" PRIu64 " started=%" PRIu64 " since=%" PRId64,
             holder->host, holder->machine, holder->boot, holder->pid_namespace,
             holder->time_namespace, holder->pid, holder->started, holder->since);
    return text;
}

/* Takes "key=value" and what separates it from the next one. */
static bool take(const char **text, const char *key, char *value, size_t size)
{
    size_t key_len = strlen(key), len;

    if (strncmp(*text, key, key_len) != 0 || (*text)[key_len] != '=')
        return false;
    *text += key_len + 1;
    len = strcspn(*text, " ");
    if (len >= size)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((*text)[i] < 0x20 || (*text)[i] == 0x7f)
            return false;
    }
    memcpy(value, *text, len);
    value[len] = '\0';
    *text += len;
    *text += **text == ' ';
    return true;
}

static bool take_number(const char **text, const char *key, uint64_t *number)
{
    char digits[24], *end;

    if (!take(text, key, digits, sizeof(digits)) || digits[0] < '0' || digits[0] > '9')
        return false;
    errno = 0;
    *number = strtoull(digits, &end, 10);
    return errno == 0 && *end == '\0';
}

bool holder_decode(struct holder *holder, const char *text)
{
    uint64_t since;

    *holder = (struct holder){0};
    if (!take(&text, "host", holder->host, sizeof(holder->host)) ||
        !take(&text, "machine", holder->machine, sizeof(holder->machine)) ||
        !take(&text, "boot", holder->boot, sizeof(holder->boot)) ||
        !take_number(&text, "pid-namespace", &holder->pid_namespace) ||
        !take_number(&text, "time-namespace", &holder->time_namespace) ||
        !take_number(&text, "pid", &holder->pid) ||
        !take_number(&text, "started", &holder->started) || !take_number(&text, "since", &since))
        return false;
    holder->since = (int64_t)since;
    return *text == '\0';
}

const char *holder_describe(const struct holder *holder, char text[HOLDER_WORDS])
{
    time_t since = (time_t)holder->since;
    char when[40] = "an unknown time";
    struct tm tm;

    if (gmtime_r(&since, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
    snprintf(text, HOLDER_WORDS, "process %" PRIu64 " on host %s since %s", holder->pid,
             holder->host[0] ? holder->host : "(without a name)", when);
    return text;
}

/* ---- Gone? ------------------------------------------------------------------------------------ */

/* Machines that were cloned with their machine id have names of their own at least. */
static bool same_machine(const struct holder *a, const struct holder *b)
{
    return a->machine[0] && strcmp(a->machine, b->machine) == 0 && strcmp(a->host, b->host) == 0;
}

bool holder_equal(const struct holder *a, const struct holder *b)
{
    return strcmp(a->host, b->host) == 0 && strcmp(a->machine, b->machine) == 0 &&
           strcmp(a->boot, b->boot) == 0 && a->pid_namespace == b->pid_namespace &&
           a->pid == b->pid && a->started == b->started;
}

static bool process_is_gone(const struct holder *holder)
{
    struct process process;

    if (holder->pid == 0 || holder->pid > INT32_MAX)
        return false;
    if (kill((pid_t)holder->pid, 0) < 0 && errno == ESRCH)
        return true;
    /* /proc may be mounted so that it hides the processes of others. */
    process = look_at(holder->pid);
    if (!process.known || holder->started == 0)
        return false;
    if (process.started != holder->started)
        return true;
    /* Killed, and not waited for yet. While it has more threads, one of them may still be in a
     * write that does not end. */
    return process.state == 'Z' && process.threads <= 1;
}

bool holder_is_gone(const struct holder *holder, const struct holder *here)
{
    if (!same_machine(holder, here) || !holder->boot[0] || !here->boot[0])
        return false;
    if (strcmp(holder->boot, here->boot) != 0)
        return true;
    /* A start time is counted in the reader's time namespace. */
    if (holder->pid_namespace != here->pid_namespace || here->pid_namespace == 0 ||
        holder->time_namespace != here->time_namespace)
        return false;
    return process_is_gone(holder);
}
