// Package task is the daemon's view of running processes: the contract between
// the engine and the supervisor, and the messages on the wire between them.
//
// # Lifecycle
//
// A task is one run-time instance of a container. Start makes it; the
// supervisor, never the daemon, is the parent of its process, holder of its
// stdio and writer of its logs. A task that exits is restarted by the
// supervisor according to its restart policy, whether a daemon is connected or
// not: there is one implementation of restarting. When no restart is due the
// task stays in the list as exited until the daemon calls Delete, so that a
// daemon that was away learns the exit code. Everything the supervisor does on
// its own is reported as an Event with a sequence number; events are kept until
// acknowledged by Ack.
//
// The daemon that said Hello last owns the supervisor: each Hello raises the
// epoch, and requests of an earlier epoch are refused with FailedPrecondition.
package task

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Protocol is the version of the messages below. A supervisor speaks it and
// the one before (MinProtocol).
const (
	Protocol    = 1
	MinProtocol = 1
)

// Service is what the supervisor does for a daemon. task/remote implements it
// over the supervisor's socket. Error classes are those of containerd/errdefs
// and survive the wire.
type Service interface {
	// Hello takes ownership and returns every task known to the supervisor.
	// Unavailable if the protocol versions do not overlap.
	Hello(ctx context.Context) (Inventory, error)
	// Start creates the task and runs it. InvalidArgument if the process could
	// not be executed (the error text is the runtime's, see StartError),
	// AlreadyExists if a task of that ID runs, NotImplemented for what the
	// kernel lacks.
	Start(ctx context.Context, req StartRequest, files StartFiles) (Status, error)
	// Exec starts a further process in a running task. NotFound,
	// FailedPrecondition if the task does not run.
	Exec(ctx context.Context, req ExecRequest, conn *os.File) (ExecStatus, error)
	// Signal sends a signal to the task's init (execID "") or an exec's process.
	Signal(ctx context.Context, id, execID string, signal int) error
	// Stop marks the task as not to be restarted (any pending restart is
	// cancelled), sends the signal, and after the timeout SIGKILL. It returns
	// when the task has exited, or with the context's error. A negative
	// timeout waits for ever.
	Stop(ctx context.Context, id string, signal int, timeout time.Duration) (Status, error)
	// Restart policy and resources of a running task.
	Update(ctx context.Context, id string, req UpdateRequest) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Resize sets the terminal size of the task or an exec, in cells.
	Resize(ctx context.Context, id, execID string, width, height int) error
	// Attach hands the connection to the supervisor, which copies output to it
	// (framed unless the task has a terminal) and input from it. The
	// supervisor owns the connection afterwards and closes it at the end.
	// Conn must be a connected stream socket. NotImplemented if the supervisor is
	// too old to attach to execs.
	Attach(ctx context.Context, id string, req AttachRequest, conn *os.File) error
	// HandWait passes a wait request's connection: the supervisor writes the
	// HTTP chunk with the exit code and closes it when the condition is met,
	// so that the wait survives the daemon. The task need not exist yet.
	HandWait(ctx context.Context, id string, cond WaitCondition, conn *os.File) error
	// Status returns one task. NotFound.
	Status(ctx context.Context, id string) (Status, error)
	ExecStatus(ctx context.Context, id, execID string) (ExecStatus, error)
	// OpenRoot returns a descriptor of the task's root mount, mounting it from
	// root if the task has none. The root stays mounted until CloseRoot is
	// called as often as OpenRoot. The same upper directory is never mounted twice.
	OpenRoot(ctx context.Context, id string, root Root) (*os.File, error)
	CloseRoot(ctx context.Context, id string) error
	// NetNS returns a descriptor of the network namespace kept for the task. NotFound.
	NetNS(ctx context.Context, id string) (*os.File, error)
	// NewNetNS makes a network namespace for a container in a user namespace, which
	// is to be passed to Start. The user namespace lives as long. NotFound,
	// FailedPrecondition if the task does not run; NotImplemented if the supervisor is
	// too old.
	NewNetNS(ctx context.Context, req NetNSRequest) (*os.File, error)
	// Delete forgets a task and all it holds; with force it is killed first.
	// On return its processes are dead and its bind mounts released; private
	// cgroups may lag behind. Connections waiting for removal are answered.
	// NotFound if unknown, FailedPrecondition if it runs and force is false.
	Delete(ctx context.Context, id string, force bool) error
	// Events delivers what happened after the acknowledged sequence number, in
	// order, until the context ends. Call Ack when an event's effect is persisted.
	Events(ctx context.Context) (<-chan Event, error)
	Ack(ctx context.Context, seq uint64) error
	// Shutdown ends the helpers if no task exists. FailedPrecondition otherwise.
	Shutdown(ctx context.Context) error
}

