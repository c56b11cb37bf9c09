package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/internal/version"
)

func infoCommand() command {
	return command{
		group: "system", name: "info", top: "info", common: 12,
		usage: "[OPTIONS]", short: "Describe the engine and the machine it runs on",
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var tmpl string
			f.StringVarP(&tmpl, "format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.info(ctx, tmpl) }
		},
	}
}

// infoView is what templates of `info --format` see.
type infoView struct {
	*system.Info
	ServerErrors []string `json:",omitempty"`
	ClientInfo   clientInfo
}

type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []string
	Warnings []string
}

func (a *app) info(ctx context.Context, tmpl string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	name, err := a.contextName()
	if err != nil {
		return err
	}
	v := infoView{ClientInfo: clientInfo{Debug: a.flags.debug, clientVersion: clientVersion{Version: version.Version, Context: name}, Plugins: a.plugins()}}
	var info system.Info
	var raw json.RawMessage
	srvErr := cl.Get(ctx, "/info", nil, &raw)
	if srvErr == nil {
		srvErr = json.Unmarshal(raw, &info)
	}
	if srvErr == nil {
		v.Info = &info
	} else {
		v.ServerErrors = []string{a.message(srvErr)}
	}
	if tmpl != "" {
		if v.Info == nil {
			v.Info = &system.Info{}
		}
		if err := format.Value(a.out, tmpl, v); err != nil {
			return errors.Join(srvErr, err)
		}
		return srvErr
	}
	a.printClientInfo(v)
	fmt.Fprintln(a.out, "Server:")
	if v.Info != nil {
		printInfo(a.out, &info)
		for _, w := range info.Warnings {
			fmt.Fprintln(a.err, w)
		}
	}
	if srvErr != nil {
		return srvErr
	}
	return nil
}

func (a *app) printClientInfo(v infoView) {
	w := a.out
	fmt.Fprintf(w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n", v.ClientInfo.Version, v.ClientInfo.Context, v.ClientInfo.Debug)
	if len(v.ClientInfo.Plugins) > 0 {
		fmt.Fprintln(w, " Plugins:")
		for _, p := range v.ClientInfo.Plugins {
			fmt.Fprintf(w, "  %s\n", p)
		}
	}
	fmt.Fprintln(w)
}

// printInfo prints what `info` shows of the daemon.
func printInfo(w io.Writer, i *system.Info) {
	fmt.Fprintf(w, " Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	line(w, " ", "Server Version", i.ServerVersion)
	line(w, " ", "Storage Driver", i.Driver)
	pairs(w, "  ", i.DriverStatus)
	pairs(w, " ", i.SystemStatus)
	line(w, " ", "Logging Driver", i.LoggingDriver)
	line(w, " ", "Cgroup Driver", i.CgroupDriver)
	line(w, " ", "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	fmt.Fprintf(w, "  Volume: %s\n  Network: %s\n", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		fmt.Fprintf(w, "  Authorization: %s\n", strings.Join(i.Plugins.Authorization, " "))
	}
	fmt.Fprintf(w, "  Log: %s\n", strings.Join(i.Plugins.Log, " "))
	if len(i.CDISpecDirs) > 0 {
		fmt.Fprintln(w, " CDI spec directories:")
		for _, d := range i.CDISpecDirs {
			fmt.Fprintf(w, "  %s\n", d)
		}
	}
	fmt.Fprintf(w, " Swarm: %s\n", i.Swarm.LocalNodeState)
	printRuntimes(w, i)
	printSecurity(w, i.SecurityOptions)
	printHost(w, i)
	printRegistries(w, i)
}

func printRuntimes(w io.Writer, i *system.Info) {
	if len(i.Runtimes) > 0 {
		names := make([]string, 0, len(i.Runtimes))
		for n := range i.Runtimes {
			names = append(names, n)
		}
		slices.Sort(names)
		fmt.Fprintf(w, " Runtimes: %s\n", strings.Join(names, " "))
	}
	line(w, " ", "Default Runtime", i.DefaultRuntime)
	line(w, " ", "Init Binary", i.InitBinary)
	line(w, " ", "containerd version", i.ContainerdCommit.ID)
	line(w, " ", "runc version", i.RuncCommit.ID)
	line(w, " ", "init version", i.InitCommit.ID)
}

// printSecurity prints "name=seccomp,profile=default" as a name and its
// options below.
func printSecurity(w io.Writer, all []string) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, o := range all {
		for n, f := range strings.Split(o, ",") {
			k, v, ok := strings.Cut(f, "=")
			switch {
			case !ok:
				fmt.Fprintf(w, "  %s\n", f)
			case n == 0 && k == "name":
				fmt.Fprintf(w, "  %s\n", v)
			case k == "profile":
				fmt.Fprintf(w, "   Profile: %s\n", v)
			default:
				fmt.Fprintf(w, "   %s: %s\n", k, v)
			}
		}
	}
}

func printHost(w io.Writer, i *system.Info) {
	line(w, " ", "Kernel Version", i.KernelVersion)
	line(w, " ", "Operating System", i.OperatingSystem)
	line(w, " ", "OSType", i.OSType)
	line(w, " ", "Architecture", i.Architecture)
	fmt.Fprintf(w, " CPUs: %d\n Total Memory: %s\n", i.NCPU, units.BytesSize(float64(i.MemTotal)))
	line(w, " ", "Name", i.Name)
	line(w, " ", "ID", i.ID)
	line(w, " ", "Docker Root Dir", i.DockerRootDir)
	fmt.Fprintf(w, " Debug Mode: %v\n", i.Debug)
	if i.Debug {
		fmt.Fprintf(w, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  EventsListeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	line(w, " ", "HTTP Proxy", i.HTTPProxy)
	line(w, " ", "HTTPS Proxy", i.HTTPSProxy)
	line(w, " ", "No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintln(w, " Labels:")
		for _, l := range i.Labels {
			fmt.Fprintf(w, "  %s\n", l)
		}
	}
	fmt.Fprintf(w, " Experimental: %v\n", i.ExperimentalBuild)
}

func printRegistries(w io.Writer, i *system.Info) {
	if c := i.RegistryConfig; c != nil {
		var insecure []string
		for name, ix := range c.IndexConfigs {
			if !ix.Secure {
				insecure = append(insecure, name)
			}
		}
		slices.Sort(insecure)
		for _, n := range c.InsecureRegistryCIDRs {
			insecure = append(insecure, n.String())
		}
		list(w, "Insecure Registries", insecure)
		list(w, "Registry Mirrors", c.Mirrors)
	}
	fmt.Fprintf(w, " Live Restore Enabled: %v\n", i.LiveRestoreEnabled)
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range i.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if i.FirewallBackend != nil {
		fmt.Fprintf(w, " Firewall Backend: %s\n", i.FirewallBackend.Driver)
		pairs(w, "  ", i.FirewallBackend.Info)
	}
	fmt.Fprintln(w)
}

func line(w io.Writer, indent, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "%s%s: %s\n", indent, name, value)
	}
}

func pairs(w io.Writer, indent string, p [][2]string) {
	for _, kv := range p {
		fmt.Fprintf(w, "%s%s: %s\n", indent, kv[0], kv[1])
	}
}

func list(w io.Writer, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(w, " %s:\n", title)
	for _, i := range items {
		fmt.Fprintf(w, "  %s\n", i)
	}
}
