package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestHostileConfig loads and runs images whose configuration is junk
// (the class of CVE-2023-22648, CVE-2026-53488): each is refused with a client's
// error or runs harmlessly; nothing in it selects what only a user may choose.
func TestHostileConfig(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	huge := strings.Repeat("x", 1<<20)
	var manyEnv, manyPorts, manyLabels []string
	for i := range 20000 {
		manyEnv = append(manyEnv, fmt.Sprintf("%q", fmt.Sprintf("V%d=%d", i, i)))
		manyPorts = append(manyPorts, fmt.Sprintf(`"%d/tcp":{}`, i+1))
		manyLabels = append(manyLabels, fmt.Sprintf(`"l%d":"v\nw"`, i))
	}
	canary := newCanary(t)
	tests := map[string]struct {
		config string
		refuse bool // must not run
	}{
		"env is not a list":          {`{"Env":"A=B"}`, true},
		"env with newlines":          {`{"Env":["A=1\nB=2","C=\r\n","D=\u0000"]}`, true},
		"env with a newline":         {`{"Env":["A=1\nLD_PRELOAD=/x"]}`, false},
		"env without names":          {`{"Env":["=x","","="]}`, false},
		"env steers the runtime":     {`{"Env":["GODEBUG=x","GOMAXPROCS=-1","GOGC=0","_LIBCONTAINER_INITPIPE=3","LISTEN_FDS=5","NOTIFY_SOCKET=/run/x","PATH="],"Entrypoint":["/bin/echo"]}`, false},
		"one huge variable":          {fmt.Sprintf(`{"Env":["A=%s"]}`, huge), false},
		"many variables":             {`{"Env":[` + strings.Join(manyEnv, ",") + `]}`, false},
		"negative port":              {`{"ExposedPorts":{"-1/tcp":{}}}`, false},
		"port of letters":            {`{"ExposedPorts":{"../../x/tcp":{},"a/b/c":{},"":{}}}`, false},
		"port too large":             {`{"ExposedPorts":{"65536/tcp":{},"99999999999/udp":{}}}`, false},
		"endless range of ports":     {`{"ExposedPorts":{"1-65535/tcp":{}}}`, false},
		"unknown protocol":           {`{"ExposedPorts":{"80/evil; rm":{}}}`, false},
		"many ports":                 {`{"ExposedPorts":{` + strings.Join(manyPorts, ",") + `}}`, false},
		"volume /":                   {`{"Volumes":{"/":{}}}`, true},
		"volume ..":                  {`{"Volumes":{"..":{}}}`, true},
		"volume of dots":             {`{"Volumes":{"/../../..` + canary.dir + `":{}}}`, false},
		"volume /proc":               {`{"Volumes":{"/proc":{}}}`, true},
		"volume in /proc":            {`{"Volumes":{"/proc/self/attr":{}}}`, true},
		"volume /proc by dots":       {`{"Volumes":{"/x/../proc":{}}}`, true},
		"volume /sys":                {`{"Volumes":{"/sys":{}}}`, false},
		"volume /dev":                {`{"Volumes":{"/dev":{}}}`, false},
		"volume without a path":      {`{"Volumes":{"":{}}}`, true},
		"volume with a bind":         {`{"Volumes":{"` + canary.dir + `:/x":{}}}`, false},
		"volume with options":        {`{"Volumes":{"/etc:/x:rshared":{}}}`, false},
		"volume with a newline":      {`{"Volumes":{"/a\nb c":{}}}`, false},
		"volume in a volume":         {`{"Volumes":{"/v":{},"/v/a":{},"/v/a/b":{}}}`, false},
		"working directory of dots":  {`{"WorkingDir":"/../../..` + canary.dir + `/made"}`, false},
		"relative working directory": {`{"WorkingDir":"../../x"}`, false},
		"working directory of nuls":  {`{"WorkingDir":"/a\u0000b"}`, true},
		"huge working directory":     {fmt.Sprintf(`{"WorkingDir":"/%s"}`, huge), true},
		"signal of letters":          {`{"StopSignal":"SIGEVIL; reboot"}`, true},
		"signal too large":           {`{"StopSignal":"9999999999999"}`, true},
		"negative signal":            {`{"StopSignal":"-9"}`, true},
		"health without end":         {`{"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":-1,"Timeout":-1,"Retries":-5}}`, true},
		"health every nanosecond":    {`{"Healthcheck":{"Test":["CMD","/bin/true"],"Interval":1,"Timeout":1}}`, true},
		"health overflows":           {`{"Healthcheck":{"Test":["CMD","/bin/true"],"Interval":9223372036854775807,"StartPeriod":9223372036854775807,"Retries":2147483647}}`, false},
		"health of an unknown kind":  {`{"Healthcheck":{"Test":["HOST","/bin/true"]}}`, true},
		"health without a command":   {`{"Healthcheck":{"Test":["CMD"]}}`, false},
		"user is a path":             {`{"User":"../../etc/passwd"}`, true},
		"user with newline":          {`{"User":"root\nx"}`, true},
		"user overflows":             {`{"User":"4294967296:4294967296"}`, true},
		"huge user":                  {fmt.Sprintf(`{"User":%q}`, huge), true},
		"labels":                     {`{"Labels":{"a\nb":"c\nd","containerd.io/restart.loguri":"binary:///bin/sh","com.docker.compose.project":"../..","":"x"}}`, false},
		"many labels":                {`{"Labels":{` + strings.Join(manyLabels, ",") + `}}`, false},
		"fields of a host":           {`{"Privileged":true,"HostConfig":{"Privileged":true,"Binds":["/:/host"]},"Runtime":"evil","LogConfig":{"Type":"binary"},"Devices":["/dev/kvm"],"NetworkMode":"host","CapAdd":["ALL"]}`, false},
		"entrypoint with nul":        {`{"Entrypoint":["/bin/echo","a\u0000b"]}`, true},
		"entrypoint is empty":        {`{"Entrypoint":[""]}`, true},
		"hostname":                   {`{"Hostname":"a\nb","Domainname":"c/../d"}`, false},
		"shell and onbuild":          {`{"Shell":["/x\u0000"],"OnBuild":["RUN evil","ADD / /"],"ArgsEscaped":true}`, false},
		"deep":                       {`{"Labels":` + strings.Repeat(`{"a":`, 20000) + `1` + strings.Repeat(`}`, 20000) + `}`, true},
		"wrong types":                {`{"Cmd":{"a":1},"Volumes":[1],"ExposedPorts":7}`, true},
		"memory and the like":        {`{"Memory":-1,"CpuShares":-1,"MacAddress":"zz","NetworkDisabled":"x"}`, false},
		"stop timeout":               {`{"StopTimeout":-2147483648}`, false},
		"arguments of a million":     {`{"Cmd":["/bin/true"` + strings.Repeat(`,"a"`, 100000) + `]}`, false},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			name := unique("hostile")
			r := cli.TryInput(t, bytes.NewReader(archive(t, name, tt.config)), "load")
			ran := false
			if r.Code != 0 {
				t.Logf("load: %.200s", r.Stderr)
			} else {
				r = cli.Try(t, "run", "--rm", "--network", "none", "--entrypoint", "", name, "/bin/sh", "-c", "grep CapEff /proc/self/status; ls /host; cat "+canary.dir+"/secret; echo end")
				if strings.Contains(label, "entrypoint") || strings.Contains(label, "arguments") {
					r = cli.Try(t, "run", "--rm", "--network", "none", name)
				}
				ran = r.Code == 0
				canary.notIn(t, "run", r.All())
				if ran && strings.Contains(r.Stdout, "CapEff") {
					contains(t, "capabilities", r.Stdout, defaultMask)
				}
				t.Logf("run: %d %.200s", r.Code, r.Stderr)
				if i := cli.Try(t, "image", "inspect", name); i.Code != 0 || !json.Valid([]byte(i.Stdout)) {
					t.Errorf("inspect: %.200s", i.All())
				}
				cli.Try(t, "history", name)
			}
			lacks(t, "a crash", r.Stderr, "EOF")
			lacks(t, "a crash", r.Stderr, "the engine failed on this request")
			if tt.refuse && ran {
				t.Errorf("it ran: %.300s", r.All())
			}
			cli.Try(t, "rmi", "-f", name)
			if n := strings.TrimSpace(cli.OK(t, "ps", "-aq", "--filter", "ancestor="+name)); n != "" {
				t.Errorf("containers are left: %s", n)
			}
		})
	}
	contains(t, "the engine afterwards", cli.OK(t, "run", "--rm", "probe", "/bin/echo", "fine"), "fine")
}

