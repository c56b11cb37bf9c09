package api

// Routes is the table of all routes: every endpoint of the Engine API, whether
// it is built or not. The first row that fits answers.
func Routes() []Route {
	return []Route{
		// build
		{"POST", "/build", "", nil}, // ImageBuild
		{"POST", "/build/cancel", "", nil}, // 
		{"POST", "/build/prune", "1.31", nil}, // BuildPrune

		// configs
		{"GET", "/configs", "1.30", nil}, // ConfigList
		{"POST", "/configs/create", "1.30", nil}, // ConfigCreate
		{"DELETE", "/configs/{id}", "1.30", nil}, // ConfigDelete
		{"GET", "/configs/{id}", "1.30", nil}, // ConfigInspect
		{"POST", "/configs/{id}/update", "1.30", nil}, // ConfigUpdate

		// containers
		{"POST", "/containers/create", "", nil}, // ContainerCreate
		{"GET", "/containers/json", "", nil}, // ContainerList
		{"POST", "/containers/prune", "1.25", nil}, // ContainerPrune
		{"DELETE", "/containers/{id:.*}", "", nil}, // ContainerDelete
		{"GET", "/containers/{id:.*}/archive", "", nil}, // ContainerArchive
		{"HEAD", "/containers/{id:.*}/archive", "", nil}, // ContainerArchiveInfo
		{"PUT", "/containers/{id:.*}/archive", "", nil}, // PutContainerArchive
		{"POST", "/containers/{id:.*}/attach", "", nil}, // ContainerAttach
		{"GET", "/containers/{id:.*}/attach/ws", "", nil}, // ContainerAttachWebsocket
		{"GET", "/containers/{id:.*}/changes", "", nil}, // ContainerChanges
		{"GET", "/containers/{id:.*}/export", "", nil}, // ContainerExport
		{"GET", "/containers/{id:.*}/json", "", nil}, // ContainerInspect
		{"POST", "/containers/{id:.*}/kill", "", nil}, // ContainerKill
		{"GET", "/containers/{id:.*}/logs", "", nil}, // ContainerLogs
		{"POST", "/containers/{id:.*}/pause", "", nil}, // ContainerPause
		{"POST", "/containers/{id:.*}/rename", "", nil}, // ContainerRename
		{"POST", "/containers/{id:.*}/resize", "", nil}, // ContainerResize
		{"POST", "/containers/{id:.*}/restart", "", nil}, // ContainerRestart
		{"POST", "/containers/{id:.*}/start", "", nil}, // ContainerStart
		{"GET", "/containers/{id:.*}/stats", "", nil}, // ContainerStats
		{"POST", "/containers/{id:.*}/stop", "", nil}, // ContainerStop
		{"GET", "/containers/{id:.*}/top", "", nil}, // ContainerTop
		{"POST", "/containers/{id:.*}/unpause", "", nil}, // ContainerUnpause
		{"POST", "/containers/{id:.*}/update", "", nil}, // ContainerUpdate
		{"POST", "/containers/{id:.*}/wait", "", nil}, // ContainerWait
		{"GET", "/containers/{name:.*}/checkpoints", "", nil}, // 
		{"POST", "/containers/{name:.*}/checkpoints", "", nil}, // 
		{"DELETE", "/containers/{name:.*}/checkpoints/{checkpoint}", "", nil}, // 

		// distribution
		{"GET", "/distribution/{name:.*}/json", "1.30", nil}, // DistributionInspect

		// exec
		{"POST", "/containers/{id:.*}/exec", "", nil}, // ContainerExec
		{"GET", "/exec/{id:.*}/json", "", nil}, // ExecInspect
		{"POST", "/exec/{id:.*}/resize", "", nil}, // ExecResize
		{"POST", "/exec/{id:.*}/start", "", nil}, // ExecStart

		// images
		{"POST", "/commit", "", nil}, // ImageCommit
		{"POST", "/images/create", "", nil}, // ImageCreate
		{"GET", "/images/get", "", nil}, // ImageGetAll
		{"GET", "/images/json", "", nil}, // ImageList
		{"POST", "/images/load", "", nil}, // ImageLoad
		{"POST", "/images/prune", "1.25", nil}, // ImagePrune
		{"GET", "/images/search", "", nil}, // ImageSearch
		{"DELETE", "/images/{name:.*}", "", nil}, // ImageDelete
		{"GET", "/images/{name:.*}/attestations", "1.55", nil}, // ImageAttestations
		{"GET", "/images/{name:.*}/get", "", nil}, // ImageGet
		{"GET", "/images/{name:.*}/history", "", nil}, // ImageHistory
		{"GET", "/images/{name:.*}/json", "", nil}, // ImageInspect
		{"POST", "/images/{name:.*}/push", "", nil}, // ImagePush
		{"POST", "/images/{name:.*}/tag", "", nil}, // ImageTag

		// networks
		{"GET", "/networks", "", nil}, // NetworkList
		{"GET", "/networks/", "", nil}, // 
		{"POST", "/networks/create", "", nil}, // NetworkCreate
		{"POST", "/networks/prune", "1.25", nil}, // NetworkPrune
		{"DELETE", "/networks/{id}", "", nil}, // NetworkDelete
		{"GET", "/networks/{id}", "", nil}, // NetworkInspect
		{"POST", "/networks/{id}/connect", "", nil}, // NetworkConnect
		{"POST", "/networks/{id}/disconnect", "", nil}, // NetworkDisconnect

		// nodes
		{"GET", "/nodes", "", nil}, // NodeList
		{"DELETE", "/nodes/{id}", "", nil}, // NodeDelete
		{"GET", "/nodes/{id}", "", nil}, // NodeInspect
		{"POST", "/nodes/{id}/update", "", nil}, // NodeUpdate

		// plugins
		{"GET", "/plugins", "", nil}, // PluginList
		{"POST", "/plugins/create", "", nil}, // PluginCreate
		{"GET", "/plugins/privileges", "", nil}, // GetPluginPrivileges
		{"POST", "/plugins/pull", "", nil}, // PluginPull
		{"DELETE", "/plugins/{name:.*}", "", nil}, // PluginDelete
		{"POST", "/plugins/{name:.*}/disable", "", nil}, // PluginDisable
		{"POST", "/plugins/{name:.*}/enable", "", nil}, // PluginEnable
		{"GET", "/plugins/{name:.*}/json", "", nil}, // PluginInspect
		{"POST", "/plugins/{name:.*}/push", "", nil}, // PluginPush
		{"POST", "/plugins/{name:.*}/set", "", nil}, // PluginSet
		{"POST", "/plugins/{name:.*}/upgrade", "1.26", nil}, // PluginUpgrade

		// secrets
		{"GET", "/secrets", "1.25", nil}, // SecretList
		{"POST", "/secrets/create", "1.25", nil}, // SecretCreate
		{"DELETE", "/secrets/{id}", "1.25", nil}, // SecretDelete
		{"GET", "/secrets/{id}", "1.25", nil}, // SecretInspect
		{"POST", "/secrets/{id}/update", "1.25", nil}, // SecretUpdate

		// services
		{"GET", "/services", "", nil}, // ServiceList
		{"POST", "/services/create", "", nil}, // ServiceCreate
		{"DELETE", "/services/{id}", "", nil}, // ServiceDelete
		{"GET", "/services/{id}", "", nil}, // ServiceInspect
		{"GET", "/services/{id}/logs", "", nil}, // ServiceLogs
		{"POST", "/services/{id}/update", "", nil}, // ServiceUpdate

		// session
		{"POST", "/grpc", "", nil}, // 
		{"POST", "/session", "", nil}, // Session

		// swarm
		{"GET", "/swarm", "", nil}, // SwarmInspect
		{"POST", "/swarm/init", "", nil}, // SwarmInit
		{"POST", "/swarm/join", "", nil}, // SwarmJoin
		{"POST", "/swarm/leave", "", nil}, // SwarmLeave
		{"POST", "/swarm/unlock", "", nil}, // SwarmUnlock
		{"GET", "/swarm/unlockkey", "", nil}, // SwarmUnlockkey
		{"POST", "/swarm/update", "", nil}, // SwarmUpdate

		// system
		{"GET", "/_ping", "", nil}, // SystemPing
		{"HEAD", "/_ping", "", nil}, // SystemPingHead
		{"POST", "/auth", "", nil}, // SystemAuth
		{"GET", "/debug/pprof/", "", nil}, // 
		{"GET", "/debug/pprof/cmdline", "", nil}, // 
		{"GET", "/debug/pprof/profile", "", nil}, // 
		{"GET", "/debug/pprof/symbol", "", nil}, // 
		{"GET", "/debug/pprof/trace", "", nil}, // 
		{"GET", "/debug/pprof/{name}", "", nil}, // 
		{"GET", "/debug/vars", "", nil}, // 
		{"GET", "/events", "", nil}, // SystemEvents
		{"GET", "/info", "", nil}, // SystemInfo
		{"GET", "/system/df", "", nil}, // SystemDataUsage
		{"GET", "/version", "", nil}, // SystemVersion
		{"OPTIONS", "/{anyroute:.*}", "", nil}, // 

		// tasks
		{"GET", "/tasks", "", nil}, // TaskList
		{"GET", "/tasks/{id}", "", nil}, // TaskInspect
		{"GET", "/tasks/{id}/logs", "", nil}, // TaskLogs

		// volumes
		{"GET", "/volumes", "", nil}, // VolumeList
		{"POST", "/volumes/create", "", nil}, // VolumeCreate
		{"POST", "/volumes/prune", "1.25", nil}, // VolumePrune
		{"DELETE", "/volumes/{name:.*}", "", nil}, // VolumeDelete
		{"GET", "/volumes/{name:.*}", "", nil}, // VolumeInspect
		{"PUT", "/volumes/{name:.*}", "1.42", nil}, // VolumeUpdate
	}
}
