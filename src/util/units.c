/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything here is done in whole numbers and without the C library's number parsing, which would
 * take signs, blanks and hexadecimal, and whose decimal point depends on the locale.
 */
#include <lunferry/units.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* File offsets are signed (off_t), so no device can be larger. */
#define SIZE_MAX_BYTES ((uint64_t)INT64_MAX)

/* 10^18 is the largest power of ten whose double still fits. */
#define FRACTION_DIGITS 18

#define NS_PER_SECOND UINT64_C(1000000000)
#define YEAR          (UINT64_C(365) * 24 * 60 * 60)

static const char size_help[] =
    "write a number with k, M, G, T or P (powers of 1024) behind it, like 64k or 2.5G";

/* ---- Decimal numbers -------------------------------------------------------------------------- */

/* whole + fraction / scale, as it stands in a text. */
struct decimal {
    uint64_t whole;
    uint64_t fraction, scale; /* scale is 10^digits, fraction < scale */
    bool overflow;            /* the whole part needs more than 64 bits */
    bool too_fine;            /* digits that are not zero were beyond FRACTION_DIGITS */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *scan_whole(const char *text, uint64_t *whole, bool *overflow)
{
    *whole = 0;
    *overflow = false;
    for (; is_digit(*text); text++) {
        uint64_t digit = (uint64_t)(*text - '0');

        if (*whole > (UINT64_MAX - digit) / 10)
            *overflow = true;
        else
            *whole = *whole * 10 + digit;
    }
    return text;
}

static const char *scan_fraction(const char *text, struct decimal *decimal)
{
    for (unsigned digits = 0; is_digit(*text); text++, digits++) {
        if (digits >= FRACTION_DIGITS) {
            if (*text != '0')
                decimal->too_fine = true;
            continue;
        }
        decimal->fraction = decimal->fraction * 10 + (uint64_t)(*text - '0');
        decimal->scale *= 10;
    }
    return text;
}

/* "12", "1.5"; a digit on both sides of the point. Returns where the number ends, or NULL. */
static const char *scan_decimal(const char *text, struct decimal *decimal)
{
    *decimal = (struct decimal){.scale = 1};
    if (!is_digit(*text))
        return NULL;
    text = scan_whole(text, &decimal->whole, &decimal->overflow);
    if (*text != '.')
        return text;
    if (!is_digit(text[1]))
        return NULL;
    return scan_fraction(text + 1, decimal);
}

/* ---- Parsing ---------------------------------------------------------------------------------- */

/* "", "B", "k", "KiB", ... as a power of two. "KB" and the like are refused: to disk makers they are
 * powers of 1000. */
static bool parse_suffix(const char *text, unsigned *shift)
{
    static const char letters[] = "kmgtp";
    const char *letter;

    *shift = 0;
    if (*text == '\0' || strcasecmp(text, "b") == 0)
        return true;
    letter = strchr(letters, *text | 0x20); /* lower case */
    if (letter == NULL)
        return false;
    *shift = 10 * (unsigned)(letter - letters + 1);
    return text[1] == '\0' || strcasecmp(text + 1, "ib") == 0;
}

int units_parse_size(const char *text, uint64_t *bytes, struct blk_error *error)
{
    struct decimal decimal;
    const char *end = scan_decimal(text, &decimal);
    unsigned shift;

    if (end == NULL)
        return blk_error_set(error, EINVAL, "\"%.100s\" is not a size: %s", text, size_help);
    if (!parse_suffix(end, &shift))
        return blk_error_set(error, EINVAL,
                             "\"%.100s\" is not a size: the unit \"%.20s\" is unknown; %s", text,
                             end, size_help);

    /* Doubling shift times is exact, and needs no more than 64 bits. */
    for (; shift > 0; shift--) {
        decimal.fraction *= 2;
        if (decimal.whole > SIZE_MAX_BYTES / 2) {
            decimal.overflow = true;
            break;
        }
        decimal.whole *= 2;
        if (decimal.fraction >= decimal.scale) {
            decimal.fraction -= decimal.scale;
            decimal.whole++;
        }
    }
    if (decimal.overflow || decimal.whole > SIZE_MAX_BYTES)
        return blk_error_set(error, EINVAL,
                             "\"%.100s\" is too large: the largest size is %" PRIu64
                             " bytes, 8 EiB less one byte",
                             text, SIZE_MAX_BYTES);
    if (decimal.fraction > 0 || decimal.too_fine)
        return blk_error_set(error, EINVAL, "\"%.100s\" is not a whole number of bytes", text);
    *bytes = decimal.whole;
    return 0;
}

int units_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number,
                       struct blk_error *error)
{
    uint64_t value;
    bool overflow;