// TestHostileLayout makes every special path of an image a link to the host, a
// file where a directory is wanted, or something else that does not belong there.
func TestHostileLayout(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	special := []string{
		"proc", "sys", "dev", "etc", "work", "mnt", "mnt/deep/er", "tmp", "dev/pts dev/shm dev/mqueue dev/console dev/null dev/fd dev/ptmx",
		"etc/hosts etc/hostname etc/resolv.conf etc/mtab .dockerenv", "sys/fs/cgroup proc/sys",
	}
	for kind, make := range map[string]func(canary *canary, name string) []file{
		"absolute link": func(c *canary, name string) []file { return []file{{name: name, link: c.dir}} },
		"missing link":  func(c *canary, name string) []file { return []file{{name: name, link: c.dir + "/made/here"}} },
		"dots": func(c *canary, name string) []file {
			return []file{{name: name, link: strings.Repeat("../", 16) + c.dir[1:]}}
		},
		"to a file": func(c *canary, name string) []file { return []file{{name: name, link: c.dir + "/secret"}} },
		"to proc":   func(_ *canary, name string) []file { return []file{{name: name, link: "/proc/self/root"}} },
		"to sys":    func(_ *canary, name string) []file { return []file{{name: name, link: "/proc/sys/kernel"}} },
		"file":      func(_ *canary, name string) []file { return []file{{name: name, body: "x"}} },
		"device":    func(_ *canary, name string) []file { return []file{{name: name, typ: '4', mode: 0o666}} },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			canary := newCanary(t)
			for _, names := range special {
				ref := unique("layout")
				var files []file
				name := ""
				for name = range strings.FieldsSeq(names) {
					files = append(files, make(canary, name)...)
				}
				if r := cli.TryInput(t, bytes.NewReader(archive(t, ref, "{}", files...)), "load"); r.Code != 0 {
					continue // the archive itself is refused
				}
				r := cli.Try(t, "run", "--rm", "-t", "--network", "none", "-v", "/mnt/deep/er", "-v", "/etc/hostname:/mnt/file", "--tmpfs", "/tmp/t", "-w", "/work/new/dir", "--device", "/dev/zero:/dev/extra/zero",
					ref, "/bin/sh", "-c", "/probe stat /proc /proc/kcore /proc/keys /proc/sys /sys; /probe write /proc/sys/kernel/core_pattern /proc/sysrq-trigger; /probe read "+canary.dir+"/secret /etc/hosts")
				canary.notIn(t, name, r.All())
				out := strings.ReplaceAll(r.Stdout, "\r", "")
				if r.Code == 0 {
					contains(t, name+": /proc", out, "fs 0x9fa0")
					lacks(t, name, out, "opened")
					for _, line := range lines(out, "stat") {
						if strings.Contains(line, "/proc/k") && !hidden.MatchString(line) && !strings.Contains(line, "no such file") {
							t.Errorf("%s: not hidden: %s", name, line)
						}
						if strings.HasPrefix(line, "stat /sys ") && !strings.Contains(line, "fs 0x62656572") {
							t.Errorf("%s: %s", name, line)
						}
					}
				} else {
					t.Logf("%s: %d %.160s", name, r.Code, r.All())
				}
				id := cli.Try(t, "create", "-v", "/mnt", ref, "/probe")
				if id.Code == 0 {
					for _, p := range []string{"/" + name, "/etc/hosts", "/dev", "/"} {
						_, body := getArchive(t, d, strings.TrimSpace(id.Stdout), p)
						canary.notIn(t, name+" cp "+p, body)
						putArchive(t, d, strings.TrimSpace(id.Stdout), p, pack(t, file{name: "planted", body: "x"}))
					}
					cli.Try(t, "commit", strings.TrimSpace(id.Stdout), ref+"c")
					cli.Try(t, "diff", strings.TrimSpace(id.Stdout))
					cli.Try(t, "rm", "-fv", strings.TrimSpace(id.Stdout))
				}
				cli.Try(t, "rmi", "-f", ref, ref+"c")
			}
		})
	}
}

