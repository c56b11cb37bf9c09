// Package top lists the processes of a container from its cgroup and /proc, in
// the form of ps.
package top
