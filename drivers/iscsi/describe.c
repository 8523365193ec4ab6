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

static enum means means_of(const struct lun *lun, enum blk_op op)
{
    return provisioning_means(&lun->provisioning, op, true);
}

static void describe_granule(const struct lun *lun, struct blk_report *report)
{
    const struct blk_limits *limits = &lun->dev.limits;
    char granule[UNITS_TEXT], phase[UNITS_TEXT];

    if (limits->unmap_granule == 0)
        return;
    units_size(granule, limits->unmap_granule);
    if (limits->unmap_phase == 0)
        blk_report_fact(report, "unmap-granule", "unmaps in units of", "%s", granule);
    else
        blk_report_fact(report, "unmap-granule", "unmaps in units of", "%s, the first at %s",
                        granule, units_size(phase, limits->unmap_phase));
}

static void describe_provisioning(const struct lun *lun, struct blk_report *report)
{
    static const char *const kinds[] = {"provisioned on demand", "resource", "thin"};
    static const char *const reads_as[] = {[UNMAPPED_NOT_TOLD] = "not known",
                                           [UNMAPPED_ZEROS] = "yes",
                                           [UNMAPPED_PATTERN] = "no, as a pattern"};
    const struct lun_facts *facts = &lun->facts;
    enum means zero = means_of(lun, BLK_ZERO);

    blk_report_fact(report, "zeros-with", "makes zeros with", "%s",
                    zero != MEANS_NONE ? means_name(zero) : "writing them");
    if (!facts->provisioned) {
        blk_report_fact(report, "provisioning", "provisioning", "full");
        return;
    }
    blk_report_fact(report, "provisioning", "provisioning", "%s",
                    kinds[facts->provisioning < 3 ? facts->provisioning : 0]);
    blk_report_fact(report, "unmapped-reads-zeros", "unmapped blocks read as zeros", "%s",
                    reads_as[provisioning_unmapped(facts)]);
    blk_report_fact(report, "unmaps-with", "unmaps with", "%s",
                    means_name(means_of(lun, BLK_DISCARD)));
    describe_granule(lun, report);
    blk_report_fact(report, "extents", "tells its extents", "%s",
                    means_of(lun, BLK_EXTENTS) != MEANS_NONE ? "yes" : "no");
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