// TestBuildEscapes builds Dockerfiles that mean to leave the build
// (CVE-2024-23651 races of cache mounts, CVE-2024-23652 removal of mount stubs,
// CVE-2024-9407 and CVE-2024-11218 bind mounts, CVE-2024-23653 privileges).
func TestBuildEscapes(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	for label, tt := range map[string]struct{ dockerfile, want string }{
		"CVE-2024-23651 cache source":  {"FROM probe\nRUN --mount=type=cache,target=/c,id=@ ln -sfn CANARY /c/l\nRUN --mount=type=cache,target=/c,source=l,id=@ cat /c/secret; ls /c; true\n", ""},
		"CVE-2024-23652 stub removal":  {"FROM probe\nRUN --mount=type=tmpfs,target=/a/b rm -rf /a 2>/dev/null; ln -sfn CANARY /a; true\nRUN --mount=type=tmpfs,target=/x/dir/secret mv /x /y; ln -sfn CANARY /x; true\n", ""},
		"CVE-2024-9407 bind source":    {"FROM probe\nRUN --mount=type=bind,source=../../../../../..CANARY,target=/b cat /b/secret; true\nRUN --mount=type=bind,from=probe,source=/../../../..CANARY,target=/b cat /b/secret; true\n", ""},
		"CVE-2024-11218 link in stage": {"FROM probe AS a\nRUN ln -s CANARY /l; ln -s ../../../../../../../../..CANARY /m\nFROM probe\nRUN --mount=type=bind,from=a,source=/l,target=/b cat /b/secret; true\n", ""},
		"copy of links":                {"FROM probe AS a\nRUN ln -s CANARY /l; ln -s CANARY/secret /s; mkdir /d; ln -s ../../../../../../..CANARY/secret /d/s\nFROM probe\nCOPY --from=a /d /d\nCOPY --from=a /s* /t/\nRUN cat /d/s /t/*; true\n", ""},
		"copy from a link":             {"FROM probe AS a\nRUN ln -s CANARY /l\nFROM probe\nCOPY --from=a /l/secret /t\nRUN cat /t\n", ""},
		"copy onto a link":             {"FROM probe\nRUN rm -rf /data; ln -s CANARY /data\nCOPY Dockerfile /data/\nCOPY Dockerfile /data/made/\nADD Dockerfile /data/secret\nWORKDIR /data/work\nRUN echo x >/data/more; true\n", ""},
		"context of links":             {"FROM probe\nCOPY link /t\nCOPY linkdir /u\nRUN cat /t /u/secret; true\n", ""},
		"CVE-2024-23653 privileged":    {"# syntax=\nFROM probe\nRUN --security=insecure grep CapEff /proc/self/status\n", "!"},
		"network of the host":          {"FROM probe\nRUN --network=host cat /proc/net/unix\n", "!"},
		"device":                       {"FROM probe\nRUN mknod /tmp/m c 1 1; /probe write /tmp/m /proc/sys/kernel/core_pattern /proc/sysrq-trigger; /probe fds\n", ""},
		"workdir of descriptors":       {"FROM probe\nWORKDIR /proc/self/fd/7\nRUN cat ../../../../../..CANARY/secret; true\n", ""},
		"user":                         {"FROM probe\nUSER 4294967296\nRUN id -u\n", "!"},
		"ends in hosts":                {"FROM probe\nRUN rm -rf /etc/hosts /etc/resolv.conf; mv /etc /e; ln -s CANARY /etc; true\nRUN cat /etc/hosts; true\n", ""},
	} {
		t.Run(label, func(t *testing.T) {
			canary := newCanary(t)
			name := unique("build")
			text := strings.ReplaceAll(strings.ReplaceAll(tt.dockerfile, "CANARY", canary.dir), "@", name)
			context := pack(t, file{name: "Dockerfile", body: text}, file{name: "link", link: canary.dir + "/secret"}, file{name: "linkdir", link: canary.dir})
			r := cli.TryInput(t, bytes.NewReader(context), "build", "--no-cache", "--progress", "plain", "-t", name, "-")
			t.Logf("%d\n%.3000s", r.Code, r.All())
			canary.notIn(t, "output", withoutNames(r.All(), canary))
			lacks(t, "output", r.All(), "opened")
			if tt.want == "!" && r.Code == 0 {
				t.Errorf("it was built: %s", r.All())
			}
			for _, line := range lines(stripped(r.All()), "fd") {
				if !ordinary.MatchString(line) && !poller(line) {
					t.Errorf("not the step's own: %s", line)
				}
			}
			if r.Code == 0 {
				out := cli.Try(t, "run", "--rm", "--network", "none", name, "/bin/sh", "-c", "find / -xdev -type f -name '*secret*' -exec cat {} + ; cat /t/* /d/* /data/* 2>/dev/null; true")
				canary.notIn(t, "the image", out.All())
			}
			cli.Try(t, "rmi", "-f", name)
		})
	}
}

