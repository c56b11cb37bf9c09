package cli

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
)

// containerFlags are the flags that create and run share.
type containerFlags struct {
	set *pflag.FlagSet

	name, platform, pull, cidfile string
	quiet                         bool

	attach, env, envFile, labels, labelFile, expose, publish         []string
	volumes, volumesFrom, tmpfs, devices, deviceRules, links         []string
	capAdd, capDrop, dns, dnsOptions, dnsSearch, extraHosts          []string
	groupAdd, logOpts, securityOpts, storageOpts, aliases            []string
	linkLocal, weightDevices, readBps, writeBps, readIOps, writeIOps []string
	sysctls, annotations                                             map[string]string
	mounts                                                           opts.Mounts
	networks                                                         opts.Networks
	gpus                                                             opts.GPUs
	ulimits                                                          opts.Ulimits
	ip, ip6                                                          opts.Addr
	mac                                                              string

	hostname, domainname, user, workdir, entrypoint, stopSignal string
	stopTimeout                                                 int
	tty, stdin, privileged, readOnly, publishAll, init, rm      bool

	memory, memoryReservation, shmSize                          opts.Bytes
	memorySwap                                                  opts.Bytes
	swappiness, cpuShares, cpuPeriod, cpuQuota, rtPeriod, rtRun int64
	pidsLimit                                                   int64
	cpus                                                        opts.CPUs
	cpusetCPUs, cpusetMems, cgroupParent                        string
	blkioWeight                                                 uint16
	oomKillDisable                                              bool
	oomScoreAdj                                                 int

	ipc, pid, uts, userns, cgroupns, runtime, isolation string
	restart, volumeDriver, logDriver                    string

	healthCmd                                                       string
	healthInterval, healthTimeout, healthStart, healthStartInterval time.Duration
	healthRetries                                                   int
	noHealth                                                        bool
}

// newContainerFlags adds the flags to f.
func newContainerFlags(f *pflag.FlagSet) *containerFlags {
	c := &containerFlags{set: f}
	c.addGeneral(f)
	c.addProcess(f)
	c.addResources(f)
	c.addNetwork(f)
	c.addStorage(f)
	c.addSecurity(f)
	c.addHealth(f)
	ignoreTrust(f)
	refuse(f, "use-api-socket", "kernel-memory", "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")
	return c
}

