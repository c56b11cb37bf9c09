package image

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestApplyChanges(t *testing.T) {
	for name, c := range map[string]struct {
		changes []string
		want    ocispec.ImageConfig
	}{
		"cmd exec":       {[]string{`CMD ["a", "b c"]`}, ocispec.ImageConfig{Cmd: []string{"a", "b c"}}},
		"cmd shell":      {[]string{`cmd echo hi`}, ocispec.ImageConfig{Cmd: []string{"/bin/sh", "-c", "echo hi"}}},
		"cmd own shell":  {[]string{`SHELL ["/bin/bash","-c"]`, `CMD x`}, ocispec.ImageConfig{Cmd: []string{"/bin/bash", "-c", "x"}}},
		"entrypoint":     {[]string{`ENTRYPOINT ["/e"]`}, ocispec.ImageConfig{Entrypoint: []string{"/e"}}},
		"env":            {[]string{`ENV A=1 B="2 3" C='4 "5"' D=6\ 7`, "ENV A=8", "ENV E old form"}, ocispec.ImageConfig{Env: []string{"B=2 3", `C=4 "5"`, "D=6 7", "A=8", "E=old form"}}},
		"label":          {[]string{`LABEL a.b=c "d e"=f`}, ocispec.ImageConfig{Labels: map[string]string{"a.b": "c", "d e": "f"}}},
		"expose":         {[]string{"EXPOSE 80 53/UDP 7000-7001/tcp"}, ocispec.ImageConfig{ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}, "7000/tcp": {}, "7001/tcp": {}}}},
		"volume":         {[]string{`VOLUME ["/a b"]`, "VOLUME /c /d"}, ocispec.ImageConfig{Volumes: map[string]struct{}{"/a b": {}, "/c": {}, "/d": {}}}},
		"user, workdir":  {[]string{"USER me:us", "WORKDIR /a", "WORKDIR b"}, ocispec.ImageConfig{User: "me:us", WorkingDir: "/a/b"}},
		"stop signal":    {[]string{"STOPSIGNAL SIGINT"}, ocispec.ImageConfig{StopSignal: "SIGINT"}},
		"several, blank": {[]string{"USER a\n\n# comment\nSTOPSIGNAL 9"}, ocispec.ImageConfig{User: "a", StopSignal: "9"}},
	} {
		var cfg Config
		if err := ApplyChanges(&cfg, c.changes); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(c.want, cfg.Config); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestApplyHealthAndTriggers(t *testing.T) {
	var cfg Config
	err := ApplyChanges(&cfg, []string{"HEALTHCHECK --interval=5s --retries=3 CMD curl -f /", "ONBUILD RUN x"})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(cfg.Healthcheck, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"Test": []any{"CMD-SHELL", "curl -f /"}, "Interval": 5e9, "Retries": 3.0}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"RUN x"}, cfg.OnBuild); d != "" {
		t.Error(d)
	}
}

func TestApplyChangesRefuses(t *testing.T) {
	for _, c := range []string{"FROM x", "RUN x", "CMD", "EXPOSE 0", "EXPOSE 80/icmp", "EXPOSE 99999", "EXPOSE 5-3", "ENV A", `ENV A="x`, "SHELL x", "ONBUILD FROM x", "HEALTHCHECK x", "HEALTHCHECK --interval=q CMD x"} {
		var cfg Config
		if err := ApplyChanges(&cfg, []string{c}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", c, err)
		}
	}
}

func FuzzApplyChanges(f *testing.F) {
	for _, s := range []string{"CMD [\"a\"]", "ENV A=\"b\\\"", "EXPOSE 1-65535", "LABEL =", "HEALTHCHECK --", "VOLUME ["} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		if len(s) < 4096 && !strings.Contains(s, "\x00") {
			_ = ApplyChanges(&Config{}, []string{s})
		}
	})
}
