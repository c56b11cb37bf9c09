package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/format"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/internal/version"
)

func versionCommand() command {
	return command{
		name: "version", usage: "[OPTIONS]", short: "Print the versions of the command line and the engine", common: 11,
		args: noArgs(),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			var tmpl string
			f.StringVarP(&tmpl, "format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.version(ctx, tmpl) }
		},
	}
}

// versionInfo is what templates of `version --format` see.
type versionInfo struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Platform          *system.PlatformInfo `json:",omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string
	Context           string
}

type serverVersion struct {
	system.VersionResponse
}

func (a *app) version(ctx context.Context, tmpl string) error {
	v := versionInfo{Client: clientVersion{
		Version: version.Version, APIVersion: client.APIVersion, DefaultAPIVersion: client.APIVersion, GitCommit: version.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: goodTime(version.BuildTime),
	}}
	cl, err := a.client()
	if err != nil {
		return err
	}
	if v.Client.Context, err = a.contextName(); err != nil {
		return err
	}
	var srv system.VersionResponse
	raw := json.RawMessage{}
	srvErr := cl.Get(ctx, "/version", nil, &raw)
	if srvErr == nil {
		srvErr = json.Unmarshal(raw, &srv)
	}
	v.Client.APIVersion = cl.Version()
	if srvErr == nil {
		v.Server = &serverVersion{srv}
	}
	if tmpl != "" {
		if err := format.Value(a.out, tmpl, v); err != nil {
			return errors.Join(srvErr, err)
		}
		return srvErr
	}
	w := tabwriter.NewWriter(a.out, 20, 1, 1, ' ', 0)
	v.Client.print(w)
	if v.Server != nil {
		v.Server.print(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return srvErr
}

func (c clientVersion) print(w io.Writer) {
	api := c.APIVersion
	if c.APIVersion != c.DefaultAPIVersion {
		api += " (downgraded from " + c.DefaultAPIVersion + ")"
	}
	fmt.Fprintln(w, "Client:")
	for _, l := range [][2]string{
		{"Version", c.Version}, {"API version", api}, {"Go version", c.GoVersion}, {"Git commit", c.GitCommit},
		{"Built", c.BuildTime}, {"OS/Arch", c.Os + "/" + c.Arch}, {"Context", c.Context},
	} {
		fmt.Fprintf(w, " %s:\t%s\n", l[0], l[1])
	}
}

func (s *serverVersion) print(w io.Writer) {
	title := "Server:"
	if s.Platform.Name != "" {
		title += " " + s.Platform.Name
	}
	fmt.Fprintf(w, "\n%s\n", title)
	components := s.Components
	if len(components) == 0 {
		components = []system.ComponentVersion{{Name: "Engine", Version: s.Version, Details: map[string]string{
			"ApiVersion": s.APIVersion, "MinAPIVersion": s.MinAPIVersion, "GitCommit": s.GitCommit, "GoVersion": s.GoVersion,
			"Os": s.Os, "Arch": s.Arch, "BuildTime": s.BuildTime, "Experimental": fmt.Sprint(s.Experimental),
		}}}
	}
	for _, c := range components {
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", c.Name, c.Version)
		printDetails(w, c.Details)
	}
}

// printDetails prints the engine's details in a fixed order, others by name.
func printDetails(w io.Writer, d map[string]string) {
	if _, engine := d["ApiVersion"]; !engine {
		keys := make([]string, 0, len(d))
		for k := range d {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
		}
		return
	}
	fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n", d["ApiVersion"], d["MinAPIVersion"])
	for _, l := range [][2]string{
		{"Go version", d["GoVersion"]}, {"Git commit", d["GitCommit"]}, {"Built", goodTime(d["BuildTime"])},
		{"OS/Arch", d["Os"] + "/" + d["Arch"]}, {"Experimental", d["Experimental"]},
	} {
		fmt.Fprintf(w, "  %s:\t%s\n", l[0], l[1])
	}
}

// goodTime shows an RFC 3339 time as people read it.
func goodTime(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return strings.TrimSpace(s)
	}
	return t.Format(time.ANSIC)
}