func (c *containerFlags) addGeneral(f *pflag.FlagSet) {
	f.StringVar(&c.name, "name", "", "Assign a name to the container")
	f.StringVar(&c.platform, "platform", defaultPlatform(), "Set platform if server is multi-platform capable")
	f.StringVar(&c.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	f.StringVar(&c.cidfile, "cidfile", "", "Write the container ID to the file")
	f.VarP(newList(&c.labels), "label", "l", "Set meta data on a container")
	f.Var(newList(&c.labelFile), "label-file", "Read in a line delimited file of labels")
	f.Var(opts.NewMap(&c.annotations, nil), "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	f.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.BoolVar(&c.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	f.StringVar(&c.logDriver, "log-driver", "", "Logging driver for the container")
	f.Var(newList(&c.logOpts), "log-opt", "Log driver options")
	f.StringVar(&c.runtime, "runtime", "", "Runtime to use for this container")
	f.StringVar(&c.isolation, "isolation", "", "Container isolation technology")
}

func (c *containerFlags) addProcess(f *pflag.FlagSet) {
	f.VarP(opts.NewList(&c.attach, attachStream), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.VarP(newList(&c.env), "env", "e", "Set environment variables")
	f.Var(newList(&c.envFile), "env-file", "Read in a file of environment variables")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.Var(newList(&c.groupAdd), "group-add", "Add additional groups to join")
	f.BoolVar(&c.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.BoolVarP(&c.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVarP(&c.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&c.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&c.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVar(&c.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.Var(&c.ulimits, "ulimit", "Ulimit options")
	f.Var(opts.NewMap(&c.sysctls, nil), "sysctl", "Sysctl options")
}

func (c *containerFlags) addResources(f *pflag.FlagSet) {
	c.memorySwap.MinusOne = true
	f.VarP(&c.memory, "memory", "m", "Memory limit")
	f.Var(&c.memoryReservation, "memory-reservation", "Memory soft limit")
	f.Var(&c.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	f.Int64Var(&c.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.Var(&c.cpus, "cpus", "Number of CPUs")
	f.Int64VarP(&c.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&c.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&c.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&c.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&c.rtRun, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.StringVar(&c.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&c.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Int64Var(&c.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&c.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.Uint16Var(&c.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.Var(newList(&c.weightDevices), "blkio-weight-device", "Block IO weight (relative device weight)")
	f.Var(newList(&c.readBps), "device-read-bps", "Limit read rate (bytes per second) from a device")
	f.Var(newList(&c.readIOps), "device-read-iops", "Limit read rate (IO per second) from a device")
	f.Var(newList(&c.writeBps), "device-write-bps", "Limit write rate (bytes per second) to a device")
	f.Var(newList(&c.writeIOps), "device-write-iops", "Limit write rate (IO per second) to a device")
	f.BoolVar(&c.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.IntVar(&c.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.Var(&c.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (c *containerFlags) addNetwork(f *pflag.FlagSet) {
	f.Var(&c.networks, "network", "Connect a container to a network")
	f.Var(&c.networks, "net", "Connect a container to a network")
	_ = f.MarkHidden("net")
	f.Var(newList(&c.aliases), "network-alias", "Add network-scoped alias for the container")
	f.Var(newList(&c.aliases), "net-alias", "Add network-scoped alias for the container")
	_ = f.MarkHidden("net-alias")
	f.Var(&c.ip, "ip", "IPv4 address (e.g., 172.30.100.104)")
	f.Var(&c.ip6, "ip6", "IPv6 address (e.g., 2001:db8::33)")
	f.Var(opts.NewList(&c.linkLocal, ipAddress), "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	f.Var(newList(&c.links), "link", "Add link to another container")
	f.StringVar(&c.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.VarP(newList(&c.publish), "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&c.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.Var(newList(&c.expose), "expose", "Expose a port or a range of ports")
	f.StringVarP(&c.hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&c.domainname, "domainname", "", "Container NIS domain name")
	f.Var(opts.NewList(&c.dns, ipAddress), "dns", "Set custom DNS servers")
	f.Var(newList(&c.dnsOptions), "dns-option", "Set DNS options")
	f.Var(newList(&c.dnsOptions), "dns-opt", "Set DNS options")
	_ = f.MarkHidden("dns-opt")
	f.Var(newList(&c.dnsSearch), "dns-search", "Set custom DNS search domains")
	f.Var(opts.NewList(&c.extraHosts, opts.ExtraHost), "add-host", "Add a custom host-to-IP mapping (host:ip)")
}

func (c *containerFlags) addStorage(f *pflag.FlagSet) {
	f.VarP(newList(&c.volumes), "volume", "v", "Bind mount a volume")
	f.Var(newList(&c.volumesFrom), "volumes-from", "Mount volumes from the specified container(s)")
	f.StringVar(&c.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.Var(&c.mounts, "mount", "Attach a filesystem mount to the container")
	f.Var(newList(&c.tmpfs), "tmpfs", "Mount a tmpfs directory")
	f.Var(&c.shmSize, "shm-size", "Size of /dev/shm")
	f.Var(newList(&c.storageOpts), "storage-opt", "Storage driver options for the container")
	f.BoolVar(&c.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.Var(newList(&c.devices), "device", "Add a host device to the container")
	f.Var(newList(&c.deviceRules), "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
}

func (c *containerFlags) addSecurity(f *pflag.FlagSet) {
	f.BoolVar(&c.privileged, "privileged", false, "Give extended privileges to this container")
	f.Var(newList(&c.capAdd), "cap-add", "Add Linux capabilities")
	f.Var(newList(&c.capDrop), "cap-drop", "Drop Linux capabilities")
	f.Var(newList(&c.securityOpts), "security-opt", "Security Options")
	f.StringVar(&c.ipc, "ipc", "", "IPC mode to use")
	f.StringVar(&c.pid, "pid", "", "PID namespace to use")
	f.StringVar(&c.uts, "uts", "", "UTS namespace to use")
	f.StringVar(&c.userns, "userns", "", "User namespace to use")
	f.StringVar(&c.cgroupns, "cgroupns", "", `Cgroup namespace to use (host|private)
'host':    Run the container in the host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the namespace configured by the daemon's default-cgroupns-mode (default)`)
}

func (c *containerFlags) addHealth(f *pflag.FlagSet) {
	f.StringVar(&c.healthCmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&c.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	f.IntVar(&c.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.DurationVar(&c.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	f.DurationVar(&c.healthStart, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	f.DurationVar(&c.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	f.BoolVar(&c.noHealth, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}
