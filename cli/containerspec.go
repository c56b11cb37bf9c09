package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/cli/opts"
)

// classError carries a class without its words.
type classError struct {
	msg   string
	class error
}

func (e classError) Error() string { return e.msg }
func (e classError) Unwrap() error { return e.class }

// invalidf is an error of the caller's input.
func invalidf(format string, args ...any) error {
	return classError{fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument}
}

// request turns the flags into what the API wants. args are the image and the
// command.
func (c *containerFlags) request(a *app, args []string) (container.CreateRequest, error) {
	var req container.CreateRequest
	conf, err := c.config(a, args)
	if err != nil {
		return req, err
	}
	host, err := c.hostConfig()
	if err != nil {
		return req, err
	}
	anonymous, binds, err := opts.Volumes(c.volumes)
	if err != nil {
		return req, err
	}
	conf.Volumes, host.Binds = anonymous, binds
	if err := c.ports(conf, host); err != nil {
		return req, err
	}
	net, err := c.networking(host)
	if err != nil {
		return req, err
	}
	return container.CreateRequest{Config: conf, HostConfig: host, NetworkingConfig: net}, nil
}

func (c *containerFlags) config(a *app, args []string) (*container.Config, error) {
	env, err := opts.Env(c.envFile, c.env)
	if err != nil {
		return nil, err
	}
	labels, err := opts.Labels(c.labelFile, c.labels)
	if err != nil {
		return nil, err
	}
	conf := &container.Config{
		Hostname: c.hostname, Domainname: c.domainname, User: c.user,
		Tty: c.tty, OpenStdin: c.stdin,
		Env: append(a.proxyEnv(env), env...), Cmd: args[1:], Image: args[0],
		WorkingDir: c.workdir, Labels: labels, StopSignal: c.stopSignal,
	}
	if c.entrypoint != "" || c.set.Changed("entrypoint") {
		conf.Entrypoint = []string{c.entrypoint}
	}
	if c.set.Changed("stop-timeout") {
		conf.StopTimeout = &c.stopTimeout
	}
	c.streams(conf)
	conf.Healthcheck, err = c.health()
	return conf, err
}

// streams decides what to attach: what --attach names, or the outputs, and the
// input with -i.
func (c *containerFlags) streams(conf *container.Config) {
	for _, s := range c.attach {
		switch s {
		case "stdin":
			conf.AttachStdin = true
		case "stdout":
			conf.AttachStdout = true
		case "stderr":
			conf.AttachStderr = true
		}
	}
	if len(c.attach) == 0 {
		conf.AttachStdout, conf.AttachStderr, conf.AttachStdin = true, true, c.stdin
	}
	conf.StdinOnce = c.stdin && conf.AttachStdin
}

// attachStream checks a value of --attach.
func attachStream(s string) (string, error) {
	switch l := strings.ToLower(s); l {
	case "stdin", "stdout", "stderr":
		return l, nil
	}
	return "", invalidf("valid streams are STDIN, STDOUT and STDERR")
}

// ipAddress checks the value of a flag that takes addresses.
func ipAddress(s string) (string, error) {
	ip, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return "", invalidf("IP address is not correctly formatted: %s", s)
	}
	return ip.String(), nil
}

func (c *containerFlags) health() (*container.HealthConfig, error) {
	given := c.healthCmd != "" || c.healthInterval != 0 || c.healthTimeout != 0 || c.healthRetries != 0 ||
		c.healthStart != 0 || c.healthStartInterval != 0
	switch {
	case c.noHealth && given:
		return nil, invalidf("--no-healthcheck conflicts with --health-* options")
	case c.noHealth:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	}
	if c.healthRetries < 0 {
		return nil, invalidf("--health-retries cannot be negative")
	}
	for _, d := range []struct {
		flag string
		neg  bool
	}{
		{"interval", c.healthInterval < 0}, {"timeout", c.healthTimeout < 0},
		{"start-period", c.healthStart < 0}, {"start-interval", c.healthStartInterval < 0},
	} {
		if d.neg {
			return nil, invalidf("--health-%s cannot be negative", d.flag)
		}
	}
	h := &container.HealthConfig{
		Interval: c.healthInterval, Timeout: c.healthTimeout, StartPeriod: c.healthStart,
		StartInterval: c.healthStartInterval, Retries: c.healthRetries,
	}
	if c.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", c.healthCmd}
	}
	return h, nil
}