    if (!is_digit(*text) || *scan_whole(text, &value, &overflow) != '\0')
        return blk_error_set(error, EINVAL, "\"%.100s\" is not a whole decimal number", text);
    if (overflow || value < min || value > max)
        return blk_error_set(error, EINVAL,
                             "\"%.100s\" is out of range: it must be from %" PRIu64 " to %" PRIu64,
                             text, min, max);
    *number = value;
    return 0;
}

int units_parse_seconds(const char *text, uint64_t *ns, struct blk_error *error)
{
    struct decimal decimal;
    const char *end = scan_decimal(text, &decimal);
    uint64_t value;

    if (end == NULL || *end != '\0')
        return blk_error_set(
            error, EINVAL, "\"%.100s\" is not a number of seconds: write it like 30 or 0.5", text);
    if (decimal.overflow || decimal.whole > YEAR ||
        (decimal.whole == YEAR && (decimal.fraction > 0 || decimal.too_fine)))
        return blk_error_set(error, EINVAL,
                             "\"%.100s\" is too long: at most a year, %" PRIu64 " seconds", text,
                             YEAR);
    /* Finer than a nanosecond is rounded down. */
    while (decimal.scale > NS_PER_SECOND) {
        decimal.scale /= 10;
        decimal.fraction /= 10;
    }
    value = decimal.whole * NS_PER_SECOND + decimal.fraction * (NS_PER_SECOND / decimal.scale);
    if (value == 0)
        return blk_error_set(error, EINVAL,
                             "\"%.100s\" is too short: it must be more than 0 seconds", text);
    *ns = value;
    return 0;
}

/* ---- Printing --------------------------------------------------------------------------------- */

const char *units_size(char buf[UNITS_TEXT], uint64_t bytes)
{
    static const char prefixes[] = "KMGTPE";
    unsigned unit = 0;
    uint64_t whole, hundredths;

    if (bytes < KIB) {
        snprintf(buf, UNITS_TEXT, "%" PRIu64 " B", bytes);
        return buf;
    }
    while (unit < 5 && bytes >> (10 * (unit + 2)) > 0)
        unit++;
    /* From here on in 1/1024 of the unit, which is exact for KiB and finer than what is shown. */
    bytes >>= 10 * unit;
    whole = bytes / 1024;
    hundredths = (bytes % 1024 * 100 + 512) / 1024;
    if (hundredths == 100) {
        hundredths = 0;
        whole++;
    }
    if (whole == 1024 && unit < 5) {
        whole = 1;
        unit++;
    }
    snprintf(buf, UNITS_TEXT, "%" PRIu64 ".%02" PRIu64 " %ciB", whole, hundredths, prefixes[unit]);
    return buf;
}

const char *units_duration(char buf[UNITS_TEXT], uint64_t seconds)
{
    if (seconds < 60)
        snprintf(buf, UNITS_TEXT, "%" PRIu64 " s", seconds);
    else if (seconds < 3600)
        snprintf(buf, UNITS_TEXT, "%" PRIu64 ":%02" PRIu64, seconds / 60, seconds % 60);
    else
        snprintf(buf, UNITS_TEXT, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, seconds / 3600,
                 seconds / 60 % 60, seconds % 60);
    return buf;
}
