package main

import (
	"os/exec"
	"strings"
	"testing"
)

// maxPackages bounds what the command line links, standard library included:
// each package costs time at every start.
const maxPackages = 240

// banned are imports that cost more than the whole budget, by prefix.
func banned() []string {
	return []string{
		"github.com/containerd/containerd",
		"github.com/distribution/reference", // its expressions are compiled at start; ociref is the twin
		"github.com/docker/cli",
		"github.com/docker/docker",
		"github.com/moby/buildkit",
		"github.com/moby/moby/client",
		"github.com/moby/moby/v2",
		"github.com/sirupsen/logrus",
		"go.opentelemetry.io",
		"google.golang.org/grpc",
		"google.golang.org/protobuf",
		"html/template",
		"net/http/pprof",
	}
}

func TestImportGraph(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) > maxPackages {
		t.Errorf("%d packages are linked, at most %d may be", len(deps), maxPackages)
	}
	for _, d := range deps {
		for _, b := range banned() {
			if d == b || strings.HasPrefix(d, b+"/") {
				t.Errorf("%s is linked", d)
			}
		}
	}
}
