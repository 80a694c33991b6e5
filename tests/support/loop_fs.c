/*
 * loop_fs.c - see loop_fs.h.
 *
 * The switch is the shutdown ioctl that ext4 and xfs share: from then on nothing is written any more, and the
 * mount after it finds what a power cut would have left on a disk that keeps the order of its writes.
 */
#include "loop_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number. */
#define SHUTDOWN _IOR('X', 125, uint32_t)
#define SHUTDOWN_LOG_FLUSH 1u
#define SHUTDOWN_NO_LOG_FLUSH 2u
#define BUSY_MS 10000u /* a mount may still be held by a process that is going */

/* ---- the process around it ---- */

static pid_t supervised;
static char supervised_mount_point[KIT_PATH_MAX];

static void
supervisor_end(int number)
{
    (void)kill(supervised, SIGKILL);
    while (waitpid(supervised, NULL, 0) < 0 && errno == EINTR) {
    }
    (void)rmdir(supervised_mount_point);
    _exit(128 + number);
}

static int
supervised_run(const char *test, pid_t parent, int (*body)(const void *ctx), const void *ctx)
{
    /* Its own children ask for the same. */
    KIT_CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
    if (getppid() != parent)
        return 1;
    if (geteuid() != 0) {
        printf("%s: SKIP: not root\n", test);
        return LOOP_FS_SKIPPED;
    }
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("%s: SKIP: no mount namespace can be had here (%s)\n", test, strerror(errno));
        return LOOP_FS_SKIPPED;
    }
    return body(ctx);
}

int
loop_fs_supervise(const char *test, int (*body)(const void *ctx), const void *ctx)
{
    struct sigaction action = {.sa_handler = supervisor_end};
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    sigset_t set, before;
    pid_t self = getpid();
    int status;

    kit_dir_name(supervised_mount_point, "mnt");
    KIT_CHECK(mkdir(supervised_mount_point, 0700) == 0, "mkdir %s", supervised_mount_point);
    sigemptyset(&set);
    for (size_t i = 0; i < 3; i++)
        sigaddset(&set, numbers[i]);
    sigprocmask(SIG_BLOCK, &set, &before); /* the handler needs to know the child */
    supervised = kit_fork();
    if (supervised == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        status = supervised_run(test, self, body, ctx);
        fflush(stdout);
        _exit(status);
    }
    for (size_t i = 0; i < 3; i++)
        KIT_CHECK(sigaction(numbers[i], &action, NULL) == 0, "sigaction");
    sigprocmask(SIG_SETMASK, &before, NULL);
    status = kit_join(supervised);
    (void)rmdir(supervised_mount_point);
    return status > 255 ? 1 : status;
}

const char *
loop_fs_mount_point(void)
{
    return supervised_mount_point;
}

/* ---- the image and its device ---- */

