/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef LUNFERRY_INFO_REPORT_H
#define LUNFERRY_INFO_REPORT_H

#include <lunferry/image.h>

/* Prints what an open image is, and those behind it: lines, or a JSON object. 0 or a positive errno. */
int info_report(const struct image *image, bool json);

#endif
