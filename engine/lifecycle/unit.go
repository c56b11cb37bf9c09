package lifecycle

import (
	"os"
	"sync"
	"sync/atomic"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/container"
	"github.com/wherry-engine/wherry/engine/health"
	"github.com/wherry-engine/wherry/task"
)

// unit is one container: the spec the user asked for, the status the engine
// learned, and the handle of its present life. Spec and status are replaced as
// wholes, by the owner only; anyone may read them.
type unit struct {
	id     container.ID
	spec   atomic.Pointer[container.Spec]
	status atomic.Pointer[container.Status]
	owner  owner

	// freeze keeps pausing apart from the start of further processes: they
	// would stop half-way.
	freeze sync.RWMutex

	mu     sync.Mutex // guards handle
	handle handle
}

func newUnit(s *container.Spec, st *container.Status) *unit {
	u := &unit{id: s.ID}
	u.spec.Store(s)
	u.status.Store(st)
	return u
}

// handle is what exists only while this daemon runs.
type handle struct {
	attach  []pending    // connections that came before the start
	waiters []*waiter    // waits this daemon answers itself
	mail    []task.Event // news not yet applied, in order
	reading bool         // somebody applies mail
	probe   *health.Probe
	// lastHealth is what was known when a pause interrupted the checks.
	lastHealth *apicontainer.Health
	gone       bool // removed
	// watched: the supervisor tells a client of the end, which may then ask
	// this daemon before news reached it.
	watched bool
	// restarting counts the restarts under way, which keep an AutoRemove container from
	// being removed between stop and start.
	restarting int
}

// pending is a connection that attaches when the container is started.
type pending struct {
	conn *os.File
	req  task.AttachRequest
}

// owner runs functions one after another: whoever calls owns the container for
// that time. It costs an idle container one word.
type owner struct {
	mu sync.Mutex
}

func (o *owner) do(fn func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fn()
}

func (u *unit) name() string { return u.spec.Load().Name }

func (u *unit) up() bool { return u.status.Load().State.Up() }
