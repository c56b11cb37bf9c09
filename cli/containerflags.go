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
	f.StringVar(&c.name, "name", "", "Name of the container (made up if not given)")
	f.StringVar(&c.platform, "platform", defaultPlatform(), "Platform of the image, as os[/arch[/variant]]")
	f.StringVar(&c.pull, "pull", "missing", `When to pull the image ("always", "missing", "never")`)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Show no progress while pulling")
	f.StringVar(&c.cidfile, "cidfile", "", "New file to write the container's ID to")
	f.VarP(newList(&c.labels), "label", "l", "Label for the container (KEY=VALUE)")
	f.Var(newList(&c.labelFile), "label-file", "File with one KEY=VALUE label a line")
	f.Var(opts.NewMap(&c.annotations, nil), "annotation", "Annotation (key=value) for the container's OCI configuration")
	f.StringVar(&c.restart, "restart", "no", "When to start it again (no, on-failure[:N], always, unless-stopped)")
	f.BoolVar(&c.rm, "rm", false, "Once the container exits, delete it and its anonymous volumes")
	f.StringVar(&c.logDriver, "log-driver", "", "Where output is logged (the daemon's choice if not given)")
	f.Var(newList(&c.logOpts), "log-opt", "Setting for the log driver (KEY=VALUE)")
	f.StringVar(&c.runtime, "runtime", "", "OCI runtime to run the container with")
	f.StringVar(&c.isolation, "isolation", "", `Kind of isolation; only "default" exists on Linux`)
}

func (c *containerFlags) addProcess(f *pflag.FlagSet) {
	f.VarP(opts.NewList(&c.attach, attachStream), "attach", "a", "Stream to connect to: stdin, stdout or stderr")
	f.VarP(newList(&c.env), "env", "e", "Environment variable (KEY=VALUE, or KEY to copy it from here)")
	f.Var(newList(&c.envFile), "env-file", "File with one KEY=VALUE variable a line")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Program to run in place of the image's ENTRYPOINT")
	f.Var(newList(&c.groupAdd), "group-add", "Extra group for the process, by name or number")
	f.BoolVar(&c.init, "init", false, "Put a small init at PID 1 that passes signals on and collects dead processes")
	f.BoolVarP(&c.stdin, "interactive", "i", false, "Keep the process's input open")
	f.BoolVarP(&c.tty, "tty", "t", false, "Give the process a terminal")
	f.StringVarP(&c.user, "user", "u", "", "User to run as, by name or number (USER[:GROUP])")
	f.StringVarP(&c.workdir, "workdir", "w", "", "Directory to run the process in")
	f.StringVar(&c.stopSignal, "stop-signal", "", "Signal that asks the container to stop")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "How long the container has to stop before it is killed, in seconds")
	f.Var(&c.ulimits, "ulimit", "Ulimit options")
	f.Var(opts.NewMap(&c.sysctls, nil), "sysctl", "Sysctl options")
}

