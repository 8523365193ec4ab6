/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The only file that names every driver. It includes no driver's header: the tables are all that
 * the rest of the program knows of them. */
#include <lunferry/driver.h>

#include <string.h>

extern const struct blk_driver iscsi_driver, nfs_driver, file_driver, null_driver, ram_driver,
    random_driver, stream_driver;

static const struct blk_driver *const drivers[] = {
    &iscsi_driver, &nfs_driver,    &file_driver,   &null_driver,
    &ram_driver,   &random_driver, &stream_driver,
};

const struct blk_driver *const *blk_drivers(size_t *count)
{
    *count = sizeof(drivers) / sizeof(drivers[0]);
    return drivers;
}

const struct blk_driver *blk_driver_find(const char *scheme)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strcmp(drivers[i]->scheme, scheme) == 0)
            return drivers[i];
    }
    return NULL;
}