// Inventory is the answer to Hello.
type Inventory struct {
	Protocol int
	Epoch    uint64
	Tasks    []Status
	Execs    []ExecStatus
	// Replaced is set once the supervisor before this one ended without leaving
	// its connections: attached clients and the output on its way to them are lost.
	Replaced bool `json:",omitempty"`
	// Waits are tasks that the supervisor does not know and somebody waits for
	// since before it was started.
	Waits []string `json:",omitempty"`
	// Lost is closed when the connection that this came over has ended; nil if that
	// is not known.
	Lost <-chan struct{} `json:"-"`
	// Pids of the helpers, for diagnostics.
	SupervisorPid, KeeperPid int
}

// NetNSRequest says which user namespace a new network namespace belongs to.
type NetNSRequest struct {
	// Task is the one whose user namespace is shared; empty for a new one.
	Task string `json:"task,omitempty"`
	// UIDMappings and GIDMappings are those of a new one.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
}

// Root says how the root file system of a task is made.
type Root struct {
	// Layers are the read-only lower directories, topmost first.
	Layers []string `json:"layers,omitempty"`
	// Upper and Work are the writable pair; empty for a read-only view.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Bind is a directory to use instead of an overlay (btrfs, native snapshotters).
	Bind     string   `json:"bind,omitempty"`
	Options  []string `json:"options,omitempty"` // further file-system options
	ReadOnly bool     `json:"readOnly,omitempty"`
	// UIDMappings and GIDMappings show the files as other users', see ocirun.Root.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
}

// StartRequest is everything the supervisor needs to start, and later to
// restart, a task without the daemon. It is journaled as it arrived.
type StartRequest struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// Spec is a complete OCI configuration; Root.Path is ignored in favour of Root.
	Spec *specs.Spec `json:"spec"`
	Root Root        `json:"root"`
	// User is the user as written ("", "name", "uid", "user:group"); it is
	// resolved against the root's own /etc/passwd and /etc/group inside the
	// container. Groups are additional names or ids.
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// Hostname files and the like are ordinary bind mounts in Spec.
	Stdio   Stdio         `json:"stdio"`
	Log     Log           `json:"log"`
	Restart RestartPolicy `json:"restart"`
	// Init puts the engine's own init (reaper and signal forwarder) in front
	// of the process as pid 1.
	Init bool `json:"init,omitempty"`
	// KillWithOwner: the task dies when the daemon connection that started it ends (build steps).
	DieWithOwner bool `json:"dieWithOwner,omitempty"`
	// CgroupParent is where the task's cgroup is made, unless
	// Spec.Linux.CgroupsPath says where. With SystemdDriver systemd makes it, as
	// a scope, and the parent is a slice.
	CgroupParent  string `json:"cgroupParent,omitempty"`
	SystemdDriver bool   `json:"systemdDriver,omitempty"`
	// Runtime is nil for the built-in runtime.
	Runtime *Runtime `json:"runtime,omitempty"`
	// JoinPID, JoinIPC, JoinUTS name the task whose namespace is shared, resolved by the supervisor at each start.
	JoinPID string `json:"joinPid,omitempty"`
	JoinIPC string `json:"joinIpc,omitempty"`
	JoinUTS string `json:"joinUts,omitempty"`
	JoinNet string `json:"joinNet,omitempty"`
}

// DefaultCgroupParent is where tasks go unless the user says where.
func DefaultCgroupParent(systemd bool) string {
	if systemd {
		return "system.slice"
	}
	return "/wherry"
}

// IsSlice tells whether a cgroup parent is one that systemd takes: the name of a
// slice, such as foo.slice, and no path.
func IsSlice(parent string) bool {
	name, ok := strings.CutSuffix(parent, ".slice")
	return ok && name != "" && !strings.ContainsAny(name, "/:")
}

// Runtime is another OCI runtime, as the daemon's configuration names it:
// nothing that a container or an image says leads here.
type Runtime struct {
	// Path of the program: absolute, or a name to be found in the supervisor's PATH.
	Path string `json:"path"`
	// Args go before all others.
	Args []string `json:"args,omitempty"`
}

// StartError is why a process could not be executed inside its container. It
// is an InvalidArgument.
type StartError struct {
	// Code is the exit code users expect: 127 not found, 126 not executable.
	Code int
	// Msg is the runtime's text, such as
	// `exec: "foo": executable file not found in $PATH`.
	Msg string
}

func (e *StartError) Error() string { return e.Msg }

// Unwrap gives the error's class.
func (e *StartError) Unwrap() error { return errdefs.ErrInvalidArgument }

// StartFiles are descriptors passed along with a StartRequest; nil means none.
type StartFiles struct {
	// NetNS is the network namespace to join. The supervisor and keeper hold
	// it until Delete. Nil: Spec decides (a new, empty one, or the host's). If Spec
	// has a user namespace, that is the one this belongs to.
	NetNS *os.File
	// Attach is a client connection to attach before the process runs.
	Attach        *os.File
	AttachRequest AttachRequest
}

// Stdio describes the standard streams of a task.
type Stdio struct {
	Terminal  bool `json:"terminal,omitempty"`
	OpenStdin bool `json:"openStdin,omitempty"`
	// StdinOnce closes stdin when the first attached client disconnects.
	StdinOnce bool `json:"stdinOnce,omitempty"`
	Width     int  `json:"width,omitempty"`
	Height    int  `json:"height,omitempty"`
}

