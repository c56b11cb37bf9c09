package supervisor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestExecIsConfined: what confines the container confines its execs.
func TestExecIsConfined(t *testing.T) {
	container := specs.Process{ApparmorProfile: "a", SelinuxLabel: "b", NoNewPrivileges: true}
	tests := map[string]struct{ exec, container, want specs.Process }{
		"nothing said": {specs.Process{}, container, container},
		"labels of its own": {
			specs.Process{ApparmorProfile: "c", SelinuxLabel: "d"}, container,
			specs.Process{ApparmorProfile: "c", SelinuxLabel: "d", NoNewPrivileges: true},
		},
		"only the exec": {specs.Process{NoNewPrivileges: true}, specs.Process{}, specs.Process{NoNewPrivileges: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := tt.exec
			confine(&got, &tt.container)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
