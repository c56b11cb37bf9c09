package config

// absentOptions are those of parts that do not exist here. The ignored ones
// name parts that other engines need and this one does not; the refused ones
// would change what users get.
func absentOptions(c *Config) []option {
	u := &c.unused
	return []option{
		{flag: "containerd", key: "containerd", value: stringVar(&u.strings[0]), support: ignored, usage: "Ignored: the content store is part of the daemon"},
		{flag: "containerd-namespace", key: "containerd-namespace", value: stringVar(&u.strings[1]), support: ignored, usage: "Ignored: the content store is part of the daemon"},
		{flag: "containerd-plugins-namespace", key: "containerd-plugins-namespace", value: stringVar(&u.strings[2]), support: ignored, usage: "Ignored: the content store is part of the daemon"},
		{flag: "cri-containerd", key: "cri-containerd", value: boolVar(&u.bools[0]), support: ignored, usage: "Ignored: the content store is part of the daemon"},
		{flag: "userland-proxy", key: "userland-proxy", value: boolVar(&u.bools[1]), support: ignored, usage: "Ignored: there is no proxy process per port"},
		{flag: "userland-proxy-path", key: "userland-proxy-path", value: stringVar(&u.strings[3]), support: ignored, usage: "Ignored: there is no proxy process per port"},
		{flag: "init-path", key: "init-path", value: stringVar(&u.strings[4]), support: ignored, usage: "Ignored: the init is part of the runtime"},
		{flag: "network-control-plane-mtu", key: "network-control-plane-mtu", value: intVar(&u.ints[0]), support: ignored, usage: "Ignored: there is no cluster yet"},
		{flag: "swarm-default-advertise-addr", key: "swarm-default-advertise-addr", value: stringVar(&u.strings[5]), support: ignored, usage: "Ignored: there is no cluster yet"},
		{flag: "restart", short: "r", value: boolVar(&u.bools[2]), support: ignored, hidden: true, usage: "Deprecated"},
		{flag: "oom-score-adjust", key: "oom-score-adjust", value: intVar(&u.ints[1]), support: ignored, hidden: true, usage: "Deprecated"},
		{key: "allow-nondistributable-artifacts", value: listVar(&u.lists[0], nil), support: ignored},
		{key: "deprecated-key-path", value: stringVar(&u.strings[6]), support: ignored},

		{flag: "allow-direct-routing", key: "allow-direct-routing", value: boolVar(&u.bools[3]), support: refused, usage: "Not supported yet"},
		{flag: "authorization-plugin", key: "authorization-plugins", value: listVar(&u.lists[1], nil), support: refused, usage: "Not supported yet"},
		{flag: "bridge-accept-fwmark", key: "bridge-accept-fwmark", value: stringVar(&u.strings[7]), support: refused, usage: "Not supported yet"},
		{flag: "cdi-spec-dir", key: "cdi-spec-dirs", value: listVar(&u.lists[2], nil), support: refused, usage: "Not supported yet"},
		{flag: "cpu-rt-period", key: "cpu-rt-period", value: intVar(&u.ints[2]), support: refused, usage: "Not supported yet"},
		{flag: "cpu-rt-runtime", key: "cpu-rt-runtime", value: intVar(&u.ints[3]), support: refused, usage: "Not supported yet"},
		{flag: "firewall-backend", key: "firewall-backend", value: choiceVar(&u.strings[8], "nftables"), usage: "Only nftables"},
		{flag: "ip-forward-no-drop", key: "ip-forward-no-drop", value: boolVar(&u.bools[4]), support: ignored, usage: "Ignored: the FORWARD policy is never changed"},
		{flag: "metrics-addr", key: "metrics-addr", value: stringVar(&u.strings[9]), support: refused, usage: "Not supported yet"},
		{flag: "network-diagnostic-port", key: "network-diagnostic-port", value: intVar(&u.ints[4]), support: refused, hidden: true, usage: "Not supported yet"},
		{flag: "node-generic-resource", key: "node-generic-resources", value: listVar(&u.lists[3], nil), support: refused, usage: "Not supported yet"},
		{flag: "nri-opts", key: "nri-opts", value: nriVar(&u.maps), support: refused, usage: "Not supported yet"},
		{flag: "rootless", key: "rootless", value: boolVar(&u.bools[5]), support: refused, usage: "Not supported yet"},
		{flag: "selinux-enabled", key: "selinux-enabled", value: boolVar(&u.bools[6]), support: refused, usage: "Not supported yet"},
		{flag: "api-cors-header", key: "api-cors-header", value: stringVar(&u.strings[10]), support: refused, hidden: true, usage: "Not supported"},
	}
}