// Log says where output goes. Driver is "json-file", "local" or "none"; the
// options are the driver's, already validated.
type Log struct {
	Driver  string            `json:"driver"`
	Path    string            `json:"path,omitempty"` // absolute path of the current log file
	Options map[string]string `json:"options,omitempty"`
	// Attrs is written with each json-file line when labels or env were asked for.
	Attrs map[string]string `json:"attrs,omitempty"`
}

// RestartPolicy mirrors the API's: "no", "always", "unless-stopped", "on-failure".
type RestartPolicy struct {
	Name       string `json:"name,omitempty"`
	MaxRetries int    `json:"maxRetries,omitempty"`
}

// UpdateRequest changes what may change while a task runs; nil fields stay.
type UpdateRequest struct {
	Resources *specs.LinuxResources `json:"resources,omitempty"`
	Restart   *RestartPolicy        `json:"restart,omitempty"`
}

// ExecRequest is a further process in a task.
type ExecRequest struct {
	ID      string         `json:"id"`
	ExecID  string         `json:"execId"`
	Process *specs.Process `json:"process"`
	User    string         `json:"user,omitempty"`
	Stdio   Stdio          `json:"stdio"`
	Detach  bool           `json:"detach,omitempty"`
	Attach  AttachRequest  `json:"attach"`
}

// AttachRequest says which streams a connection wants.
type AttachRequest struct {
	// ExecID names an exec of the task, whose streams are meant instead of the task's own.
	ExecID string `json:"execId,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
	// DetachKeys is the parsed byte sequence; empty disables detaching.
	DetachKeys []byte `json:"detachKeys,omitempty"`
	// Buffered is input that the daemon had already read from the connection.
	Buffered []byte `json:"buffered,omitempty"`
	// Relayed: the daemon copies between the connection and the client. That both
	// directions end at once means that the daemon is gone, not the client, who
	// may come again: it is not the end of the client's input.
	Relayed bool `json:"relayed,omitempty"`
	// Framed multiplexes stdout and stderr with the 8-byte header; false for terminals.
	Framed bool `json:"framed,omitempty"`
	// Preface is written first (a 101 or 200 response head), so that nothing
	// is promised before the attach stands.
	Preface []byte `json:"preface,omitempty"`
}

// WaitCondition as in the API.
type WaitCondition string

// Conditions.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// State of a task.
type State string

// Task states.
const (
	Running    State = "running"
	Paused     State = "paused"
	Restarting State = "restarting" // exited, waiting for the back-off
	Exited     State = "exited"
)

// Status is a snapshot of a task.
type Status struct {
	ID         string    `json:"id"`
	State      State     `json:"state"`
	Pid        int       `json:"pid,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// ExitCode is 128+n for death by signal n.
	ExitCode    int    `json:"exitCode"`
	ExitUnknown bool   `json:"exitUnknown,omitempty"`
	OOMKilled   bool   `json:"oomKilled,omitempty"`
	Error       string `json:"error,omitempty"`
	Restarts    int    `json:"restarts,omitempty"`
	// Stopped is set once Stop was called, so no restart follows.
	Stopped bool `json:"stopped,omitempty"`
	// Cgroup is the path below each v1 controller's mount, or below the v2 root.
	Cgroup string `json:"cgroup,omitempty"`
	// DroppedBytes counts output that the log does not have: what it did not take
	// in time, or not at all.
	DroppedBytes uint64 `json:"droppedBytes,omitempty"`
	// LogStalled: the log could not be written for a while and still cannot.
	LogStalled bool `json:"logStalled,omitempty"`
	// LogError is the last error of the log writer, if any.
	LogError string `json:"logError,omitempty"`
	// Phases tell, in the answer to Start alone, where its time went.
	Phases []Phase `json:"phases,omitempty"`
}

// Phase is one part of an operation.
type Phase struct {
	Name   string `json:"name"`
	Micros int64  `json:"micros"`
}

// ExecStatus is a snapshot of an exec.
type ExecStatus struct {
	ID       string `json:"id"`
	ExecID   string `json:"execId"`
	Running  bool   `json:"running"`
	Pid      int    `json:"pid,omitempty"`
	ExitCode int    `json:"exitCode"`
}

// EventKind says what happened.
type EventKind string

// Kinds of events.
const (
	EventStarted  EventKind = "started" // by a restart; Start itself answers directly
	EventExited   EventKind = "exited"  // Status.State tells whether a restart follows
	EventOOM      EventKind = "oom"
	EventExecDied EventKind = "exec-died"
	EventDetached EventKind = "detached" // a client used the detach keys
	EventLog      EventKind = "log"      // something changed about the log's losses: see Status
)

// Event is one thing the supervisor did or saw.
type Event struct {
	Seq    uint64      `json:"seq"`
	Time   time.Time   `json:"time"`
	Kind   EventKind   `json:"kind"`
	Status Status      `json:"status"`
	Exec   *ExecStatus `json:"exec,omitempty"`
}