func (c *containerFlags) hostConfig() (*container.HostConfig, error) {
	restart, err := opts.Restart(c.restart)
	if err != nil {
		return nil, err
	}
	if c.rm && !restart.IsNone() {
		return nil, invalidf("conflicting options: cannot specify both --restart and --rm")
	}
	logs, err := c.logConfig()
	if err != nil {
		return nil, err
	}
	security, unconfinedPaths, err := opts.Security(c.securityOpts)
	if err != nil {
		return nil, err
	}
	storage, err := opts.Pairs("storage option", c.storageOpts)
	if err != nil {
		return nil, err
	}
	res, err := c.resources()
	if err != nil {
		return nil, err
	}
	h := &container.HostConfig{
		ContainerIDFile: c.cidfile, LogConfig: logs, RestartPolicy: restart, AutoRemove: c.rm,
		VolumeDriver: c.volumeDriver, VolumesFrom: c.volumesFrom, Annotations: c.annotations,
		CapAdd: opts.Capabilities(c.capAdd), CapDrop: opts.Capabilities(c.capDrop), CgroupnsMode: container.CgroupnsMode(c.cgroupns),
		DNSOptions: c.dnsOptions, DNSSearch: c.dnsSearch, ExtraHosts: c.extraHosts, GroupAdd: c.groupAdd,
		IpcMode: container.IpcMode(c.ipc), PidMode: container.PidMode(c.pid), UTSMode: container.UTSMode(c.uts),
		UsernsMode: container.UsernsMode(c.userns), OomScoreAdj: c.oomScoreAdj, Privileged: c.privileged,
		PublishAllPorts: c.publishAll, ReadonlyRootfs: c.readOnly, SecurityOpt: security, StorageOpt: storage,
		Tmpfs: tmpfsMap(c.tmpfs), ShmSize: c.shmSize.N, Sysctls: c.sysctls, Runtime: c.runtime,
		Isolation: container.Isolation(c.isolation), Resources: res, Mounts: c.mounts,
	}
	if err := c.checkModes(h); err != nil {
		return nil, err
	}
	if unconfinedPaths {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	if c.set.Changed("init") {
		h.Init = &c.init
	}
	for _, s := range c.dns {
		ip, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		h.DNS = append(h.DNS, ip)
	}
	return h, nil
}

func (c *containerFlags) checkModes(h *container.HostConfig) error {
	for _, m := range []struct {
		flag, value string
		ok          bool
	}{
		{"pid", c.pid, h.PidMode.Valid()},
		{"uts", c.uts, h.UTSMode.Valid()},
		{"userns", c.userns, h.UsernsMode.Valid()},
		{"cgroupns", c.cgroupns, h.CgroupnsMode.Valid()},
	} {
		if !m.ok {
			return invalidf("--%s: invalid %s mode", m.flag, strings.ToUpper(m.flag))
		}
	}
	return nil
}

func (c *containerFlags) logConfig() (container.LogConfig, error) {
	m := map[string]string{}
	for _, o := range c.logOpts {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return container.LogConfig{}, invalidf("invalid logging option: %q: must be key=value", o)
		}
		m[k] = v
	}
	if c.logDriver == "none" && len(m) > 0 {
		return container.LogConfig{}, invalidf("invalid logging opts for driver %s", c.logDriver)
	}
	return container.LogConfig{Type: c.logDriver, Config: m}, nil
}

func tmpfsMap(specs []string) map[string]string {
	if len(specs) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range specs {
		path, o, _ := strings.Cut(s, ":")
		m[path] = o
	}
	return m
}

func (c *containerFlags) resources() (container.Resources, error) {
	r := container.Resources{
		CPUShares: c.cpuShares, Memory: c.memory.N, NanoCPUs: int64(c.cpus), CgroupParent: c.cgroupParent,
		BlkioWeight: c.blkioWeight, CPUPeriod: c.cpuPeriod, CPUQuota: c.cpuQuota,
		CPURealtimePeriod: c.rtPeriod, CPURealtimeRuntime: c.rtRun, CpusetCpus: c.cpusetCPUs, CpusetMems: c.cpusetMems,
		DeviceCgroupRules: c.deviceRules, MemoryReservation: c.memoryReservation.N, MemorySwap: c.memorySwap.N,
		Ulimits: c.ulimits,
	}
	if c.set.Changed("pids-limit") {
		r.PidsLimit = &c.pidsLimit
	}
	if c.oomKillDisable {
		r.OomKillDisable = &c.oomKillDisable
	}
	if c.swappiness != -1 {
		if c.swappiness < 0 || c.swappiness > 100 {
			return r, invalidf("invalid value: %d. Valid memory swappiness range is 0-100", c.swappiness)
		}
		r.MemorySwappiness = &c.swappiness
	}
	return r, c.deviceResources(&r)
}

func (c *containerFlags) deviceResources(r *container.Resources) (err error) {
	if r.Devices, r.DeviceRequests, err = opts.Devices(c.devices); err != nil {
		return err
	}
	r.DeviceRequests = append(r.DeviceRequests, c.gpus...)
	if r.BlkioWeightDevice, err = opts.WeightDevices(c.weightDevices); err != nil {
		return err
	}
	if r.BlkioDeviceReadBps, err = opts.Throttles(c.readBps, true); err != nil {
		return err
	}
	if r.BlkioDeviceWriteBps, err = opts.Throttles(c.writeBps, true); err != nil {
		return err
	}
	if r.BlkioDeviceReadIOps, err = opts.Throttles(c.readIOps, false); err != nil {
		return err
	}
	r.BlkioDeviceWriteIOps, err = opts.Throttles(c.writeIOps, false)
	return err
}

func (c *containerFlags) ports(conf *container.Config, host *container.HostConfig) error {
	exposed, bound, err := opts.Ports(c.publish)
	if err != nil {
		return err
	}
	for _, e := range c.expose {
		more, err := opts.Expose(e)
		if err != nil {
			return err
		}
		for _, p := range more {
			exposed[p] = struct{}{}
		}
	}
	conf.ExposedPorts, host.PortBindings = exposed, bound
	return nil
}
