package system

import (
	"github.com/moby/moby/api/types/system"

	"github.com/wherry-engine/wherry/api/route"
)

// legacyInfo adds what clients of older versions expect to find.
type legacyInfo struct {
	*system.Info
	BridgeNfIptables  *bool `json:",omitempty"`
	BridgeNfIp6tables *bool `json:",omitempty"` //nolint:revive // the name on the wire

	ContainerdCommit legacyCommit
	RuncCommit       legacyCommit
	InitCommit       legacyCommit

	KernelMemory    *bool `json:",omitempty"`
	KernelMemoryTCP *bool `json:",omitempty"`
}

type legacyCommit struct {
	ID       string
	Expected string
}

// forVersion returns info in the shape of an API version.
func forVersion(info *system.Info, version string) any {
	before := func(v string) bool { return route.CompareVersions(version, v) < 0 }
	if before("1.52") && info.SecurityOptions == nil {
		info.SecurityOptions = []string{}
	}
	if !before("1.52") {
		return info
	}
	if before("1.49") && info.FirewallBackend != nil {
		own := *info
		own.FirewallBackend = nil
		info = &own
	}
	no, yes := false, true
	l := legacyInfo{Info: info, KernelMemoryTCP: &no}
	commit := func(c system.Commit) legacyCommit {
		if before("1.49") {
			return legacyCommit{c.ID, c.ID}
		}
		return legacyCommit{ID: c.ID}
	}
	l.ContainerdCommit, l.RuncCommit, l.InitCommit = commit(info.ContainerdCommit), commit(info.RuncCommit), commit(info.InitCommit)
	if before("1.50") {
		// Packets between containers never pass a bridge's own filter unseen.
		l.BridgeNfIptables, l.BridgeNfIp6tables = &yes, &yes
	}
	if before("1.42") {
		l.KernelMemory = &no
	}
	return l
}
