/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where journals are, and what else is kept between runs. */
#include "journal_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int journal_directory(char buf[JOURNAL_PATH], struct blk_error *error)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int len;

    /* The XDG base directory specification wants relative ones ignored. */
    if (state && state[0] == '/')
        len = snprintf(buf, JOURNAL_PATH, "%s/lunferry", state);
    else if (geteuid() == 0)
        len = snprintf(buf, JOURNAL_PATH, "/var/lib/lunferry");
    else if (home && home[0] == '/')
        len = snprintf(buf, JOURNAL_PATH, "%s/.local/state/lunferry", home);
    else
        return blk_error_set(error, ENOENT,
                             "there is no place for a journal: neither XDG_STATE_HOME nor HOME is "
                             "set to an absolute path");
    if (len >= JOURNAL_PATH - 32)
        return blk_error_set(error, ENAMETOOLONG, "the directory for journals has too long a name");
    return len;
}

int journal_default_path(char buf[JOURNAL_PATH], const char *source, const char *target,
                         struct blk_error *error)
{
    struct digest *digest = digest_new(error);
    uint8_t result[DIGEST_SIZE];
    char digits[DIGEST_TEXT];
    int len;

    if (!digest)
        return error ? -error->code : -ENOMEM;
    digest_begin(digest);
    digest_add(digest, source, strlen(source) + 1);
    digest_add(digest, target, strlen(target));
    digest_end(digest, result);
    digest_free(digest);
    digest_text(digits, result);
    len = journal_directory(buf, error);
    if (len < 0)
        return len;
    snprintf(buf + len, JOURNAL_PATH - (size_t)len, "/%.16s.journal", digits);
    return 0;
}

int journal_make_directories(const char *path, struct blk_error *error)
{
    char part[JOURNAL_PATH];

    if (snprintf(part, sizeof(part), "%s", path) >= JOURNAL_PATH)
        return blk_error_set(error, ENAMETOOLONG, "the journal has too long a name");
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0700) < 0 && errno != EEXIST) {
            int code = errno;

            /* Some systems refuse before they see that it is there. */
            if (access(part, F_OK) < 0)
                return blk_error_set(error, code, "making the directory %s: %s", part,
                                     strerror(code));
        }
        *slash = '/';
    }
    return 0;
}
