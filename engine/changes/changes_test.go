package changes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	apicontainer "github.com/moby/moby/api/types/container"
)

func TestApply(t *testing.T) {
	c := apicontainer.Config{Env: []string{"A=1"}, WorkingDir: "/w"}
	err := Apply(&c, []string{
		"ENV A=2 B='x y'\nENV C old form", `CMD ["a","b"]`, "ENTRYPOINT run it", "WORKDIR sub", "USER u",
		`LABEL k="v w"`, "EXPOSE 80 90/udp", "VOLUME /v /w", "STOPSIGNAL SIGINT",
		"HEALTHCHECK --interval=5s --retries=2 CMD test -f /x", "# a comment", "onbuild RUN x",
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=2", "B=x y", "C=old form"}, c.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/bin/sh", "-c", "run it"}, c.Entrypoint); diff != "" {
		t.Errorf("entrypoint (-want +got):\n%s", diff)
	}
	if c.WorkingDir != "/w/sub" || c.User != "u" || c.Labels["k"] != "v w" || len(c.ExposedPorts) != 2 || len(c.Volumes) != 2 ||
		c.Cmd[1] != "b" || c.StopSignal != "SIGINT" || c.Healthcheck.Retries != 2 || c.Healthcheck.Test[0] != "CMD-SHELL" || len(c.OnBuild) != 1 {
		t.Errorf("configuration: %+v", c)
	}
	for _, bad := range []string{"RUN x", "FOO", "ENV", "ENV A", `LABEL a="b`, "EXPOSE x", "HEALTHCHECK FOO", "SHELL sh"} {
		if err := Apply(&apicontainer.Config{}, []string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add("ENV a=b")
	f.Add("LABEL 'x")
	f.Add("HEALTHCHECK --interval=1s CMD x")
	f.Fuzz(func(_ *testing.T, line string) {
		_ = Apply(&apicontainer.Config{}, []string{line})
	})
}
