package peers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// Limits that a machine without CAP_SYS_RESOURCE can give, unlike podman's own.
const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`

func TestPodman(t *testing.T) {
	testenv.NeedsRoot(t)
	podman, runtime := testenv.NeedsProgram(t, "podman"), testenv.Bin(t, "wherry-runtime")
	dir, cgroup := workspace(t)
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(containersConf), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &engine{
		cli: testenv.ForeignCLI(podman, []string{
			"--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "overlay",
			"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", runtime,
		}, []string{"CONTAINERS_CONF=" + conf}),
		image: testenv.Registry(t).Addr() + "/busybox",
		run:   []string{"run", "--network=none", "--cgroup-parent=" + cgroup},
	}
	e.cli.OK(t, "pull", "-q", "--tls-verify=false", e.image)
	t.Cleanup(func() { e.cli.OK(t, "rmi", "-fa") })
	if got := e.cli.OK(t, "info", "-f", "{{.Host.OCIRuntime.Path}}"); got != runtime {
		t.Fatalf("podman runs %s", got)
	}
	suite(t, e)
}
