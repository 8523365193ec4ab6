/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/secret.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_ROOM 1024 /* longer than any password may be */
#define PATH_ROOM 4096

void secret_guard(void)
{
    const struct rlimit none = {0, 0};

    /* Neither can fail. The limit alone does not count for a core_pattern that is a pipe, and the
     * flag alone not for one who has set fs.suid_dumpable. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &none);
}

/* Up to `size` bytes of a file. Returns how many, or -errno. */
static ssize_t read_start(const char *path, char *text, size_t size)
{
    size_t len = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), code = 0;

    if (fd < 0)
        return -errno;
    do {
        got = read(fd, text + len, size - len);
        if (got > 0)
            len += (size_t)got;
        else if (got < 0 && errno != EINTR)
            code = errno;
    } while (code == 0 && got != 0 && len < size);
    close(fd);
    return code ? -code : (ssize_t)len;
}

static int take_line(const char *text, size_t len, const char *path, const char *what, char *buf,
                     size_t size, struct blk_error *error)
{
    size_t line = 0;

    while (line < len && text[line] != '\n' && text[line] != '\r')
        line++;
    if (memchr(text, '\0', line))
        return blk_error_set(error, EINVAL, "the %s in '%s' has a zero byte", what, path);
    if (line == 0)
        return blk_error_set(error, EINVAL, "the %s in '%s' is empty", what, path);
    if (line >= size)
        return blk_error_set(error, EINVAL, "the %s in '%s' is longer than %zu bytes", what, path,
                             size - 1);
    memcpy(buf, text, line);
    buf[line] = '\0';
    return 0;
}

int secret_from_file(const char *path, const char *what, char *buf, size_t size,
                     struct blk_error *error)
{
    char text[LINE_ROOM] = "";
    ssize_t len;
    int status;

    buf[0] = '\0';
    secret_guard();
    len = read_start(path, text, sizeof(text));
    if (len < 0)
        status = blk_error_set(error, (int)-len, "cannot read the %s from '%s': %s", what, path,
                               strerror((int)-len));
    else
        status = take_line(text, (size_t)len, path, what, buf, size, error);
    explicit_bzero(text, sizeof(text));
    return status;
}

int secret_from_credential(const char *name, const char *what, char *buf, size_t size,
                           struct blk_error *error)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char path[PATH_ROOM];

    buf[0] = '\0';
    if (!directory || directory[0] != '/')
        return 0;
    if (snprintf(path, sizeof(path), "%s/lunferry.%s", directory, name) >= PATH_ROOM)
        return blk_error_set(error, ENAMETOOLONG, "CREDENTIALS_DIRECTORY is too long a name");
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return 0;
    return secret_from_file(path, what, buf, size, error);
}

bool secret_file_is_exposed(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH);
}

void secret_scrub(char *text, const char *shown)
{
    size_t room = strlen(text), len = strnlen(shown, room);

    explicit_bzero(text, room);
    memcpy(text, shown, len);
}