// withoutNames removes the canary's path, which Dockerfiles name, and which
// contains its secret's text.
func withoutNames(s string, c *canary) string { return strings.ReplaceAll(s, c.dir, "") }

// stripped removes what a build's progress puts before each line.
func stripped(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		f := strings.SplitN(line, " ", 3)
		if len(f) == 3 && strings.HasPrefix(f[0], "#") {
			line = f[2]
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestBuildRace exchanges a directory of a cache that two builds share while one
// mounts a part of it (CVE-2024-23651).
func TestBuildRace(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	canary := newCanary(t)
	name := unique("buildrace")
	build := func(dockerfile string) testenv.Result {
		context := pack(t, file{name: "Dockerfile", body: dockerfile})
		return cli.TryInput(t, bytes.NewReader(context), "build", "--no-cache", "--progress", "plain", "-")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := build(fmt.Sprintf("FROM probe\nRUN --mount=type=cache,target=/c,id=%s cd /c && mkdir -p x && echo mine >x/secret && ln -sfn %s l && (/probe swap /c/x /c/l & sleep 2; kill $!; true)\n", name, canary.dir))
		if r.Code != 0 {
			t.Errorf("the attacker's build: %s", r.All())
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			t.Logf("%d builds", i)
			return
		default:
		}
		r := build(fmt.Sprintf("FROM probe\nRUN --mount=type=cache,target=/part,source=x,id=%s cat /part/secret\n", name))
		canary.notIn(t, "the cache's part", withoutNames(r.All(), canary))
	}
}

// TestLoadDir saves nothing outside: names of an archive's own files are paths too.
func TestLoadDir(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	canary := newCanary(t)
	up := strings.Repeat("../", 16) + strings.TrimPrefix(canary.dir, "/")
	for label, files := range map[string][]file{
		"config outside":       {{name: "manifest.json", body: `[{"Config":"` + up + `/secret","RepoTags":["x:y"],"Layers":[]}]`}},
		"layer outside":        {{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["x:y"],"Layers":["` + up + `/secret"]}]`}, {name: "c.json", body: `{"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("1", 64) + `"]}}`}},
		"layer is a link":      {{name: "l.tar", link: canary.dir + "/secret"}, {name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["x:y"],"Layers":["l.tar"]}]`}, {name: "c.json", body: `{"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("1", 64) + `"]}}`}},
		"manifest is a link":   {{name: "manifest.json", link: canary.dir + "/secret"}},
		"files of its own":     {{name: up + "/planted", body: "x"}, {name: "/" + canary.dir + "/planted", body: "x"}},
		"layout outside":       {{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}, {name: "index.json", body: `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + up + `","size":7}]}`}},
		"blob of another name": {{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}, {name: "blobs/sha256/" + strings.Repeat("2", 64), body: "not that"}, {name: "index.json", body: `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("2", 64) + `","size":8}]}`}},
		"tag is a path":        {{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["../../../x","a\nb","` + up + `:x"],"Layers":[]}]`}, {name: "c.json", body: `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`}},
	} {
		t.Run(label, func(t *testing.T) {
			r := cli.TryInput(t, bytes.NewReader(pack(t, files...)), "load")
			canary.notIn(t, "load", withoutNames(r.All(), canary))
			t.Logf("%d %.300s", r.Code, r.All())
			if r.Code == 0 && !strings.Contains(label, "files of its own") && !strings.Contains(label, "tag is") {
				t.Errorf("it was loaded: %s", r.All())
			}
		})
	}
	entries, err := os.ReadDir(filepath.Join(d.DataRoot, "tmp"))
	if err == nil && len(entries) > 0 {
		t.Errorf("left in the temporary directory: %v", entries)
	}
}
