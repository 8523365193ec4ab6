/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json_text.h"

#include <stdio.h>

json_t *json_text(const char *text)
{
    json_t *string = json_string(text);
    char copy[1024];

    if (string)
        return string;
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *c = copy; *c; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    return json_string(copy);
}
