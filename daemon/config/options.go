package config

// support says what happens when an option is set.
type support int

const (
	works   support = iota
	ignored         // taken with a warning: the part it belongs to does not exist here
	refused         // an error that names it
)

// option is one row: a flag, a key of daemon.json, or both.
type option struct {
	flag  string // "" if the key has no flag
	short string
	key   string // "" if the flag has no key
	value value
	usage string
	// reload: changes are taken on SIGHUP.
	reload  bool
	support support
	hidden  bool
}

// Defaults of this engine.
const (
	DefaultConfigFile = "/etc/wherry/daemon.json"
	DefaultHost       = "unix:///run/wherry.sock"
	defaultDataRoot   = "/var/lib/wherry"
	defaultExecRoot   = "/run/wherry"
	defaultPidfile    = "/run/wherry.pid"
	// DefaultGroup may use the socket, if it exists.
	DefaultGroup = "wherry"
	// BuiltinRuntime is the name of the runtime inside the engine.
	BuiltinRuntime = "wherry"
)

// defaults returns the configuration when nothing is set.
func defaults() *Config {
	c := &Config{
		Group: DefaultGroup, Pidfile: defaultPidfile, DataRoot: defaultDataRoot, ExecRoot: defaultExecRoot,
		LogLevel: "info", LogFormat: "text", ShutdownTimeout: 15, DefaultRun: BuiltinRuntime,
		Features: map[string]bool{}, Runtimes: map[string]Runtime{},
	}
	c.TLS.CA, c.TLS.Cert, c.TLS.Key = certPath("ca.pem"), certPath("cert.pem"), certPath("key.pem")
	c.Containers.LogDriver, c.Containers.LogOpts = "json-file", map[string]string{}
	c.Containers.IPCMode, c.Containers.ShmSize, c.Containers.StopTimeout = "private", 64<<20, 10
	c.Containers.SeccompProfile = "builtin"
	n := &c.Network
	n.ICC, n.IPMasq, n.IPForward, n.IPTables, n.IP6Tables = true, true, true, true, true
	n.ForeignRules = "accept"
	c.Registry.ConcurrentDownloads, c.Registry.ConcurrentUploads, c.Registry.DownloadAttempts = 3, 5, 5
	return c
}

// options is the table. Values are bound to c, which holds the defaults.
func options(c *Config) []option {
	return append(append(daemonOptions(c), containerOptions(c)...), append(networkOptions(c), absentOptions(c)...)...)
}

