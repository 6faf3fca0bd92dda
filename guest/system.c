/* SPDX-License-Identifier: MIT
 *
 * The guest as a running system: its name, its network, its clock, its workspace, its end.
 */
#include "guest/boot.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "guest/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define WORKSPACE "/workspace"
#define WORKSPACE_TAG "workspace"
#define STEP_NS 500000000LL         /* a clock further off than this is set, not bent */
#define BEND_NS 2000000LL           /* and one nearer is left alone */

void boot_complain(const struct err *e)
{
    autoclose int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    char line[512];
    int n = snprintf(line, sizeof(line), "<3>sbx-agent: %s\n", e->msg);

    if (n > (int)sizeof(line) - 1)
        n = (int)sizeof(line) - 1;
    if (log >= 0)
        (void)!write(log, line, (size_t)n);
    (void)!write(STDERR_FILENO, line + 3, (size_t)n - 3);
}

static int write_file(const char *path, const char *text, size_t len, struct err *e)
{
    return io_write_file_at(AT_FDCWD, path, text, len, 0644, e);
}

/* Is `word` on one of the lines? */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || strchr(" \t\n", p[-1])) && (p[n] == '\0' || strchr(" \t\n", p[n])))
            return true;
    return false;
}

/* Programs, sudo first of all, look the machine's own name up. */
static int add_to_hosts(const char *hostname, struct err *e)
{
    autofree char *text = NULL;
    autosbuf struct sbuf b = SBUF(MIB + KIB);
    struct err unread = ERR_INIT;
    size_t len = 0;

    if (io_read_file_at(AT_FDCWD, "/etc/hosts", MIB, &text, &len, &unread) == 0) {
        if (has_word(text, hostname))
            return 0;
        sbuf_add(&b, text, len);
        if (len > 0 && text[len - 1] != '\n')
            sbuf_chr(&b, '\n');
    }
    if (!text || !has_word(text, "localhost"))
        sbuf_lit(&b, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    sbuf_lit(&b, "127.0.1.1 ");
    sbuf_add(&b, hostname, strlen(hostname));
    sbuf_chr(&b, '\n');
    if (b.failed)
        return err_set(e, ERR_TOO_LARGE, "/etc/hosts is too long");
    return write_file("/etc/hosts", b.data, b.len, e);
}

static void set_name(const char *hostname)
{
    char line[LIMIT_NAME + 2];
    struct err e = ERR_INIT;
    int n = snprintf(line, sizeof(line), "%.*s\n", LIMIT_NAME, hostname);

    if (sethostname(hostname, strlen(hostname)) < 0)
        err_sys(&e, ERR_INTERNAL, errno, "cannot set the name of the machine");
    else if (write_file("/etc/hostname", line, (size_t)n, &e) == 0)
        (void)add_to_hosts(hostname, &e);
    if (e.code != ERR_NONE)
        boot_complain(&e);      /* the disk may be full; the guest is of use all the same */
}

static int mount_workspace(bool read_only, struct err *e)
{
    unsigned long flags = MS_NODEV | MS_NOSUID | (read_only ? MS_RDONLY : 0);

    if (mkdir(WORKSPACE, 0755) < 0 && errno != EEXIST)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", WORKSPACE);
    if (mount(WORKSPACE_TAG, WORKSPACE, "virtiofs", flags, NULL) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot mount %s", WORKSPACE);
    return 0;
}

int boot_configure(const char *hostname, uint8_t workspace, struct err *e)
{
    if (hostname[0] != '\0')
        set_name(hostname);
    return workspace ? mount_workspace(workspace == 2, e) : 0;
}

int boot_net(const struct guest_net *n, struct err *e)
{
    return net_configure(n, "/etc/resolv.conf", deadline_in(NET_DEVICE_MS), e);
}

void boot_set_time(uint64_t realtime_ns, bool first)
{
    struct timespec now;
    struct timespec want = { .tv_sec = (time_t)(realtime_ns / 1000000000),
                             .tv_nsec = (long)(realtime_ns % 1000000000) };
    int64_t off;

    /* nobody lives before 2001 or after 2200; such a time would only break things */
    if (want.tv_sec < 1000000000 || want.tv_sec > 7258118400)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    off = (want.tv_sec - now.tv_sec) * 1000000000LL + (want.tv_nsec - now.tv_nsec);
    if (first || off > STEP_NS || off < -STEP_NS) {
        (void)clock_settime(CLOCK_REALTIME, &want);
    } else if (off > BEND_NS || off < -BEND_NS) {
        struct timeval bend = { .tv_sec = 0, .tv_usec = off / 1000 };

        if (bend.tv_usec < 0) {
            bend.tv_sec = -1;
            bend.tv_usec += 1000000;
        }
        (void)adjtime(&bend, NULL);
    }
}

_Noreturn void boot_end(bool restart)
{
    (void)umount2(WORKSPACE, MNT_DETACH);
    sync();
    (void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    sync();
    reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
    /* no way to switch it off: starting anew ends the machine too, as the host does not let it */
    reboot(RB_AUTOBOOT);
    _exit(1);
}
