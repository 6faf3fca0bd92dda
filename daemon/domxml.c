/* SPDX-License-Identifier: MIT */
#include "daemon/domxml.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/sbuf.h"

#include <assert.h>
#include <inttypes.h>
#include <net/if.h>
#include <string.h>

#define LIMIT_XML (64 * KIB)

static const char *const machine_names[] = { [MACHINE_MICROVM] = "microvm", [MACHINE_Q35] = "q35" };
static_assert(ARRAY_SIZE(machine_names) == MACHINE_MAX, "a name for each machine");
static const char *const accel_names[] = { [ACCEL_KVM] = "kvm", [ACCEL_TCG] = "tcg" };
static_assert(ARRAY_SIZE(accel_names) == ACCEL_MAX, "a name for each accelerator");

const char *machine_name(enum machine m)
{
    return (unsigned)m < MACHINE_MAX ? machine_names[m] : "unknown";
}

enum machine machine_of(const char *name)
{
    return strcmp(name, machine_names[MACHINE_Q35]) == 0 ? MACHINE_Q35 : MACHINE_MICROVM;
}

const char *accel_name(enum accel a)
{
    return (unsigned)a < ACCEL_MAX ? accel_names[a] : "unknown";
}

/* <element attribute='value'>-style pieces with one escaped value in the middle. */
static void put(struct sbuf *b, const char *before, const char *value, const char *after)
{
    sbuf_lit(b, before);
    sbuf_xml(b, value);
    sbuf_lit(b, after);
}

/* On a microvm libvirt would pick PCI addresses, and there is no PCI bus; on q35 it picks well. */
static void put_address(struct sbuf *b, const struct domxml_spec *s)
{
    if (s->machine == MACHINE_MICROVM)
        sbuf_lit(b, "      <address type='virtio-mmio'/>\n");
}

static int path_check(const char *what, const char *path, bool required, struct err *e)
{
    if (!path)
        return required ? err_set(e, ERR_INVALID, "domain without %s", what) : 0;
    if (path[0] != '/')
        return err_set(e, ERR_INVALID, "%s is not an absolute path: %s", what, path);
    return 0;
}

static int spec_check(const struct domxml_spec *s, struct err *e)
{
    if ((unsigned)s->machine >= MACHINE_MAX || (unsigned)s->accel >= ACCEL_MAX)
        return err_set(e, ERR_INVALID, "unknown machine or accelerator");
    if (!s->id || !s->id[0] || !s->name || !s->cmdline)
        return err_set(e, ERR_INVALID, "domain without id, name or command line");
    if (s->uid == 0 || s->gid == 0)
        return err_set(e, ERR_INVALID, "a guest's QEMU never runs as root");
    if (s->cpus < 1 || s->cpus > LIMIT_CPUS)
        return err_set(e, ERR_INVALID, "%u vCPUs are outside of 1 to %d", s->cpus, LIMIT_CPUS);
    if (s->memory < 32 * MIB || s->memory > LIMIT_MEMORY_MAX)
        return err_set(e, ERR_INVALID, "%" PRIu64 " bytes of memory are out of range", s->memory);
    if (!s->disk && s->base)
        return err_set(e, ERR_INVALID, "base image without a disk");
    if (path_check("kernel", s->kernel, true, e) < 0 ||
        path_check("initrd", s->initrd, true, e) < 0 ||
        path_check("console", s->console, true, e) < 0 ||
        path_check("disk", s->disk, false, e) < 0 || path_check("base", s->base, false, e) < 0 ||
        path_check("channel", s->channel, false, e) < 0 ||
        path_check("share socket", s->share_socket, false, e) < 0)
        return -1;
    if (s->tap && (!s->tap[0] || strlen(s->tap) >= IFNAMSIZ || !s->mac || (s->mac[0] & 1)))
        return err_set(e, ERR_INVALID, "a network without a proper name or address");
    return 0;
}

static void put_cpu_and_features(struct sbuf *b, const struct domxml_spec *s)
{
    sbuf_fmt(b, "  <vcpu placement='static'>%u</vcpu>\n", s->cpus);

    /* Debian's kernel takes virtio-mmio devices from ACPI only, not from the command line. */
    sbuf_lit(b, "  <features>\n    <acpi/>\n");
    if (s->machine == MACHINE_Q35)
        sbuf_lit(b, "    <apic/>\n");
    /* TCG reserves a quarter of the guest's memory for translated code, up to 1 GiB: more than
     * many a guest uses. This is enough for a compiler run. */
    if (s->accel == ACCEL_TCG)
        sbuf_lit(b, "    <tcg>\n      <tb-cache unit='MiB'>256</tb-cache>\n    </tcg>\n");
    sbuf_lit(b, "  </features>\n");

    if (s->accel == ACCEL_KVM)
        sbuf_lit(b, "  <cpu mode='host-passthrough' check='none' migratable='off'/>\n");
    else
        /* All that TCG can do, but for five-level page tables: one more level to walk in software
         * at each miss, for nothing. */
        sbuf_lit(b, "  <cpu mode='maximum' check='none'>\n"
                    "    <feature policy='disable' name='la57'/>\n"
                    "  </cpu>\n");
}

