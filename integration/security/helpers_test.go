package security

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func sortLines(lines []string) { slices.Sort(lines) }

// lines are the findings of a probe that begin with a word.
func lines(out, word string) []string {
	var found []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, word+" ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// contains checks for a part of what was printed.
func contains(t testing.TB, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q is not in %q", what, want, got)
	}
}

// lacks checks that something was not printed.
func lacks(t testing.TB, what, got, bad string) {
	t.Helper()
	if strings.Contains(got, bad) {
		t.Errorf("%s: %q is in %q", what, bad, got)
	}
}

// putArchive unpacks a tar archive in a container and returns status and answer.
func putArchive(t testing.TB, d *testenv.Daemon, id, path string, tarball []byte) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, body, err := d.Request(ctx, "PUT", "/containers/"+id+"/archive?path="+url.QueryEscape(path), tarball)
	if err != nil {
		return 0, err.Error() // refused before it was read to its end
	}
	return status, string(body)
}

// getArchive fetches a path of a container as a tar archive.
func getArchive(t testing.TB, d *testenv.Daemon, id, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, body, err := d.Request(ctx, "GET", "/containers/"+id+"/archive?path="+url.QueryEscape(path), nil)
	if err != nil {
		// The connection may break when the tree changes under the copy.
		return 0, err.Error() + string(body)
	}
	return status, string(body)
}
