package supervisor

import (
	"time"

	"github.com/wherry-engine/wherry/ocirun"
	"github.com/wherry-engine/wherry/task"
)

// phases measures where the time of a start goes, for whoever asked for it.
type phases struct {
	last time.Time
	list []task.Phase
}

func newPhases() *phases { return &phases{last: time.Now()} }

// end ends the phase that began with the end of the last one.
func (p *phases) end(name string) {
	now := time.Now()
	p.list = append(p.list, task.Phase{Name: name, Micros: now.Sub(p.last).Microseconds()})
	p.last = now
}

// add ends a phase that others took apart; name is what they do not know of.
func (p *phases) add(name string, parts []ocirun.Phase) {
	rest := len(p.list)
	p.end(name)
	for _, part := range parts {
		p.list = append(p.list, task.Phase{Name: part.Name, Micros: part.Took.Microseconds()})
		p.list[rest].Micros -= part.Took.Microseconds()
	}
}
