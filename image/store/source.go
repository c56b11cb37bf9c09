package store

import (
	"slices"
	"strings"
)

// maxSources bounds the repositories remembered for a blob of one registry.
const maxSources = 16

// addRepository adds to a comma-separated list, dropping the oldest.
func addRepository(list, repo string) string {
	repos := []string{}
	if list != "" {
		repos = strings.Split(list, ",")
	}
	if slices.Contains(repos, repo) {
		return list
	}
	repos = append(repos, repo)
	if len(repos) > maxSources {
		repos = repos[len(repos)-maxSources:]
	}
	return strings.Join(repos, ",")
}
