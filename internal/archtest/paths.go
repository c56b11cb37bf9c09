package archtest

// rootPackages touch, with the engine's privileges, what containers, images,
// volumes or archives control.
var rootPackages = []string{
	"ocirun", "ocirun/initproc", "ocirun/passwd",
	"engine/archive", "engine/changes", "engine/lifecycle", "engine/mounts", "engine/netconfig", "engine/rootfs", "engine/shm", "engine/volumes",
	"snapshot/native", "snapshot/overlay", "snapshot/tree",
	"image/store", "volume/local", "build", "internal/rmtree",
}

// pathRule says of a call which of its arguments are paths. For one of the *at
// family the directory is the argument before; nofollow, if set, are flags of
// which the argument flags must have one, or else the last name is followed.
type pathRule struct {
	paths    []int
	at       bool
	flags    int
	nofollow []string
	// following, if set, are flags that the call must not have.
	following []string
}

// byPath are the calls that follow a path, or may. Names of our own (constants,
// descriptors in /proc/self/fd) and, for the *at family, single names with the
// right flags pass. Calls that are not listed follow nothing: mkdirat, mknodat,
// symlinkat, unlinkat, renameat and readlinkat stop at the last name, which is
// checked to be one for the listed ones only.
var byPath = pathRules()

func pathRules() map[string]*pathRule {
	byPath := map[string]*pathRule{}
	for _, fn := range []string{
		"os.Open", "os.OpenFile", "os.Create", "os.ReadFile", "os.WriteFile", "os.Mkdir", "os.MkdirAll", "os.MkdirTemp", "os.CreateTemp", "os.Remove", "os.RemoveAll",
		"os.Stat", "os.Lstat", "os.ReadDir", "os.Readlink", "os.Chmod", "os.Chown", "os.Lchown", "os.Chtimes", "os.Truncate", "os.DirFS", "os.OpenRoot", "os.Chdir", "os.CopyFS",
		"filepath.Walk", "filepath.WalkDir", "filepath.Glob", "filepath.EvalSymlinks",
		"unix.Open", "unix.Mkdir", "unix.Mknod", "unix.Stat", "unix.Lstat", "unix.Statfs", "unix.Access", "unix.Chmod", "unix.Chown", "unix.Lchown", "unix.Unlink", "unix.Rmdir",
		"unix.Readlink", "unix.Truncate", "unix.Chdir", "unix.Chroot", "unix.Unmount", "unix.Creat", "unix.Utimes",
		"unix.Getxattr", "unix.Setxattr", "unix.Listxattr", "unix.Removexattr", "unix.Lgetxattr", "unix.Lsetxattr", "unix.Llistxattr", "unix.Lremovexattr",
		"exec.Command",
	} {
		byPath[fn] = &pathRule{paths: []int{0}}
	}
	for _, fn := range []string{"os.Rename", "os.Link", "unix.Rename", "unix.Link", "unix.PivotRoot"} {
		byPath[fn] = &pathRule{paths: []int{0, 1}}
	}
	byPath["os.Symlink"] = &pathRule{paths: []int{1}} // its target is only text
	byPath["unix.Symlink"] = &pathRule{paths: []int{1}}
	byPath["unix.Mount"] = &pathRule{paths: []int{1}}
	byPath["exec.CommandContext"] = &pathRule{paths: []int{1}}
	byPath["os.StartProcess"] = &pathRule{paths: []int{0}}

	at := func(fn string, flags int, nofollow ...string) {
		byPath[fn] = &pathRule{paths: []int{1}, at: true, flags: flags, nofollow: nofollow}
	}
	at("unix.Openat", 2, "unix.O_NOFOLLOW", "unix.O_EXCL")
	at("unix.Fchmodat", 3, "unix.AT_SYMLINK_NOFOLLOW", "unix.AT_EMPTY_PATH")
	at("unix.Fchownat", 4, "unix.AT_SYMLINK_NOFOLLOW", "unix.AT_EMPTY_PATH")
	at("unix.Fstatat", 3, "unix.AT_SYMLINK_NOFOLLOW", "unix.AT_EMPTY_PATH")
	at("unix.UtimesNanoAt", 3, "unix.AT_SYMLINK_NOFOLLOW", "unix.AT_EMPTY_PATH")
	at("unix.OpenTree", 2, "unix.AT_EMPTY_PATH")
	at("unix.MountSetattr", 2, "unix.AT_EMPTY_PATH")
	at("unix.Statx", 2, "unix.AT_SYMLINK_NOFOLLOW", "unix.AT_EMPTY_PATH")
	at("unix.Faccessat", 3, "unix.AT_SYMLINK_NOFOLLOW")
	byPath["unix.Linkat"] = &pathRule{paths: []int{1, 3}, at: true, flags: 4, following: []string{"unix.AT_SYMLINK_FOLLOW"}}
	byPath["unix.MoveMount"] = &pathRule{paths: []int{3}, at: true, flags: 4}
	return byPath
}

