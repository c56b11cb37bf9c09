package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
	"github.com/wherry-engine/wherry/cli/progress"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/ociref"
)

func buildCommand() command {
	return command{
		group: "image", name: "build", top: "build", also: []string{"builder"}, common: 4,
		usage: "[OPTIONS] PATH | URL | -", short: "Build an image from a Dockerfile",
		args: exactArgs(1),
		run: func(a *app, f *pflag.FlagSet) runFunc {
			b := &builder{a: a, set: f}
			b.flags(f)
			return b.run
		},
	}
}

type builder struct {
	a   *app
	set *pflag.FlagSet

	file, target, network, platform, iidfile, cgroupParent, isolation string
	tags, args, labels, hosts, cacheFrom, security                    []string
	quiet, noCache, pull, remove, forceRemove, compress               bool
	memory, memorySwap, shm                                           opts.Bytes
	cpuShares, cpuPeriod, cpuQuota                                    int64
	cpusetCPUs, cpusetMems                                            string
	ulimits                                                           opts.Ulimits
}

func (b *builder) flags(f *pflag.FlagSet) {
	b.memorySwap.MinusOne = true
	f.Var(opts.NewList(&b.hosts, opts.ExtraHost), "add-host", `Add a custom host-to-IP mapping ("host:ip")`)
	f.Var(newList(&b.args), "build-arg", "Set build-time variables")
	f.StringSliceVar(&b.cacheFrom, "cache-from", nil, "Images to consider as cache sources")
	f.StringVar(&b.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	f.Int64Var(&b.cpuPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&b.cpuQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	f.Int64VarP(&b.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.StringVar(&b.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&b.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.StringVarP(&b.file, "file", "f", "", `Name of the Dockerfile (Default is "PATH/Dockerfile")`)
	f.BoolVar(&b.forceRemove, "force-rm", false, "Always remove intermediate containers")
	f.StringVar(&b.iidfile, "iidfile", "", "Write the image ID to the file")
	f.StringVar(&b.isolation, "isolation", "", "Container isolation technology")
	f.Var(newList(&b.labels), "label", "Set metadata for an image")
	f.VarP(&b.memory, "memory", "m", "Memory limit")
	f.Var(&b.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	f.StringVar(&b.network, "network", "default", "Set the networking mode for the RUN instructions during build")
	f.BoolVar(&b.noCache, "no-cache", false, "Do not use cache when building the image")
	f.StringVar(&b.platform, "platform", defaultPlatform(), "Set platform if server is multi-platform capable")
	f.BoolVar(&b.pull, "pull", false, "Always attempt to pull a newer version of the image")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	f.BoolVar(&b.remove, "rm", true, "Remove intermediate containers after a successful build")
	f.StringSliceVar(&b.security, "security-opt", nil, "Security options")
	f.Var(&b.shm, "shm-size", `Size of "/dev/shm"`)
	f.VarP(opts.NewList(&b.tags, checkTag), "tag", "t", `Name and optionally a tag in the "name:tag" format`)
	f.StringVar(&b.target, "target", "", "Set the target build stage to build.")
	f.Var(&b.ulimits, "ulimit", "Ulimit options")
	ignoreTrust(f)
	f.BoolVar(&b.compress, "compress", false, "Compress the build context using gzip")
	refuse(f, "squash", "allow", "annotation", "attest", "build-context", "builder", "cache-to", "call",
		"check", "debug", "metadata-file", "no-cache-filter", "output", "policy", "push", "secret", "ssh")
	b.otherBuilders(f)
}

// otherBuilders adds what scripts give to other builders as a matter of course
// and what is the case here anyway: plain output, the image in the store, no
// attestations. Other values are refused.
func (b *builder) otherBuilders(f *pflag.FlagSet) {
	f.Func("progress", `Type of progress output ("auto", "plain", "quiet")`, func(v string) error {
		switch v {
		case "auto", "plain":
			return nil
		case "quiet":
			b.quiet = true
			return nil
		}
		return invalidf("--progress %s is not supported", v)
	})
	only := func(flag, value string) {
		f.Func(flag, "", func(v string) error {
			if got, err := strconv.ParseBool(v); err == nil && strconv.FormatBool(got) == value {
				return nil
			}
			return invalidf("--%s %s is not supported", flag, v)
		})
		f.Lookup(flag).NoOptDefVal = "true"
		_ = f.MarkHidden(flag)
	}
	only("load", "true")
	only("provenance", "false")
	only("sbom", "false")
}

func checkTag(s string) (string, error) {
	if _, err := ociref.Parse(s); err != nil {
		return "", err
	}
	return s, nil
}

func (b *builder) run(ctx context.Context, args []string) error {
	q, err := b.query()
	if err != nil {
		return err
	}
	if b.iidfile != "" {
		if err := os.Remove(b.iidfile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	src, err := b.source(args[0])
	if err != nil {
		return err
	}
	defer src.close()
	q.Set("dockerfile", src.dockerfile)
	if src.remote != "" {
		q.Set("remote", src.remote)
	}
	auths, err := json.Marshal(b.a.config().All())
	if err != nil {
		return err
	}
	cl, err := b.a.client()
	if err != nil {
		return err
	}
	body, err := cl.Stream(ctx, client.Request{
		Method: http.MethodPost, Path: "/build", Query: q, Body: src.body,
		Header: http.Header{"X-Registry-Config": {base64.URLEncoding.EncodeToString(auths)}},
	})
	if err != nil {
		return src.explain(err)
	}
	return b.show(ctx, body)
}

// show prints the build's output, or with -q only the image's ID, and the
// output if it failed.
func (b *builder) show(ctx context.Context, body io.ReadCloser) error {
	id := ""
	aux := func(raw json.RawMessage) {
		var r build.Result
		if json.Unmarshal(raw, &r) == nil && r.ID != "" {
			id = r.ID
		}
	}
	out := b.a.out
	var kept strings.Builder
	if b.quiet {
		out = &kept
	}
	if err := b.a.showProgress(ctx, body, out, aux); err != nil {
		if b.quiet {
			fmt.Fprint(b.a.err, kept.String())
		}
		var failed *progress.Error
		if errors.As(err, &failed) {
			return statusError{max(failed.Code, 1), failed.Message}
		}
		return err
	}
	if b.quiet {
		if id == "" {
			id = strings.TrimSpace(kept.String())
		}
		fmt.Fprintln(b.a.out, id)
	}
	if b.iidfile == "" {
		return nil
	}
	if id == "" {
		return errors.New("server did not provide an image ID. Cannot write it to the file of --iidfile")
	}
	return os.WriteFile(b.iidfile, []byte(id), 0o666)
}

func (b *builder) query() (url.Values, error) {
	q := url.Values{"t": b.tags, "extrahosts": b.hosts, "securityopt": b.security}
	for _, o := range []struct {
		name, value string
	}{
		{"target", b.target}, {"networkmode", b.network}, {"platform", strings.ToLower(b.platform)},
		{"cgroupparent", b.cgroupParent}, {"cpusetcpus", b.cpusetCPUs}, {"cpusetmems", b.cpusetMems}, {"isolation", b.isolation},
	} {
		if o.value != "" {
			q.Set(o.name, o.value)
		}
	}
	for _, o := range []struct {
		name  string
		value int64
	}{
		{"memory", b.memory.N}, {"memswap", b.memorySwap.N}, {"shmsize", b.shm.N},
		{"cpushares", b.cpuShares}, {"cpuperiod", b.cpuPeriod}, {"cpuquota", b.cpuQuota},
	} {
		if o.value != 0 {
			q.Set(o.name, strconv.FormatInt(o.value, 10))
		}
	}
	for name, on := range map[string]bool{"q": b.quiet, "nocache": b.noCache, "pull": b.pull, "forcerm": b.forceRemove} {
		if on {
			q.Set(name, "1")
		}
	}
	q.Set("rm", map[bool]string{true: "1", false: "0"}[b.remove])
	labels, err := opts.Labels(nil, b.labels)
	if err != nil {
		return nil, err
	}
	for _, o := range []struct {
		name  string
		value any
		set   bool
	}{
		{"buildargs", b.buildArgs(), true}, {"labels", labels, len(labels) > 0},
		{"cachefrom", b.cacheFrom, len(b.cacheFrom) > 0}, {"ulimits", b.ulimits, len(b.ulimits) > 0},
	} {
		if !o.set {
			continue
		}
		raw, err := json.Marshal(o.value)
		if err != nil {
			return nil, err
		}
		q.Set(o.name, string(raw))
	}
	return q, nil
}

// buildArgs are those given and the proxies of config.json. A name alone takes
// the environment's value, or null to use the Dockerfile's.
func (b *builder) buildArgs() map[string]*string {
	m := map[string]*string{}
	for _, s := range b.a.proxyEnv(nil) {
		k, v, _ := strings.Cut(s, "=")
		m[k] = &v
	}
	for _, s := range b.args {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				m[k] = nil
				continue
			}
		}
		m[k] = &v
	}
	return m
}