func (c *containerFlags) addResources(f *pflag.FlagSet) {
	c.memorySwap.MinusOne = true
	f.VarP(&c.memory, "memory", "m", "Memory limit")
	f.Var(&c.memoryReservation, "memory-reservation", "Memory to stay near when the host runs short")
	f.Var(&c.memorySwap, "memory-swap", "Limit of memory and swap together; -1 for no limit")
	f.Int64Var(&c.swappiness, "memory-swappiness", -1, "How readily memory is swapped out, 0 to 100")
	f.Var(&c.cpus, "cpus", "Most CPUs' worth of time to use, such as 1.5")
	f.Int64VarP(&c.cpuShares, "cpu-shares", "c", 0, "Share of CPU time against other containers (1024 is usual)")
	f.Int64Var(&c.cpuPeriod, "cpu-period", 0, "Length of a scheduling period, in microseconds")
	f.Int64Var(&c.cpuQuota, "cpu-quota", 0, "CPU time allowed in each period, in microseconds")
	f.Int64Var(&c.rtPeriod, "cpu-rt-period", 0, "Length of a real-time scheduling period, in microseconds")
	f.Int64Var(&c.rtRun, "cpu-rt-runtime", 0, "Real-time CPU time allowed in each period, in microseconds")
	f.StringVar(&c.cpusetCPUs, "cpuset-cpus", "", "CPUs that may be used, such as 0-3 or 0,1")
	f.StringVar(&c.cpusetMems, "cpuset-mems", "", "NUMA memory nodes that may be used, such as 0-3 or 0,1")
	f.Int64Var(&c.pidsLimit, "pids-limit", 0, "Most processes and threads; -1 for no limit")
	f.StringVar(&c.cgroupParent, "cgroup-parent", "", "Cgroup to put the container's own cgroup in")
	f.Uint16Var(&c.blkioWeight, "blkio-weight", 0, "Share of disk IO against other containers, 10 to 1000 (default 0, none set)")
	f.Var(newList(&c.weightDevices), "blkio-weight-device", "Share of one device's IO (DEVICE:WEIGHT)")
	f.Var(newList(&c.readBps), "device-read-bps", "Most bytes read a second from a device (DEVICE:BYTES)")
	f.Var(newList(&c.readIOps), "device-read-iops", "Most reads a second from a device (DEVICE:COUNT)")
	f.Var(newList(&c.writeBps), "device-write-bps", "Most bytes written a second to a device (DEVICE:BYTES)")
	f.Var(newList(&c.writeIOps), "device-write-iops", "Most writes a second to a device (DEVICE:COUNT)")
	f.BoolVar(&c.oomKillDisable, "oom-kill-disable", false, "Let the container wait rather than be killed when memory is full")
	f.IntVar(&c.oomScoreAdj, "oom-score-adj", 0, "How soon to be killed when the host lacks memory (-1000 last, 1000 first)")
	f.Var(&c.gpus, "gpus", `GPUs to make available: a count, "all" or key=value pairs`)
}

func (c *containerFlags) addNetwork(f *pflag.FlagSet) {
	f.Var(&c.networks, "network", "Network to attach the container to")
	f.Var(&c.networks, "net", "Network to attach the container to")
	_ = f.MarkHidden("net")
	f.Var(newList(&c.aliases), "network-alias", "Further name for the container on this network")
	f.Var(newList(&c.aliases), "net-alias", "Further name for the container on this network")
	_ = f.MarkHidden("net-alias")
	f.Var(&c.ip, "ip", "Fixed IPv4 address, such as 10.20.0.9")
	f.Var(&c.ip6, "ip6", "Fixed IPv6 address, such as fd00:20::9")
	f.Var(opts.NewList(&c.linkLocal, ipAddress), "link-local-ip", "Link-local address for the container")
	f.Var(newList(&c.links), "link", "Other container to reach under a name (CONTAINER[:ALIAS])")
	f.StringVar(&c.mac, "mac-address", "", "MAC address for the container, such as 02:42:ac:11:00:09")
	f.VarP(newList(&c.publish), "publish", "p", "Make a port reachable on the host ([[IP:]HOST:]CONTAINER[/tcp|udp|sctp])")
	f.BoolVarP(&c.publishAll, "publish-all", "P", false, "Publish each exposed port on a free host port")
	f.Var(newList(&c.expose), "expose", "Port or range to mark as in use, without publishing it")
	f.StringVarP(&c.hostname, "hostname", "h", "", "Host name seen in the container")
	f.StringVar(&c.domainname, "domainname", "", "NIS domain name seen in the container")
	f.Var(opts.NewList(&c.dns, ipAddress), "dns", "Address of a DNS server")
	f.Var(newList(&c.dnsOptions), "dns-option", "Option for the container's resolv.conf")
	f.Var(newList(&c.dnsOptions), "dns-opt", "Option for the container's resolv.conf")
	_ = f.MarkHidden("dns-opt")
	f.Var(newList(&c.dnsSearch), "dns-search", "Domain to try for short host names")
	f.Var(opts.NewList(&c.extraHosts, opts.ExtraHost), "add-host", "Extra line for the container's /etc/hosts (host:ip)")
}

