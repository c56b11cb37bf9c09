package wire

// Config is everything an init needs to know. Numbers named FD are indexes
// into the descriptors of the message; -1 is none.
type Config struct {
	ID string
	// Join is set for a further process in a running container: JoinFD is a
	// pidfd of its init, JoinFlags the namespaces still to be entered, and all
	// that follows up to Process is empty.
	Join      bool
	JoinFD    int
	JoinFlags int

	// CgroupFDs are files to write "0" to, by which the init enters its control
	// groups, first of all.
	CgroupFDs []int
	// Enter are namespaces to enter before anything else: index of a
	// descriptor and its CLONE_NEW flag.
	Enter []Enter
	// Unshare are CLONE_NEW flags the clone could not do.
	Unshare    int
	NewMountNS bool
	// UserNS is set if the container has a user namespace of its own: device
	// nodes are bound, not made.
	UserNS     bool
	Hostname   string
	Domainname string

	// RootFD is the mount that becomes the root; with Join, a directory to
	// chroot to after the namespaces are entered, or -1.
	RootFD       int
	RootPath     string // if RootFD is -1
	RootMove     bool   // the root may be moved, it cannot be cloned
	RootReadonly bool
	// Propagation of all mounts inherited from the host, MS_ flags.
	Propagation uint64
	// RootPropagation of the container's root at the end, MS_ flags or 0.
	RootPropagation uint64
	NoPivot         bool

	Mounts   []Mount
	CgroupV1 []Hierarchy
	// CgroupBind is the container's path below the hierarchies' mounts, for
	// containers that see the host's cgroup namespace; "" else.
	CgroupBind string
	DevSetup   bool
	Devices    []Device
	Masked     []string
	Readonly   []string
	Sysctl     []KeyValue

	HostHooks       bool
	CreateContainer []Hook
	StartContainer  []Hook

	Process Process
}

// Enter is a namespace to join.
type Enter struct {
	FD   int
	Flag int
}

// KeyValue is a pair.
type KeyValue struct{ Key, Value string }

// Hierarchy is one mounted cgroup v1 hierarchy of the host.
type Hierarchy struct {
	Name    string   // the directory's name, such as "cpu,cpuacct"
	Mount   string   // where the host has it
	Options []string // mount options that select it, such as "cpu", "cpuacct", "name=systemd"
	// Unified marks the v2 hierarchy of a hybrid host.
	Unified bool
}

// MountKind says how a mount is made.
type MountKind byte

// Mount kinds.
const (
	MountFS MountKind = iota
	MountBind
	MountCgroup
	MountRemount // change flags of what is mounted at the target
)

// Mount is one entry of the container's mounts, its options taken apart.
type Mount struct {
	Kind   MountKind
	Target string
	Source string
	Type   string
	Data   []string // file-system options, "key" or "key=value"
	Label  string   // SELinux context of all files of a new file system
	// SourceFD is an opened source (open_tree), or -1.
	SourceFD  int
	Recursive bool // rbind
	// Set and Clear are MOUNT_ATTR flags of the mount; RecSet and RecClear
	// those of the mount and all below.
	Set, Clear, RecSet, RecClear uint64
	Propagation                  []uint64 // MS_ flags, applied in order
	IVersion                     bool     // count changes of inodes: a flag of mount(2) alone
	CopyUp                       bool     // tmpfs begins with what the root has there
	NoFollow                     bool     // the target's last component is taken as it is
	// IDMapFD is a user namespace whose mapping the mount takes, or -1.
	IDMapFD        int
	IDMapRecursive bool
}

// Device is a node to be made.
type Device struct {
	Path         string
	Type         string // "c", "b", "p"
	Major, Minor int64
	Mode         uint32
	UID, GID     uint32
}

// Hook is a program to be run with the container's state on its stdin.
type Hook struct {
	Path    string
	Args    []string
	Env     []string
	Timeout int64 // seconds, 0 for none
	State   []byte
}

// Rlimit is one resource limit by the kernel's number.
type Rlimit struct {
	Name       string
	Resource   int
	Soft, Hard uint64
}

// Process is the user's process.
type Process struct {
	Args []string
	Env  []string
	Cwd  string

	// ResolveUser takes User and Groups as written, against the root's
	// passwd and group files; else the numbers hold.
	ResolveUser bool
	User        string
	Groups      []string
	UID, GID    uint32
	GIDs        []uint32
	Umask       int32 // -1: 022

	Bounding, Effective, Permitted, Inheritable, Ambient uint64
	// SetCaps is false if the capabilities are to stay as they are.
	SetCaps         bool
	NoNewPrivileges bool
	Rlimits         []Rlimit
	OOMScoreAdj     *int32
	Terminal        bool
	Width, Height   uint16
	AppArmor        string
	SELinux         string
	Personality     int64 // -1: unchanged
	IOPriority      int64 // -1: unchanged
	Scheduler       *Scheduler
	CPUAffinity     []byte // cpu set as a bit mask, little endian
	MemoryPolicy    *MemoryPolicy
	// Keyring is the name of a new session keyring, or "".
	Keyring string
	// Filter is a seccomp program: struct sock_filter after struct sock_filter.
	Filter      []byte
	FilterFlags uint32
	// Notify is set if loading the filter yields a listener, for an agent.
	Notify bool
	// Init puts the built-in reaper in front.
	Init bool
	// ProgramFD is the sealed binary, for Init.
	ProgramFD int
	// ListenFD is a listening socket: whoever connects to it takes the
	// runtime's place after Ready, so that the runtime may end. -1 is none.
	ListenFD int
	// KeepFDs is how many descriptors after stderr the process inherits.
	KeepFDs int
}

// MemoryPolicy is the arguments of set_mempolicy(2).
type MemoryPolicy struct {
	Mode  uint32 // with flags
	Nodes []byte // node set as a bit mask, little endian
}

// Scheduler mirrors struct sched_attr.
type Scheduler struct {
	Policy                    uint32
	Nice                      int32
	Priority                  uint32
	Flags                     uint64
	Runtime, Deadline, Period uint64
}