/* Exit status of mkfs; 127: it is not there. */
static int
mkfs_run(const char *kind, const char *image)
{
    const char *path = getenv("PATH");
    char program[16], paths[4096];
    pid_t child;
    int status = 0;

    snprintf(program, sizeof(program), "mkfs.%s", kind);
    snprintf(paths, sizeof(paths), "%s:/sbin:/usr/sbin", path != NULL ? path : "/bin:/usr/bin");
    child = kit_fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        setenv("PATH", paths, 1);
        (void)dup2(null, 1);
        execlp(program, program, "-q", kind[0] == 'e' ? "-F" : "-f", image, (char *)NULL);
        _exit(127);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* A free loop device on this file; it lets go when the last one who has it open or mounted is gone. */
static int
loop_attach(int image, char device[64], char why[256])
{
    struct loop_config config = {.fd = (uint32_t)image, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

    if (control < 0) {
        snprintf(why, 256, "/dev/loop-control: %s", strerror(errno));
        return -1;
    }
    for (int tries = 0; tries < 100; tries++) { /* another process may take the one that is free */
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        int file;

        snprintf(device, 64, "/dev/loop%d", number);
        file = number < 0 ? -1 : open(device, O_RDWR | O_CLOEXEC);
        if (file >= 0 && ioctl(file, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return file;
        }
        snprintf(why, 256, "%s: %s", number < 0 ? "no loop device is free" : device,
                 strerror(errno));
        if (file >= 0)
            close(file);
        if (file < 0 || errno != EBUSY)
            break;
        usleep(1000);
    }
    close(control);
    return -1;
}

static bool
fs_mount(const struct loop_fs *fs)
{
    uint64_t until = kit_now_ms() + BUSY_MS;

    while (mount(fs->device, fs->mount_point, fs->kind, 0, NULL) != 0) {
        if (errno != EBUSY || kit_now_ms() > until)
            return false;
        usleep(1000);
    }
    return true;
}

bool
loop_fs_make(struct loop_fs *fs, const char *kind, uint64_t bytes, char why[256])
{
    const char *parent = getenv("TMPDIR");
    char image[KIT_PATH_MAX];
    int file, status;

    *fs = (struct loop_fs){.kind = kind, .device_file = -1};
    snprintf(fs->mount_point, sizeof(fs->mount_point), "%s", supervised_mount_point);
    snprintf(image, sizeof(image), "%s/scree-image-%ld", parent != NULL ? parent : "/tmp",
             (long)getpid());
    file = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    KIT_CHECK(file >= 0, "%s: %s", image, strerror(errno));
    KIT_CHECK(ftruncate(file, (off_t)bytes) == 0, "%s: %s", image, strerror(errno));
    status = mkfs_run(kind, image);
    (void)unlink(image);
    if (status != 0) {
        snprintf(why, 256, "mkfs.%s %s", kind, status == 127 ? "is missing" : "failed");
        close(file);
        return false;
    }
    fs->device_file = loop_attach(file, fs->device, why);
    close(file);
    if (fs->device_file < 0)
        return false;
    if (!fs_mount(fs)) {
        snprintf(why, 256, "%s cannot be mounted: %s", kind, strerror(errno));
        close(fs->device_file);
        return false;
    }
    return true;
}

/* ---- the switch ---- */

int
loop_fs_cut(const struct loop_fs *fs, enum loop_fs_cut cut)
{
    uint32_t how = cut == LOOP_FS_CUT_ALL ? SHUTDOWN_NO_LOG_FLUSH : SHUTDOWN_LOG_FLUSH;
    int file = open(fs->mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    KIT_CHECK(file >= 0, "%s: %s", fs->mount_point, strerror(errno));
    int code = ioctl(file, SHUTDOWN, &how) == 0 ? 0 : -errno;

    close(file);
    return code;
}

static void
fs_unmount(const struct loop_fs *fs)
{
    uint64_t until = kit_now_ms() + BUSY_MS;

    while (umount2(fs->mount_point, 0) != 0) {
        KIT_CHECK(errno == EBUSY && kit_now_ms() < until, "%s cannot be unmounted: %s", fs->kind,
                  strerror(errno));
        usleep(1000);
    }
}

void
loop_fs_again(const struct loop_fs *fs)
{
    fs_unmount(fs);
    KIT_CHECK(fs_mount(fs), "%s cannot be mounted again: %s", fs->kind, strerror(errno));
}

uint64_t
loop_fs_errors(const struct loop_fs *fs)
{
    char path[128], text[32];
    uint64_t n = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/fs/ext4/%s/errors_count", fs->device + strlen("/dev/"));
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(text, sizeof(text), file) != NULL)
        n = strtoull(text, NULL, 10);
    fclose(file);
    return n;
}

uint64_t
loop_fs_room(const struct loop_fs *fs)
{
    struct statvfs room;

    KIT_CHECK(statvfs(fs->mount_point, &room) == 0, "statvfs: %s", strerror(errno));
    return (uint64_t)room.f_bavail * room.f_frsize;
}

void
loop_fs_end(struct loop_fs *fs)
{
    fs_unmount(fs);
    close(fs->device_file);
    fs->device_file = -1;
}