static void put_disk(struct sbuf *b, const struct domxml_spec *s)
{
    if (!s->disk)
        return;
    /* The backing chain is spelt out, so that nobody reads the name of a backing file out of an
     * image the guest can write. Flushes of the guest reach the disk; what it discards is given
     * back. */
    sbuf_lit(b, "    <disk type='file' device='disk'>\n"
                "      <driver name='qemu' type='qcow2' cache='writeback' discard='unmap'"
                " detect_zeroes='off'/>\n");
    put(b, "      <source file='", s->disk, "'/>\n");
    if (s->base) {
        sbuf_lit(b, "      <backingStore type='file'>\n        <format type='raw'/>\n");
        put(b, "        <source file='", s->base, "'/>\n");
        sbuf_lit(b, "        <backingStore/>\n      </backingStore>\n");
    } else {
        sbuf_lit(b, "      <backingStore/>\n");
    }
    sbuf_lit(b, "      <target dev='vda' bus='virtio'/>\n");
    put_address(b, s);
    sbuf_lit(b, "    </disk>\n");
}

static void put_console(struct sbuf *b, const struct domxml_spec *s)
{
    /* To whoever reads, and never to a file: the guest decides how much. */
    const char *element = s->serial ? "serial" : "console";

    sbuf_fmt(b, "    <%s type='pipe'>\n", element);
    put(b, "      <source path='", s->console, "'/>\n");
    sbuf_lit(b, s->serial ? "      <target type='isa-serial' port='0'/>\n"
                          : "      <target type='virtio' port='0'/>\n");
    sbuf_fmt(b, "    </%s>\n", element);
}

static void put_channel(struct sbuf *b, const struct domxml_spec *s)
{
    if (!s->channel)
        return;
    sbuf_lit(b, "    <channel type='unix'>\n");
    put(b, "      <source mode='bind' path='", s->channel, "'/>\n");
    sbuf_lit(b, "      <target type='virtio' name='org.sandboxd.agent.0'/>\n"
                "    </channel>\n");
}

static void put_share(struct sbuf *b, const struct domxml_spec *s)
{
    if (!s->share_socket)
        return;
    /* virtiofsd runs already and not as libvirt would run it: see share.h. */
    sbuf_lit(b, "    <filesystem type='mount'>\n"
                "      <driver type='virtiofs' queue='1024'/>\n");
    put(b, "      <source socket='", s->share_socket, "'/>\n");
    sbuf_lit(b, "      <target dir='workspace'/>\n");
    put_address(b, s);
    sbuf_lit(b, "    </filesystem>\n");
}

static void put_net(struct sbuf *b, const struct domxml_spec *s)
{
    if (!s->tap)
        return;
    /* managed='no': the tap is there already and stays as it is. name='qemu': else libvirt takes
     * the kernel's vhost where it can, which copies frames past QEMU and its uid's limits. */
    sbuf_lit(b, "    <interface type='ethernet'>\n");
    sbuf_fmt(b, "      <mac address='%02x:%02x:%02x:%02x:%02x:%02x'/>\n", s->mac[0], s->mac[1],
             s->mac[2], s->mac[3], s->mac[4], s->mac[5]);
    put(b, "      <target dev='", s->tap, "' managed='no'/>\n");
    sbuf_lit(b, "      <model type='virtio'/>\n      <driver name='qemu'/>\n");
    if (s->mtu > 0)
        sbuf_fmt(b, "      <mtu size='%u'/>\n", s->mtu);
    /* nothing boots from the network; on PCI QEMU would look for a file of another package */
    if (s->machine == MACHINE_Q35)
        sbuf_lit(b, "      <rom enabled='no'/>\n");
    put_address(b, s);
    sbuf_lit(b, "    </interface>\n");
}

static void put_devices(struct sbuf *b, const struct domxml_spec *s)
{
    sbuf_lit(b, "  <devices>\n");
    put_disk(b, s);
    /* Without this libvirt adds a USB controller, which a microvm cannot have and nobody needs. */
    sbuf_lit(b, "    <controller type='usb' index='0' model='none'/>\n"
                "    <controller type='virtio-serial' index='0'>\n");
    put_address(b, s);
    sbuf_lit(b, "    </controller>\n");
    put_share(b, s);
    put_net(b, s);
    put_console(b, s);
    put_channel(b, s);
    sbuf_lit(b, "    <rng model='virtio'>\n"
                "      <backend model='random'>/dev/urandom</backend>\n");
    put_address(b, s);
    /* No balloon: libvirt would add one unasked, and nothing drives it. */
    sbuf_lit(b, "    </rng>\n"
                "    <memballoon model='none'/>\n"
                "  </devices>\n");
}

