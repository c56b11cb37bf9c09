package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunWithoutADaemon(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(bad, []byte(`{"nope":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"version":     {[]string{"--version"}, 0, "Wherry version "},
		"help":        {[]string{"--help"}, 0, "--data-root"},
		"validate":    {[]string{"--validate"}, 0, "configuration OK"},
		"bad file":    {[]string{"--validate", "--config-file", bad}, 1, "don't match any configuration option: nope"},
		"bad flag":    {[]string{"--nope"}, 125, "unknown flag: --nope"},
		"no file":     {[]string{"--config-file", "/nonexistent"}, 1, "no such file"},
		"unsupported": {[]string{"--rootless"}, 1, "--rootless is not supported by this engine yet"},
	} {
		var out bytes.Buffer
		if status := run(t.Context(), tc.args, &out, &out); status != tc.status || !strings.Contains(out.String(), tc.want) {
			t.Errorf("%s: %d, %s", name, status, out.String())
		}
	}
}
