/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets: where they come from other than the command line, and what keeps them from being seen.
 *
 * - secret_guard() comes before a secret is read: from then on the process leaves no core dump, and
 *   nobody but root can look into its memory or its environment (ptrace, /proc/PID).
 * - A secret is kept only as long as it is needed, in memory that is wiped with explicit_bzero().
 * - It never stands in a message; what is told is where it was looked for.
 */
#ifndef LUNFERRY_SECRET_H
#define LUNFERRY_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include <lunferry/error.h>

/* For good, as libraries keep copies that nobody wipes. From any thread, as often as wanted. */
void secret_guard(void);

/* The first line of a file, without its end, as a string in buf. `what` is its name in sentences:
 * "CHAP password". 0; or -EINVAL where it is empty or does not fit, or what the system says, with
 * the sentence and buf "". */
int secret_from_file(const char *path, const char *what, char *buf, size_t size,
                     struct blk_error *error);

/* The same from systemd's credential "lunferry.<name>" (LoadCredential= in systemd.exec(5)). buf is ""
 * with status 0 where there is none. */
int secret_from_credential(const char *name, const char *what, char *buf, size_t size,
                           struct blk_error *error);

/* May anybody on this machine read this regular file? */
bool secret_file_is_exposed(const char *path);

/* Overwrites a string, an argument of main(), with as much of `shown` as has room, and zeros. */
void secret_scrub(char *text, const char *shown);

#endif
