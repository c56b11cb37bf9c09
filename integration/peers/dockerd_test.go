package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// dockerd starts Debian's, with a containerd of its own, and returns the docker
// command line and the socket of that containerd.
func dockerd(t *testing.T, dir, cgroup string, args ...string) (cli testenv.CLI, containerd string) {
	t.Helper()
	program, docker := testenv.NeedsProgram(t, "dockerd"), testenv.NeedsProgram(t, "docker")
	path := []string{os.Getenv("PATH")}
	for _, name := range []string{"containerd", "runc"} { // they may be unpacked only, and dockerd looks in PATH
		path = append(path, filepath.Dir(testenv.NeedsProgram(t, name)))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	socket := filepath.Join(dir, "api.sock")
	cmd := exec.Command(program, append([]string{
		"-H", "unix://" + socket, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--cgroup-parent", cgroup,
	}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(path, ":"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(log.Name())
			t.Logf("dockerd's log:\n%s", data[max(0, len(data)-4000):])
		}
	})
	cli = testenv.ForeignCLI(docker, nil, []string{"DOCKER_HOST=unix://" + socket, "DOCKER_CONFIG=" + dir})
	testenv.Eventually(t, "dockerd to answer", func() bool { return cli.Try(t, "version").Code == 0 })
	return cli, filepath.Join(dir, "exec/containerd/containerd.sock")
}

func TestDockerd(t *testing.T) {
	testenv.NeedsRoot(t)
	runtime := testenv.Bin(t, "wherry-runtime")
	dir, cgroup := workspace(t)
	cli, _ := dockerd(t, dir, cgroup, "--add-runtime", "wherry="+runtime)
	e := &engine{cli: cli, image: testenv.Registry(t).Addr() + "/busybox", run: []string{"run", "--network=none", "--runtime=wherry"}}
	cli.OK(t, "pull", "-q", e.image)
	suite(t, e)
	t.Run("init", func(t *testing.T) {
		if got := cli.OK(t, e.runArgs([]string{"--rm", "--init"}, "ps")...); !strings.Contains(got, "docker-init") {
			t.Errorf("the processes are:\n%s", got)
		}
	})
	t.Run("health", func(t *testing.T) {
		id := cli.OK(t, e.runArgs([]string{"-d", "--health-cmd=test -e /proc/1", "--health-interval=100ms"}, "sleep", "600")...)
		testenv.Eventually(t, "the container to be healthy", func() bool {
			return cli.OK(t, "inspect", "-f", "{{.State.Health.Status}}", id) == "healthy"
		})
		cli.OK(t, "rm", "-f", id)
	})
	t.Run("restart", func(t *testing.T) {
		id := cli.OK(t, e.runArgs([]string{"-d", "--restart=on-failure:2"}, "false")...)
		testenv.Eventually(t, "two restarts", func() bool {
			return cli.OK(t, "inspect", "-f", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", id) == "2 exited 1"
		})
		cli.OK(t, "rm", id)
	})
}