int domxml_build(const struct domxml_spec *s, char **ret_xml, struct err *e)
{
    if (spec_check(s, e) < 0)
        return -1;

    autosbuf struct sbuf b = SBUF(LIMIT_XML);
    sbuf_fmt(&b, "<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n",
             s->accel == ACCEL_KVM ? "kvm" : "qemu");
    put(&b, "  <name>sbx-", s->id, "</name>\n");
    put(&b, "  <title>sandbox ", s->name, "</title>\n");
    sbuf_fmt(&b, "  <memory unit='KiB'>%" PRIu64 "</memory>\n", s->memory / (uint64_t)KIB);
    /* virtiofsd maps the guest's memory. Only then: private memory is one thing less to share. */
    if (s->share_socket)
        sbuf_lit(&b, "  <memoryBacking>\n    <source type='memfd'/>\n"
                     "    <access mode='shared'/>\n  </memoryBacking>\n");
    sbuf_fmt(&b, "  <os>\n    <type arch='x86_64' machine='%s'>hvm</type>\n",
             machine_name(s->machine));
    put(&b, "    <kernel>", s->kernel, "</kernel>\n");
    put(&b, "    <initrd>", s->initrd, "</initrd>\n");
    put(&b, "    <cmdline>", s->cmdline, "</cmdline>\n");
    sbuf_lit(&b, "  </os>\n");
    put_cpu_and_features(&b, s);
    sbuf_lit(&b, "  <clock offset='utc'/>\n");
    /* A guest that reboots or panics is at its end; starting again is the daemon's decision. */
    sbuf_lit(&b, "  <on_poweroff>destroy</on_poweroff>\n"
                 "  <on_reboot>destroy</on_reboot>\n"
                 "  <on_crash>destroy</on_crash>\n");
    put_devices(&b, s);
    /* QEMU runs as a uid of this sandbox alone. libvirt gives that uid the files named above, but
     * for those on the read-only view, where it cannot and goes on. */
    sbuf_fmt(&b,
             "  <seclabel type='static' model='dac' relabel='yes'>\n"
             "    <label>+%u:+%u</label>\n  </seclabel>\n",
             s->uid, s->gid);
    /* Else libvirt asks QEMU for hundreds of CPU properties, one by one, at each start: 0.2 s. It
     * has no use for the answers, as nobody asked for a certain CPU. */
    sbuf_lit(&b, "  <qemu:capabilities>\n"
                 "    <qemu:del capability='cpu-unavailable-features'/>\n"
                 "  </qemu:capabilities>\n");
    /* virtio-mmio speaks the legacy protocol unless told, and vhost-user refuses that. The old
     * interrupt controller and timer are left out: Linux 6.12 does not look for them on a machine
     * whose ACPI tables name none, and then the timer's first tick, sent to a controller that
     * nobody has set up, is taken for a division by zero: one boot of six ended so. */
    if (s->machine == MACHINE_MICROVM)
        sbuf_lit(&b, "  <qemu:commandline>\n    <qemu:arg value='-global'/>\n"
                     "    <qemu:arg value='virtio-mmio.force-legacy=false'/>\n"
                     "    <qemu:arg value='-machine'/>\n"
                     "    <qemu:arg value='pic=off,pit=off'/>\n"
                     "  </qemu:commandline>\n");
    sbuf_lit(&b, "</domain>\n");
    return sbuf_take(&b, ret_xml, e);
}

int domxml_cmdline(enum machine machine, enum accel accel, uint32_t tsc_khz, bool serial,
                   char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(4 * KIB);

    /* rdinit: the initramfs is the agent. panic=-1: reboot at once, which ends the domain. */
    if (machine == MACHINE_MICROVM && accel == ACCEL_TCG && tsc_khz == 0) {
        err_set(e, ERR_UNAVAILABLE, "the rate of this processor's time stamp counter is not known");
        return err_hint(e, "set \"machine\" to \"q35\", which has timers of its own");
    }
    sbuf_fmt(&b, "console=%s rdinit=/init panic=-1", serial ? "ttyS0" : "hvc0");
    if (!serial)
        sbuf_lit(&b, " quiet");
    /* A microvm has neither HPET nor PM timer, and under TCG no paravirtual clock: calibrating the
     * TSC then hangs at random. The host's rate is the guest's. Nothing could watch the TSC either:
     * without "reliable" the clock has the steps of jiffies, and an idle guest takes three times as
     * much of the host. */
    if (accel == ACCEL_TCG && tsc_khz > 0)
        sbuf_fmt(&b, " tsc_early_khz=%u tsc=reliable", tsc_khz);
    if (machine == MACHINE_MICROVM)
        sbuf_lit(&b, " pci=off");
    /* The kernel's cryptography tests itself at each boot: a sixth of an emulated boot. Measured
     * and left out, as they gained nothing: lpj= (follows from the rate), fewer CPUs,
     * no_timer_check, i8042 and 8250 switches, mitigations=off; a microvm with rtc=off even took
     * two seconds more. */
    sbuf_lit(&b, " cryptomgr.notests");
    return sbuf_take(&b, ret, e);
}
