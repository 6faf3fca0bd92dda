/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/domxml.h"
#include "tests/harness/test.h"

#include <stdio.h>

static struct domxml_spec full_spec(void)
{
    return (struct domxml_spec){
        .id = "00112233445566aa",
        .name = "brisk-otter-42",
        .machine = MACHINE_MICROVM,
        .accel = ACCEL_TCG,
        .cpus = 2,
        .memory = 2 * GIB,
        .kernel = "/run/sandboxd/view/abc/kernel",
        .initrd = "/run/sandboxd/view/abc/initrd",
        .cmdline = "console=hvc0 quiet",
        .disk = "/var/lib/sandboxd/sandboxes/00112233445566aa/vm/disk.qcow2",
        .base = "/run/sandboxd/view/abc/root.img",
        .channel = "/run/sandboxd/sandboxes/00112233445566aa/vm/agent.sock",
        .console = "/run/sandboxd/sandboxes/00112233445566aa/console",
        .share_socket = "/run/sandboxd/sandboxes/00112233445566aa/share.sock",
        .uid = 1879048192,
        .gid = 1879048192,
    };
}

static void check_golden(const struct domxml_spec *s, const char *golden)
{
    struct err e = ERR_INIT;
    autofree char *xml = NULL;
    ASSERT_OK(domxml_build(s, &xml, &e), e);
    ASSERT_GOLDEN(golden, xml);
}

TEST(microvm_emulated)
{
    struct domxml_spec s = full_spec();
    check_golden(&s, "domain-microvm-tcg.xml");
}

TEST(microvm_kvm_without_workspace)
{
    struct domxml_spec s = full_spec();
    s.accel = ACCEL_KVM;
    s.share_socket = NULL;
    check_golden(&s, "domain-microvm-kvm-noshare.xml");
}

TEST(q35_with_serial_console)
{
    struct domxml_spec s = full_spec();
    s.machine = MACHINE_Q35;
    s.serial = true;
    check_golden(&s, "domain-q35-serial.xml");
}

static const uint8_t mac[6] = { 0x02, 0x5b, 0x78, 0x01, 0x00, 0x2a };

TEST(microvm_with_network)
{
    struct domxml_spec s = full_spec();
    s.tap = "sbx001122334455";
    s.mac = mac;
    s.mtu = 1450;
    check_golden(&s, "domain-microvm-net.xml");
}

TEST(q35_with_network)
{
    struct domxml_spec s = full_spec();
    s.machine = MACHINE_Q35;
    s.accel = ACCEL_KVM;
    s.tap = "sbx001122334455";
    s.mac = mac;
    check_golden(&s, "domain-q35-net.xml");
}

TEST(least_there_can_be)
{
    struct domxml_spec s = full_spec();
    s.disk = s.base = s.channel = s.share_socket = NULL;
    check_golden(&s, "domain-bare.xml");
}

TEST(values_cannot_break_out)
{
    struct domxml_spec s = full_spec();
    s.name = "</title><x a='1' b=\"2\">&amp;";
    s.cmdline = "a=\"<&>\" b='1'";
    s.kernel = "/k'/><disk>";
    check_golden(&s, "domain-escapes.xml");
}

TEST(control_bytes_are_refused)
{
    struct domxml_spec s = full_spec();
    struct err e;
    autofree char *xml = NULL;
    s.cmdline = "a\x01z";
    e = ERR_INIT;
    ASSERT_LT(domxml_build(&s, &xml, &e), 0);
    ASSERT_NULL(xml);
}

TEST(senseless_specs_are_refused)
{
    struct err e;
    autofree char *xml = NULL;
    struct domxml_spec s = full_spec();

    s.uid = 0;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.gid = 0;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.cpus = 0;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.cpus = LIMIT_CPUS + 1;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.memory = 1;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.kernel = NULL;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.initrd = "initrd";
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.disk = NULL;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.machine = MACHINE_MAX;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.tap = "sbx0";
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.tap = "", s.mac = mac;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.tap = "sbx0123456789abcd", s.mac = mac;
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.tap = "sbx0", s.mac = (const uint8_t[6]){ 1 };
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    s = full_spec(), s.id = "";
    ASSERT_ERR(domxml_build(&s, &xml, &e), e, ERR_INVALID);
    ASSERT_NULL(xml);
}

static void check_cmdline(enum machine m, enum accel a, uint32_t khz, bool serial, const char *has,
                          const char *lacks)
{
    struct err e = ERR_INIT;
    autofree char *line = NULL;
    ASSERT_OK(domxml_cmdline(m, a, khz, serial, &line, &e), e);
    ASSERT_CONTAINS(line, "rdinit=/init");
    ASSERT_CONTAINS(line, "panic=-1");
    ASSERT_CONTAINS(line, has);
    if (strstr(line, lacks))
        FAIL("'%s' is in '%s'", lacks, line);
}

TEST(command_lines)
{
    check_cmdline(MACHINE_MICROVM, ACCEL_TCG, 2596096, false, "tsc_early_khz=2596096", "ttyS0");
    check_cmdline(MACHINE_MICROVM, ACCEL_KVM, 2596096, false, "quiet", "tsc_early_khz");
    check_cmdline(MACHINE_MICROVM, ACCEL_KVM, 0, false, "console=hvc0", "tsc");
    check_cmdline(MACHINE_MICROVM, ACCEL_TCG, 2596096, false, "tsc=reliable", "ttyS0");
    struct err e = ERR_INIT;
    char *line = NULL;
    ASSERT_ERR(domxml_cmdline(MACHINE_MICROVM, ACCEL_TCG, 0, false, &line, &e), e, ERR_UNAVAILABLE);
    ASSERT_CONTAINS(e.hint, "q35");
    check_cmdline(MACHINE_Q35, ACCEL_TCG, 1000000, true, "console=ttyS0", "quiet");
    check_cmdline(MACHINE_Q35, ACCEL_TCG, 1000000, true, "tsc_early_khz", "pci=off");
}

TEST(names)
{
    ASSERT_STREQ(machine_name(MACHINE_MICROVM), "microvm");
    ASSERT_STREQ(machine_name(MACHINE_Q35), "q35");
    ASSERT_STREQ(accel_name(ACCEL_KVM), "kvm");
    ASSERT_STREQ(accel_name(ACCEL_TCG), "tcg");
    ASSERT_STREQ(machine_name(MACHINE_MAX), "unknown");
}
