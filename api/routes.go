package api

import (
	"github.com/wherry-engine/wherry/api/build"
	"github.com/wherry-engine/wherry/api/containers"
	"github.com/wherry-engine/wherry/api/distribution"
	"github.com/wherry-engine/wherry/api/images"
	"github.com/wherry-engine/wherry/api/networks"
	"github.com/wherry-engine/wherry/api/plugins"
	"github.com/wherry-engine/wherry/api/system"
	"github.com/wherry-engine/wherry/api/volumes"
)

// Groups are the handlers of the routes.
type Groups struct {
	System       system.Handlers
	Containers   containers.Handlers
	Images       images.Handlers
	Distribution distribution.Handlers
	Networks     networks.Handlers
	Volumes      volumes.Handlers
	Build        build.Handlers
}

// Routes is the table of all routes: every endpoint of the Engine API, whether
// it is built or not. The first row that fits answers.
func Routes(g Groups) []Route {
	return []Route{
		// build
		{"POST", "/build", "", g.Build.Build},
		{"POST", "/build/cancel", "", g.Build.Cancel},
		{"POST", "/build/prune", "1.31", g.Build.Prune},

		// configs
		{"GET", "/configs", "1.30", nil},              // ConfigList
		{"POST", "/configs/create", "1.30", nil},      // ConfigCreate
		{"DELETE", "/configs/{id}", "1.30", nil},      // ConfigDelete
		{"GET", "/configs/{id}", "1.30", nil},         // ConfigInspect
		{"POST", "/configs/{id}/update", "1.30", nil}, // ConfigUpdate

		// containers
		{"POST", "/containers/create", "", g.Containers.Create},
		{"GET", "/containers/json", "", g.Containers.List},
		{"POST", "/containers/prune", "1.25", g.Containers.Prune},
		{"DELETE", "/containers/{id:.*}", "", g.Containers.Delete},
		{"GET", "/containers/{id:.*}/archive", "", g.Containers.ArchiveGet},
		{"HEAD", "/containers/{id:.*}/archive", "", g.Containers.ArchiveHead},
		{"PUT", "/containers/{id:.*}/archive", "", g.Containers.ArchivePut},
		{"POST", "/containers/{id:.*}/attach", "", g.Containers.Attach},
		{"GET", "/containers/{id:.*}/attach/ws", "", g.Containers.AttachWS},
		{"GET", "/containers/{id:.*}/changes", "", g.Containers.Changes},
		{"GET", "/containers/{id:.*}/export", "", g.Containers.Export},
		{"GET", "/containers/{id:.*}/json", "", g.Containers.Inspect},
		{"POST", "/containers/{id:.*}/kill", "", g.Containers.Kill},
		{"GET", "/containers/{id:.*}/logs", "", g.Containers.Logs},
		{"POST", "/containers/{id:.*}/pause", "", g.Containers.Pause},
		{"POST", "/containers/{id:.*}/rename", "", g.Containers.Rename},
		{"POST", "/containers/{id:.*}/resize", "", g.Containers.Resize},
		{"POST", "/containers/{id:.*}/restart", "", g.Containers.Restart},
		{"POST", "/containers/{id:.*}/start", "", g.Containers.Start},
		{"GET", "/containers/{id:.*}/stats", "", g.Containers.Stats},
		{"POST", "/containers/{id:.*}/stop", "", g.Containers.Stop},
		{"GET", "/containers/{id:.*}/top", "", g.Containers.Top},
		{"POST", "/containers/{id:.*}/unpause", "", g.Containers.Unpause},
		{"POST", "/containers/{id:.*}/update", "", g.Containers.Update},
		{"POST", "/containers/{id:.*}/wait", "", g.Containers.Wait},
		{"GET", "/containers/{name:.*}/checkpoints", "", nil},
		{"POST", "/containers/{name:.*}/checkpoints", "", nil},
		{"DELETE", "/containers/{name:.*}/checkpoints/{checkpoint}", "", nil},

		// distribution
		{"GET", "/distribution/{name:.*}/json", "1.30", g.Distribution.Inspect},

		// exec
		{"POST", "/containers/{id:.*}/exec", "", g.Containers.ExecCreate},
		{"GET", "/exec/{id:.*}/json", "", g.Containers.ExecInspect},
		{"POST", "/exec/{id:.*}/resize", "", g.Containers.ExecResize},
		{"POST", "/exec/{id:.*}/start", "", g.Containers.ExecStart},

		// images
		{"POST", "/commit", "", g.Containers.Commit},
		{"POST", "/images/create", "", g.Images.Create},
		{"GET", "/images/get", "", g.Images.GetAll},
		{"GET", "/images/json", "", g.Images.List},
		{"POST", "/images/load", "", g.Images.Load},
		{"POST", "/images/prune", "1.25", g.Images.Prune},
		{"GET", "/images/search", "", g.Images.Search},
		{"DELETE", "/images/{name:.*}", "", g.Images.Delete},
		{"GET", "/images/{name:.*}/attestations", "1.55", nil}, // ImageAttestations
		{"GET", "/images/{name:.*}/get", "", g.Images.Get},
		{"GET", "/images/{name:.*}/history", "", g.Images.History},
		{"GET", "/images/{name:.*}/json", "", g.Images.Inspect},
		{"POST", "/images/{name:.*}/push", "", g.Images.Push},
		{"POST", "/images/{name:.*}/tag", "", g.Images.Tag},

		// networks
		{"GET", "/networks", "", g.Networks.List},
		{"GET", "/networks/", "", g.Networks.List},
		{"POST", "/networks/create", "", g.Networks.Create},
		{"POST", "/networks/prune", "1.25", g.Networks.Prune},
		{"DELETE", "/networks/{id}", "", g.Networks.Delete},
		{"GET", "/networks/{id}", "", g.Networks.Inspect},
		{"POST", "/networks/{id}/connect", "", g.Networks.Connect},
		{"POST", "/networks/{id}/disconnect", "", g.Networks.Disconnect},

		// nodes
		{"GET", "/nodes", "", nil},              // NodeList
		{"DELETE", "/nodes/{id}", "", nil},      // NodeDelete
		{"GET", "/nodes/{id}", "", nil},         // NodeInspect
		{"POST", "/nodes/{id}/update", "", nil}, // NodeUpdate

		// plugins
		{"GET", "/plugins", "", plugins.List},
		{"POST", "/plugins/create", "", nil},            // PluginCreate
		{"GET", "/plugins/privileges", "", nil},         // GetPluginPrivileges
		{"POST", "/plugins/pull", "", nil},              // PluginPull
		{"DELETE", "/plugins/{name:.*}", "", nil},       // PluginDelete
		{"POST", "/plugins/{name:.*}/disable", "", nil}, // PluginDisable
		{"POST", "/plugins/{name:.*}/enable", "", nil},  // PluginEnable
		{"GET", "/plugins/{name:.*}/json", "", plugins.Inspect},
		{"POST", "/plugins/{name:.*}/push", "", nil},        // PluginPush
		{"POST", "/plugins/{name:.*}/set", "", nil},         // PluginSet
		{"POST", "/plugins/{name:.*}/upgrade", "1.26", nil}, // PluginUpgrade

		// secrets
		{"GET", "/secrets", "1.25", nil},              // SecretList
		{"POST", "/secrets/create", "1.25", nil},      // SecretCreate
		{"DELETE", "/secrets/{id}", "1.25", nil},      // SecretDelete
		{"GET", "/secrets/{id}", "1.25", nil},         // SecretInspect
		{"POST", "/secrets/{id}/update", "1.25", nil}, // SecretUpdate

		// services
		{"GET", "/services", "", nil},              // ServiceList
		{"POST", "/services/create", "", nil},      // ServiceCreate
		{"DELETE", "/services/{id}", "", nil},      // ServiceDelete
		{"GET", "/services/{id}", "", nil},         // ServiceInspect
		{"GET", "/services/{id}/logs", "", nil},    // ServiceLogs
		{"POST", "/services/{id}/update", "", nil}, // ServiceUpdate

		// session
		{"POST", "/grpc", "", g.Build.GRPC},
		{"POST", "/session", "", g.Build.Session},

		// swarm
		{"GET", "/swarm", "", nil},           // SwarmInspect
		{"POST", "/swarm/init", "", nil},     // SwarmInit
		{"POST", "/swarm/join", "", nil},     // SwarmJoin
		{"POST", "/swarm/leave", "", nil},    // SwarmLeave
		{"POST", "/swarm/unlock", "", nil},   // SwarmUnlock
		{"GET", "/swarm/unlockkey", "", nil}, // SwarmUnlockkey
		{"POST", "/swarm/update", "", nil},   // SwarmUpdate

		// system
		{"GET", "/_ping", "", g.System.Ping},
		{"HEAD", "/_ping", "", g.System.Ping},
		{"POST", "/auth", "", g.System.Auth},
		{"GET", "/debug/pprof/", "", g.System.Profile},
		{"GET", "/debug/pprof/{name}", "", g.System.Profile},
		{"GET", "/debug/vars", "", g.System.Vars},
		{"GET", "/events", "", g.System.Events},
		{"GET", "/info", "", g.System.Info},
		{"GET", "/system/df", "", g.System.DataUsage},
		{"GET", "/version", "", g.System.Version},
		{"OPTIONS", "/{anyroute:.*}", "", g.System.Options},

		// tasks
		{"GET", "/tasks", "", nil},           // TaskList
		{"GET", "/tasks/{id}", "", nil},      // TaskInspect
		{"GET", "/tasks/{id}/logs", "", nil}, // TaskLogs

		// volumes
		{"GET", "/volumes", "", g.Volumes.List},
		{"POST", "/volumes/create", "", g.Volumes.Create},
		{"POST", "/volumes/prune", "1.25", g.Volumes.Prune},
		{"DELETE", "/volumes/{name:.*}", "", g.Volumes.Delete},
		{"GET", "/volumes/{name:.*}", "", g.Volumes.Inspect},
		{"PUT", "/volumes/{name:.*}", "1.42", g.Volumes.Update},
	}
}
