/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fields of the data that a command brought. All of it is treated as hostile. */
#include "private.h"

#include <ctype.h>

struct answer answer_of(const struct scsi_task *task)
{
    return (struct answer){task->datain.data,
                           task->datain.size > 0 ? (size_t)task->datain.size : 0};
}

uint64_t answer_get(const struct answer *answer, size_t at, size_t bytes)
{
    uint64_t value = 0;

    if (at + bytes > answer->len)
        return 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | answer->data[at + i];
    return value;
}

bool answer_bit(const struct answer *answer, size_t at, unsigned number)
{
    return (answer_get(answer, at, 1) >> number & 1) != 0;
}

void answer_text(const struct answer *answer, size_t at, size_t len, char *text, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < len && at + i < answer->len && used + 1 < size; i++) {
        unsigned char c = answer->data[at + i];

        if (c == '\0')
            break;
        if (used > 0 || c != ' ')
            text[used++] = isprint(c) ? (char)c : '?';
    }
    while (used > 0 && text[used - 1] == ' ')
        used--;
    text[used] = '\0';
}
