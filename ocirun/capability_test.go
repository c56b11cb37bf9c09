package ocirun

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestCapabilitiesNotGranted: they are worth a warning each, and no failure.
func TestCapabilitiesNotGranted(t *testing.T) {
	needsRoot(t)
	var log bytes.Buffer
	r, err := New(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	req := sh(busyboxRoot(t), "grep -E 'Cap(Eff|Amb|Prm)' /proc/self/status")
	c := req.Spec.Process.Capabilities
	c.Bounding = []string{"CAP_CHOWN", "CAP_FOO"}
	c.Permitted, c.Effective, c.Ambient = []string{"CAP_CHOWN"}, []string{"CAP_CHOWN", "CAP_KILL"}, []string{"CAP_CHOWN"}
	res := mustRun(t, r, req)
	if res.out != "CapPrm:\t0000000000000001\nCapEff:\t0000000000000001\nCapAmb:\t0000000000000000\n" {
		t.Errorf("%+v", res)
	}
	for _, want := range []string{"CAP_FOO", "set=effective", "set=ambient"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no warning of %s: %s", want, log.String())
		}
	}
}