func daemonOptions(c *Config) []option {
	return []option{
		{flag: "validate", value: boolVar(&c.Validate), usage: "Validate the configuration and exit"},
		{flag: "version", short: "v", value: boolVar(&c.Version), usage: "Print version information and quit"},
		{flag: "help", value: boolVar(&c.Help), usage: "Print usage"},
		{flag: "host", short: "H", key: "hosts", value: listVar(&c.Hosts, checkHost), usage: "Daemon socket(s) to connect to"},
		{flag: "group", short: "G", key: "group", value: stringVar(&c.Group), usage: "Group for the unix socket"},
		{flag: "tls", key: "tls", value: boolVar(&c.TLS.Enabled), usage: "Use TLS; implied by --tlsverify"},
		{flag: "tlsverify", key: "tlsverify", value: boolSetVar(&c.TLS.Verify, &c.TLS.verifySet), usage: "Use TLS and verify the remote"},
		{flag: "tlscacert", key: "tlscacert", value: stringVar(&c.TLS.CA), usage: "Trust certs signed only by this CA"},
		{flag: "tlscert", key: "tlscert", value: stringVar(&c.TLS.Cert), usage: "Path to TLS certificate file"},
		{flag: "tlskey", key: "tlskey", value: stringVar(&c.TLS.Key), usage: "Path to TLS key file"},
		{flag: "pidfile", short: "p", key: "pidfile", value: stringVar(&c.Pidfile), usage: "Path to use for daemon PID file"},
		{flag: "data-root", key: "data-root", value: stringVar(&c.DataRoot), usage: "Root directory of persistent state"},
		{flag: "exec-root", key: "exec-root", value: stringVar(&c.ExecRoot), usage: "Root directory for execution state files"},
		{flag: "debug", short: "D", key: "debug", value: boolVar(&c.Debug), reload: true, usage: "Enable debug mode"},
		{flag: "log-level", short: "l", key: "log-level", value: stringVar(&c.LogLevel), usage: "Set the logging level (debug|info|warn|error|fatal)"},
		{flag: "log-format", key: "log-format", value: stringVar(&c.LogFormat), usage: "Set the logging format (text|json)"},
		{flag: "raw-logs", key: "raw-logs", value: boolVar(&c.RawLogs), usage: "Full timestamps without ANSI coloring (always so)"},
		{flag: "label", key: "labels", value: listVar(&c.Labels, checkLabel), reload: true, usage: "Set key=value labels to the daemon"},
		{flag: "feature", key: "features", value: boolMapVar(&c.Features), reload: true, usage: "Enable feature in the daemon"},
		{key: "min-api-version", value: stringVar(&c.MinAPIVersion)},
		{flag: "experimental", key: "experimental", value: boolVar(&c.Experimental), usage: "Enable experimental features"},
		{flag: "shutdown-timeout", key: "shutdown-timeout", value: intVar(&c.ShutdownTimeout), reload: true, usage: "Set the default shutdown timeout in seconds"},
		{flag: "live-restore", key: "live-restore", value: optBoolVar(&c.LiveRestore), reload: true, usage: "Containers outlive the daemon; false stops them with it"},
		{flag: "storage-driver", short: "s", key: "storage-driver", value: stringVar(&c.StorageDriver), usage: "Storage driver to use"},
		{flag: "storage-opt", key: "storage-opts", value: listVar(&c.StorageOpts, nil), support: refused, usage: "Storage driver options"},
		{flag: "add-runtime", key: "runtimes", value: runtimesVar(&c.Runtimes), reload: true, usage: "Register an additional OCI compatible runtime (name=path)"},
		{flag: "default-runtime", key: "default-runtime", value: stringVar(&c.DefaultRun), reload: true, usage: "Default OCI runtime for containers"},
		{flag: "exec-opt", key: "exec-opts", value: listVar(&c.ExecOpts, nil), usage: "Runtime execution options (native.cgroupdriver)"},
		{flag: "registry-mirror", key: "registry-mirrors", value: listVar(&c.Registry.Mirrors, checkMirror), reload: true, usage: "Preferred registry mirror"},
		{flag: "insecure-registry", key: "insecure-registries", value: listVar(&c.Registry.Insecure, checkInsecure), reload: true, usage: "Enable insecure registry communication"},
		{flag: "max-concurrent-downloads", key: "max-concurrent-downloads", value: intVar(&c.Registry.ConcurrentDownloads), reload: true, usage: "Set the max concurrent downloads"},
		{flag: "max-concurrent-uploads", key: "max-concurrent-uploads", value: intVar(&c.Registry.ConcurrentUploads), reload: true, usage: "Set the max concurrent uploads"},
		{flag: "max-download-attempts", key: "max-download-attempts", value: intVar(&c.Registry.DownloadAttempts), reload: true, usage: "Set the max download attempts for each pull"},
		{flag: "http-proxy", key: "proxies.http-proxy", value: stringVar(&c.Proxies.HTTP), usage: "HTTP proxy URL to use for outgoing traffic"},
		{flag: "https-proxy", key: "proxies.https-proxy", value: stringVar(&c.Proxies.HTTPS), usage: "HTTPS proxy URL to use for outgoing traffic"},
		{flag: "no-proxy", key: "proxies.no-proxy", value: stringVar(&c.Proxies.No), usage: "Comma-separated list of hosts or IP addresses for which the proxy is skipped"},
		{key: "builder", value: jsonVar(&c.Builder), support: refused},
	}
}

