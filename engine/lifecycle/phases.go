package lifecycle

import (
	"strings"
	"time"

	"github.com/wherry-engine/wherry/events"
	"github.com/wherry-engine/wherry/task"
)

// phases measures where the time of an operation goes, for `events --timing`.
type phases struct {
	began, last time.Time
	list        []task.Phase
}

func newPhases() *phases {
	now := time.Now()
	return &phases{began: now, last: now}
}

// end ends the phase that began with the end of the last one.
func (p *phases) end(name string) {
	now := time.Now()
	p.list = append(p.list, task.Phase{Name: name, Micros: now.Sub(p.last).Microseconds()})
	p.last = now
}

// add ends a phase that the supervisor took apart; name is what it does not
// know of: the way there and back.
func (p *phases) add(name string, parts []task.Phase) {
	rest := len(p.list)
	p.end(name)
	for _, part := range parts {
		p.list[rest].Micros -= part.Micros
	}
	p.list = append(p.list, parts...)
}

// attrs is the attribute of an event: phases in their order and the whole, such
// as "network and volumes=578µs, all=6.1ms".
func (p *phases) attrs() map[string]string {
	var b strings.Builder
	for _, ph := range p.list {
		b.WriteString(ph.Name + "=" + (time.Duration(ph.Micros) * time.Microsecond).String() + ", ")
	}
	b.WriteString("all=" + time.Since(p.began).Round(time.Microsecond).String())
	return map[string]string{events.Timing: b.String()}
}
