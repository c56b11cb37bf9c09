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
		usage: "[OPTIONS] PATH | URL | -", short: "Make an image by following a Dockerfile",
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
	f.Var(opts.NewList(&b.hosts, opts.ExtraHost), "add-host", `Extra line for /etc/hosts during the build ("host:ip")`)
	f.Var(newList(&b.args), "build-arg", "Value for an ARG of the Dockerfile (KEY=VALUE)")
	f.StringSliceVar(&b.cacheFrom, "cache-from", nil, "Image whose layers may serve as cache")
	f.StringVar(&b.cgroupParent, "cgroup-parent", "", "Cgroup to put RUN steps in")
	f.Int64Var(&b.cpuPeriod, "cpu-period", 0, "Length of a scheduling period, in microseconds")
	f.Int64Var(&b.cpuQuota, "cpu-quota", 0, "CPU time allowed in each period, in microseconds")
	f.Int64VarP(&b.cpuShares, "cpu-shares", "c", 0, "Share of CPU time against other containers (1024 is usual)")
	f.StringVar(&b.cpusetCPUs, "cpuset-cpus", "", "CPUs that may be used, such as 0-3 or 0,1")
	f.StringVar(&b.cpusetMems, "cpuset-mems", "", "NUMA memory nodes that may be used, such as 0-3 or 0,1")
	f.StringVarP(&b.file, "file", "f", "", `Dockerfile to follow ("Dockerfile" in PATH if not given)`)
	f.BoolVar(&b.forceRemove, "force-rm", false, "Remove the build's own containers even if it fails")
	f.StringVar(&b.iidfile, "iidfile", "", "File to write the image's ID to")
	f.StringVar(&b.isolation, "isolation", "", `Kind of isolation; only "default" exists on Linux`)
	f.Var(newList(&b.labels), "label", "Label for the image (KEY=VALUE)")
	f.VarP(&b.memory, "memory", "m", "Memory limit")
	f.Var(&b.memorySwap, "memory-swap", "Limit of memory and swap together; -1 for no limit")
	f.StringVar(&b.network, "network", "default", "Network that RUN steps have")
	f.BoolVar(&b.noCache, "no-cache", false, "Run every step again rather than use the cache")
	f.StringVar(&b.platform, "platform", defaultPlatform(), "Platform of the image, as os[/arch[/variant]]")
	f.BoolVar(&b.pull, "pull", false, "Ask the registry for base images even if they are here")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "Print only the ID of the finished image")
	f.BoolVar(&b.remove, "rm", true, "Remove the build's own containers when it succeeds")
	f.StringSliceVar(&b.security, "security-opt", nil, "Security options")
	f.Var(&b.shm, "shm-size", "Bytes of shared memory at /dev/shm (suffix k, m or g allowed)")
	f.VarP(opts.NewList(&b.tags, checkTag), "tag", "t", `Name for the image ("name" or "name:tag")`)
	f.StringVar(&b.target, "target", "", "Stage of the Dockerfile to stop at")
	f.Var(&b.ulimits, "ulimit", "Ulimit options")
	ignoreTrust(f)
	f.BoolVar(&b.compress, "compress", false, "Send the build context compressed with gzip")
	refuse(f, "squash", "allow", "annotation", "attest", "build-context", "builder", "cache-to", "call",
		"check", "debug", "metadata-file", "no-cache-filter", "output", "policy", "push", "secret", "ssh")
	b.otherBuilders(f)
}

// otherBuilders adds what scripts give to other builders as a matter of course
// and what is the case here anyway: plain output, the image in the store, no
// attestations. Other values are refused.
func (b *builder) otherBuilders(f *pflag.FlagSet) {
	f.Func("progress", `How progress is shown ("auto", "plain", "quiet")`, func(v string) error {
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