func (c *containerFlags) addStorage(f *pflag.FlagSet) {
	f.VarP(newList(&c.volumes), "volume", "v", "Volume or host directory to mount ([SOURCE:]TARGET[:OPTIONS])")
	f.Var(newList(&c.volumesFrom), "volumes-from", "Container whose volumes to mount too (NAME[:ro])")
	f.StringVar(&c.volumeDriver, "volume-driver", "", "Driver for volumes that are created with the container")
	f.Var(&c.mounts, "mount", "Mount, as key=value pairs (type=bind|volume|tmpfs|image,...)")
	f.Var(newList(&c.tmpfs), "tmpfs", "Directory to keep in memory (PATH[:OPTIONS])")
	f.Var(&c.shmSize, "shm-size", "Bytes of shared memory at /dev/shm (suffix k, m or g allowed)")
	f.Var(newList(&c.storageOpts), "storage-opt", "Setting for the storage of the container (KEY=VALUE)")
	f.BoolVar(&c.readOnly, "read-only", false, "Forbid writing to the container's root filesystem")
	f.Var(newList(&c.devices), "device", "Host device to make available (HOST[:CONTAINER[:rwm]])")
	f.Var(newList(&c.deviceRules), "device-cgroup-rule", `Device access to allow, as "TYPE MAJOR:MINOR rwm"`)
}

func (c *containerFlags) addSecurity(f *pflag.FlagSet) {
	f.BoolVar(&c.privileged, "privileged", false, "Lift nearly all confinement: all capabilities and devices")
	f.Var(newList(&c.capAdd), "cap-add", "Linux capability to give beyond the default set, or ALL")
	f.Var(newList(&c.capDrop), "cap-drop", "Linux capability to take from the default set, or ALL")
	f.Var(newList(&c.securityOpts), "security-opt", "Security Options")
	f.StringVar(&c.ipc, "ipc", "", "IPC namespace: private, shareable, none, host or container:NAME")
	f.StringVar(&c.pid, "pid", "", "PID namespace: host or container:NAME (its own if not given)")
	f.StringVar(&c.uts, "uts", "", "UTS namespace: host, or its own if not given")
	f.StringVar(&c.userns, "userns", "", "User namespace: host, or the daemon's choice if not given")
	f.StringVar(&c.cgroupns, "cgroupns", "", `Cgroups that the container sees
'host':    Those of the host
'private': Only its own
'':        As the daemon's default-cgroupns-mode says (default)`)
}

func (c *containerFlags) addHealth(f *pflag.FlagSet) {
	f.StringVar(&c.healthCmd, "health-cmd", "", "Shell command that tells whether the container is healthy")
	f.DurationVar(&c.healthInterval, "health-interval", 0, "Time from one check to the next (ms|s|m|h; 0s keeps the image's, or 30s)")
	f.IntVar(&c.healthRetries, "health-retries", 0, "Failed checks in a row that mean unhealthy (0 keeps the image's, or 3)")
	f.DurationVar(&c.healthTimeout, "health-timeout", 0, "A check taking longer has failed (ms|s|m|h; 0s keeps the image's, or 30s)")
	f.DurationVar(&c.healthStart, "health-start-period", 0, "Time to get ready in which failed checks do not count (ms|s|m|h; 0s keeps the image's)")
	f.DurationVar(&c.healthStartInterval, "health-start-interval", 0, "Time from one check to the next in the start period (ms|s|m|h; 0s keeps the image's, or 5s)")
	f.BoolVar(&c.noHealth, "no-healthcheck", false, "Run no health check, even if the image has one")
}