// hostPaths are functions that follow paths all the same, with the reason why no
// container can have put a link on them.
var hostPaths = reasons(map[string][]string{
	"the engine's own directories: no container can write in them": {
		"build.Builder.everRan", "build.New", "build.dropCache", "build.durable.mark", "build.durable.sync", "build.newWorker", "build.stepExecutor.Run", "build.unsyncedBoot", "build.writeNetworkFiles",
		"engine/lifecycle.Engine.build", "engine/lifecycle.Engine.collect",
		"engine/lifecycle.Engine.removeFiles", "engine/lifecycle.New", "engine/lifecycle.ended", "engine/lifecycle.userNSOf",
		"engine/netconfig.overwrite", "engine/shm.Dir.Close", "engine/shm.Dir.Collect", "engine/shm.Dir.Open", "engine/shm.Dir.Remove",
		"image/store.Store.open", "image/store.Store.sweepIngest", "image/store.Store.syncFS",
		"image/store.bootID", "image/store.deepRemoval.addStrays", "snapshot/native.Driver.Remove", "snapshot/native.Driver.adopt", "snapshot/native.Driver.make",
		"snapshot/native.New", "snapshot/overlay.Driver.base", "snapshot/overlay.Driver.chainOf", "snapshot/overlay.Driver.discard",
		"snapshot/overlay.Driver.dropBases", "snapshot/overlay.Driver.make", "snapshot/overlay.Driver.scan", "snapshot/overlay.New",
		"snapshot/overlay.backing", "snapshot/overlay.trash.empty", "volume/local.Open", "volume/local.Store.adopt", "volume/local.Store.erase",
		"volume/local.Store.makeDir", "volume/local.Store.scan",
	},
	"opens or mounts the top of a tree, whose path the engine made; containers change only what is below": {
		"build.unmountBelow", "engine/rootfs.CopyTree", "engine/rootfs.OpenIn", "image/store.extractTar", "internal/rmtree.Remove",
		"ocirun.holder.closeRoot", "ocirun.holder.legacyOverlay", "ocirun.resolvePart", "ocirun.rootDirs.open", "snapshot/tree.MakeBase", "snapshot/tree.Walk",
		"volume/local.Store.NeedsPopulating", "volume/local.Store.Usage", "volume/local.isMounted", "volume/local.mountSpec.attach",
		"volume/local.mountSpec.mount", "volume/local.unmountAll",
	},
	"a path of the host that the user gave, followed as the user would": {
		"engine/mounts.Exists", "engine/volumes.Volumes.Open", "engine/volumes.bindSource", "ocirun.Agent.send", "ocirun.Runtime.namespaces", "ocirun.Runtime.rootfs",
		"ocirun.rootDirs.bind", "ocirun.cloneSource", "ocirun.inMountNS", "ocirun.rootPath", "ocirun/initproc.RunHook",
		"ocirun/initproc.setup.bindDevice", "ocirun/initproc.setup.enterRoot", "ocirun/initproc.setup.hostRoot", "ocirun/initproc.setup.openTree",
	},
	"a layer of an image: nobody else writes in it, and each directory on the way was seen to be one": {
		"image/store.Store.unpackAgain", "image/store.copyAttributes", "image/store.copyXattrs", "image/store.inheritAttributes", "image/store.plainDir",
		"image/store.setXattrs", "image/store.untar.attributes", "image/store.untar.makeParents", "snapshot/native.Driver.compare",
		"snapshot/native.differ", "snapshot/native.newBase", "snapshot/tree.CopyAttributes", "snapshot/tree.List", "snapshot/tree.Merge",
		"snapshot/tree.baseEntry.make", "snapshot/tree.copyDirAttributes", "snapshot/tree.inheritTree", "snapshot/tree.keepTimes",
	},
	"one name below a descriptor in /proc/self/fd, by a call that follows no link: the kernel has none for descriptors": {
		"snapshot/tree.Writer.xattrs", "snapshot/tree.isOpaque",
	},
	"the host's procfs and control groups, opened before the container had any say": {
		"ocirun.newTimeNS", "ocirun.outfit", "ocirun/initproc.setup.devLinks", "ocirun/initproc.setup.hierarchy", "ocirun/initproc.setup.openProc",
	},
	"the runtime's own binary": {
		"ocirun.readOnlyView", "ocirun.sealedCopy",
	},
	"what is entered or looked for as the container's process, in its root, without a way back": {
		"ocirun/initproc.executable", "ocirun/initproc.find", "ocirun/initproc.setup.chdir", "ocirun/initproc.setup.pivot",
		"ocirun/initproc.setup.pivotRoot",
	},
})

// reasons turns a list by reason into one by function.
func reasons(by map[string][]string) map[string]string {
	out := map[string]string{}
	for why, functions := range by {
		for _, f := range functions {
			out[f] = why
		}
	}
	return out
}
