/*
 * floor LOWER SCRATCH: what the kernel alone takes for one container.
 *
 * For every line on standard input it makes one container out of the directory
 * LOWER and prints how many microseconds that took, from the first system call
 * to the last: a cgroup in every hierarchy made and entered; a process cloned
 * with new namespaces of all kinds (mount, pid, ipc, uts, net, cgroup); an
 * overlay mount, /proc, a /dev with six nodes and its pts, pivot_root; exec of
 * /bin/true; its exit; the cgroups and the writable layer removed. No library,
 * no thread, no configuration, no network, no error handling beyond giving up:
 * no engine can do it in less.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 32

static struct {
	char dir[256];
	char file[300]; /* to write "0" to */
	int v2, cpuset;
} cgroups[MAX];
static int ncgroups;
static char cpus[256], mems[256];

static const char *lower, *scratch;
static char upper[300], work[300], inner[310], merged[300], options[1200];

static void put(const char *file, const char *value)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		err(1, "write %s", file);
	close(fd);
}

static void get(const char *dir, const char *name, char *buf, size_t size)
{
	char file[512];
	snprintf(file, sizeof file, "%s/%s", dir, name);
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
	if (n < 0)
		err(1, "read %s", file);
	buf[n] = 0;
	close(fd);
}

/* find_cgroups lists the hierarchies, the unified one too. */
static void find_cgroups(void)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	struct mntent *m;
	while (f && ncgroups < MAX && (m = getmntent(f))) {
		int v2 = !strcmp(m->mnt_type, "cgroup2");
		if (!v2 && strcmp(m->mnt_type, "cgroup"))
			continue;
		int i = ncgroups++;
		snprintf(cgroups[i].dir, sizeof cgroups[i].dir, "%s/wherry-floor-%d", m->mnt_dir, getpid());
		snprintf(cgroups[i].file, sizeof cgroups[i].file, "%s/wherry-floor-%d/tasks", m->mnt_dir, getpid());
		cgroups[i].v2 = v2;
		cgroups[i].cpuset = !v2 && hasmntopt(m, "cpuset");
		if (cgroups[i].cpuset) {
			get(m->mnt_dir, "cpuset.cpus", cpus, sizeof cpus);
			get(m->mnt_dir, "cpuset.mems", mems, sizeof mems);
		}
	}
	if (f)
		endmntent(f);
}

static void make_cgroups(void)
{
	char file[400];
	for (int i = 0; i < ncgroups; i++) {
		if (mkdir(cgroups[i].dir, 0755))
			err(1, "mkdir %s", cgroups[i].dir);
		if (!cgroups[i].cpuset)
			continue;
		snprintf(file, sizeof file, "%.255s/cpuset.cpus", cgroups[i].dir);
		put(file, cpus);
		snprintf(file, sizeof file, "%.255s/cpuset.mems", cgroups[i].dir);
		put(file, mems);
	}
}

static void check(int r, const char *what)
{
	if (r)
		err(1, "%s", what);
}

static void child(void)
{
	/* A process that moves itself takes none of the kernel's global locks. */
	for (int i = 0; i < ncgroups; i++)
		if (!cgroups[i].v2)
			put(cgroups[i].file, "0");
	check(unshare(CLONE_NEWCGROUP), "unshare");
	setsid();
	sethostname("floor", 5);
	check(mount("", "/", "", MS_SLAVE | MS_REC, ""), "propagation");
	check(mount("overlay", merged, "overlay", 0, options), "overlay");
	check(chdir(merged), "chdir");
	check(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""), "proc");
	check(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k"), "dev");
	static const struct { const char *name; int major, minor; } nodes[] = {
		{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
		{"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
	};
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
		check(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
	check(mkdir("dev/pts", 0755), "dev/pts");
	check(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"), "devpts");
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount");
	check(chdir("/"), "chdir /");
	execl("/bin/true", "true", (char *)0);
	err(1, "exec");
}

static void once(void)
{
	struct { unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } a = {0};
	int fd = -1;
	make_cgroups();
	check(mkdir(upper, 0755) || mkdir(work, 0755), "mkdir");
	a.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET;
	a.exit_signal = SIGCHLD;
	for (int i = 0; i < ncgroups; i++) {
		if (!cgroups[i].v2)
			continue;
		fd = open(cgroups[i].dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		a.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP */
		a.cgroup = fd;
	}
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid < 0)
		err(1, "clone");
	if (pid == 0)
		child();
	int status;
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the container ended with %#x", status);
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < ncgroups; i++)
		while (rmdir(cgroups[i].dir)) /* busy until the kernel has let go of the dead process */
			usleep(100);
	rmdir(inner);
	check(rmdir(work) || rmdir(upper), "rmdir");
}

int main(int argc, char **argv)
{
	char line[16];
	if (argc != 3)
		errx(2, "usage: floor LOWER SCRATCH");
	lower = argv[1], scratch = argv[2];
	umask(0);
	snprintf(upper, sizeof upper, "%s/upper", scratch);
	snprintf(work, sizeof work, "%s/work", scratch);
	snprintf(inner, sizeof inner, "%s/work", work);
	snprintf(merged, sizeof merged, "%s/merged", scratch);
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	check(mkdir(merged, 0755), "mkdir");
	find_cgroups();
	if (!ncgroups)
		errx(1, "no cgroups are mounted");
	while (fgets(line, sizeof line, stdin)) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		once();
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
		fflush(stdout);
	}
	rmdir(merged);
	return 0;
}
