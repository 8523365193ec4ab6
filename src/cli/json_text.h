/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef LUNFERRY_JSON_TEXT_H
#define LUNFERRY_JSON_TEXT_H

#include <jansson.h>

/* A string of a text that comes from other people, and need not be UTF-8. NULL: out of memory. */
json_t *json_text(const char *text);

#endif
