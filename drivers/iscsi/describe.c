/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is told of a device. */
#include "lun.h"

#include <inttypes.h>

#include <lunferry/units.h>

static void describe_blocks(const struct lun *lun, struct blk_report *report)
{
    const struct lun_facts *facts = &lun->facts;
    char size[UNITS_TEXT];

    blk_report_fact(report, "physical-block-size", "physical block size", "%" PRIu64 " bytes",
                    (uint64_t)facts->block_size << facts->physical_exponent);
    if (facts->max_transfer != 0)
        blk_report_fact(report, "max-transfer", "longest transfer", "%s",
                        units_size(size, (uint64_t)facts->max_transfer * facts->block_size));
    if (facts->optimal_transfer != 0)
        blk_report_fact(report, "optimal-transfer", "best transfer length", "%s",
                        units_size(size, (uint64_t)facts->optimal_transfer * facts->block_size));
}

static void describe_provisioning(const struct lun *lun, struct blk_report *report)
{
    static const char *const kinds[] = {"provisioned on demand", "resource", "thin"};
    const struct lun_facts *facts = &lun->facts;

    if (!facts->provisioned) {
        blk_report_fact(report, "provisioning", "provisioning", "full");
        return;
    }
    blk_report_fact(report, "provisioning", "provisioning", "%s",
                    kinds[facts->provisioning < 3 ? facts->provisioning : 0]);
    blk_report_fact(report, "unmapped-reads-zeros", "unmapped blocks read as zeros", "%s",
                    facts->reads_zeros ? "yes" : "no");
    blk_report_fact(report, "unmaps-with", "unmaps with", "%s",
                    facts->can_unmap && facts->can_write_same_unmap ? "UNMAP, WRITE SAME(16)"
                    : facts->can_unmap                              ? "UNMAP"
                    : facts->can_write_same_unmap                   ? "WRITE SAME(16)"
                                                                    : "nothing");
}

void lun_describe(struct blk_dev *dev, struct blk_report *report)
{
    const struct lun *lun = lun_of(dev);
    const struct lun_facts *facts = &lun->facts;

    blk_report_fact(report, "portal", "portal", "%s", lun->session.portal);
    blk_report_fact(report, "target", "target", "%s", lun->login.target);
    blk_report_fact(report, "lun", "LUN", "%u", lun->login.lun);
    blk_report_fact(report, "initiator", "initiator", "%s (from: %s)", lun->login.initiator,
                    lun->login.initiator_from);
    blk_report_fact(report, "vendor", "vendor", "%s", facts->vendor);
    blk_report_fact(report, "product", "product", "%s", facts->product);
    blk_report_fact(report, "revision", "revision", "%s", facts->revision);
    if (facts->serial[0] != '\0')
        blk_report_fact(report, "serial", "serial number", "%s", facts->serial);
    if (facts->identity[0] != '\0')
        blk_report_fact(report, "designator", "identification", "%s", facts->identity);
    describe_blocks(lun, report);
    describe_provisioning(lun, report);
    blk_report_fact(report, "write-cache", "write cache", "%s%s",
                    lun->cache.on ? "volatile" : "none, or safe",
                    facts->cache_told ? "" : " (assumed: the target does not say)");
    blk_report_fact(report, "fua", "force unit access", "%s", facts->can_fua ? "yes" : "no");
    blk_report_fact(report, "write-protected", "write-protected", "%s",
                    facts->write_protected ? "yes" : "no");
    if (lun->reservation.held)
        blk_report_fact(report, "reservation", "reservation", "key %016" PRIx64 ", %s",
                        lun->reservation.key, reservation_type_name(lun->reservation.type));
    blk_report_fact(report, "library", "library", "libiscsi, API %d", LIBISCSI_API_VERSION);
}