func containerOptions(c *Config) []option {
	d := &c.Containers
	return []option{
		{flag: "log-driver", key: "log-driver", value: stringVar(&d.LogDriver), usage: "Default driver for container logs"},
		{flag: "log-opt", key: "log-opts", value: mapVar(&d.LogOpts), usage: "Default log driver options for containers"},
		{flag: "cgroup-parent", key: "cgroup-parent", value: stringVar(&d.CgroupParent), usage: "Set parent cgroup for all containers"},
		{flag: "default-cgroupns-mode", key: "default-cgroupns-mode", value: stringVar(&d.CgroupNSMode), reload: true, usage: `Default mode for containers cgroup namespace ("host" | "private")`},
		{flag: "default-ipc-mode", key: "default-ipc-mode", value: stringVar(&d.IPCMode), reload: true, usage: `Default mode for containers ipc ("shareable" | "private")`},
		{flag: "default-shm-size", key: "default-shm-size", value: bytesVar(&d.ShmSize), reload: true, usage: "Default shm size for containers"},
		{flag: "default-stop-timeout", key: "default-stop-timeout", value: intVar(&d.StopTimeout), support: refused, usage: "Default stop timeout (in seconds) for containers"},
		{flag: "default-ulimit", key: "default-ulimits", value: ulimitsVar(&d.Ulimits), usage: "Default ulimits for containers"},
		{flag: "init", key: "init", value: boolVar(&d.Init), usage: "Run an init in the container to forward signals and reap processes"},
		{flag: "no-new-privileges", key: "no-new-privileges", value: boolVar(&d.NoNewPrivileges), usage: "Set no-new-privileges by default for new containers"},
		{flag: "seccomp-profile", key: "seccomp-profile", value: stringVar(&d.SeccompProfile), usage: `Path to seccomp profile, "builtin" or "unconfined"`},
		{flag: "userns-remap", key: "userns-remap", value: stringVar(&d.UsernsRemap), usage: "User/group whose subordinate ids containers have (default | user | user:group | uid | uid:gid)"},
		{flag: "host-gateway-ip", key: "host-gateway-ips", value: addrsVar(&d.HostGatewayIPs), usage: "IP address that the special 'host-gateway' string in --add-host resolves to"},
		{key: "host-gateway-ip", value: addrVar(&d.hostGatewayIPOnce)},
	}
}

func networkOptions(c *Config) []option {
	n := &c.Network
	return []option{
		{flag: "bridge", short: "b", key: "bridge", value: stringVar(&n.Bridge), usage: "Name of the default bridge; made with --bip if it is missing; none for no default network"},
		{flag: "bip", key: "bip", value: stringVar(&n.BIP), usage: "IPv4 address of the default bridge, with its prefix"},
		{flag: "bip6", key: "bip6", value: stringVar(&n.BIP6), usage: "IPv6 address of the default bridge, with its prefix"},
		{flag: "fixed-cidr", key: "fixed-cidr", value: stringVar(&n.FixedCIDR), usage: "IPv4 subnet for the default bridge network"},
		{flag: "fixed-cidr-v6", key: "fixed-cidr-v6", value: stringVar(&n.FixedCIDRv6), usage: "IPv6 subnet for the default bridge network"},
		{flag: "default-gateway", key: "default-gateway", value: ipVar(&n.Gateway), usage: "Default gateway IPv4 address for the default bridge network"},
		{flag: "default-gateway-v6", key: "default-gateway-v6", value: ipVar(&n.GatewayV6), usage: "Default gateway IPv6 address for the default bridge network"},
		{flag: "ip", key: "ip", value: ipVar(&n.DefaultIP), usage: "Host IP for port publishing from the default bridge network"},
		{flag: "mtu", key: "mtu", value: intVar(&n.MTU), usage: "Set the MTU for the default bridge network"},
		{flag: "icc", key: "icc", value: boolVar(&n.ICC), usage: "Enable inter-container communication for the default bridge network"},
		{flag: "ip-masq", key: "ip-masq", value: boolVar(&n.IPMasq), usage: "Enable IP masquerading for the default bridge network"},
		{flag: "ip-forward", key: "ip-forward", value: boolVar(&n.IPForward), usage: "Enable IP forwarding in system configuration"},
		{flag: "iptables", key: "iptables", value: boolVar(&n.IPTables), usage: "Enable firewall rules for IPv4"},
		{flag: "ip6tables", key: "ip6tables", value: boolVar(&n.IP6Tables), usage: "Enable firewall rules for IPv6"},
		{flag: "ipv6", key: "ipv6", value: boolVar(&n.IPv6), usage: "Enable IPv6 networking for the default bridge network"},
		{flag: "dns", key: "dns", value: addrsVar(&n.DNS), usage: "DNS server to use"},
		{flag: "dns-opt", key: "dns-opts", value: listVar(&n.DNSOpts, nil), usage: "DNS options to use"},
		{flag: "dns-search", key: "dns-search", value: listVar(&n.DNSSearch, checkDomain), usage: "DNS search domains to use"},
		{flag: "default-address-pool", key: "default-address-pools", value: poolsVar(&n.Pools), usage: "Default address pools for local networks (base=CIDR,size=N)"},
		{flag: "default-network-opt", key: "default-network-opts", value: nestedMapVar(&n.NetworkOpts), support: refused, usage: "Default network options (driver=key=value)"},
		{key: "foreign-firewall", value: stringVar(&n.ForeignRules)},
	}
}
