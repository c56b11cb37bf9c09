package build

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// steps turns BuildKit's progress into the classic builder's lines: every
// instruction with its number and text, in the Dockerfile's order, each
// followed by its own output. What runs ahead of its turn is kept until then.
type steps struct {
	out Output

	mu       sync.Mutex
	plan     *plan
	states   []stepState
	vertices map[string]int // digest → index of its instruction, -1 for none
	next     int            // the first instruction that is not finished
	known    bool           // BuildKit has announced all vertices
	bol      bool           // at the beginning of a line
}

// stepState is what is known of an instruction.
type stepState struct {
	titled   bool
	started  bool
	cached   bool
	open     map[string]bool // vertices that have not ended
	vertices int
	output   strings.Builder // not yet printed
}

func newSteps(out Output) *steps {
	return &steps{out: out, vertices: map[string]int{}, bol: true}
}

// setPlan tells the instructions. Without it, the vertices themselves are
// printed when they start.
func (s *steps) setPlan(p *plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.states = p, make([]stepState, len(p.instructions))
}

func (s *steps) print(text string) error {
	if text == "" {
		return nil
	}
	s.bol = strings.HasSuffix(text, "\n")
	return s.out.Stream(text)
}

func (s *steps) printLine(text string) error {
	if !s.bol {
		text = "\n" + text
	}
	return s.print(text)
}

// show takes a message of BuildKit's.
func (s *steps) show(m *controlapi.StatusResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, v := range m.Vertexes {
		errs = append(errs, s.vertex(v))
	}
	for _, l := range m.Logs {
		if i, ok := s.vertices[l.Vertex]; ok && i >= 0 {
			s.states[i].output.Write(l.Msg)
		} else {
			errs = append(errs, s.print(string(l.Msg)))
		}
	}
	for _, w := range m.Warnings {
		errs = append(errs, s.printLine("[Warning] "+string(w.Short)+"\n"))
	}
	return errors.Join(append(errs, s.advance(false))...)
}

// vertex notes what happened to a vertex. BuildKit announces all vertices of a
// build before it starts the first.
func (s *steps) vertex(v *controlapi.Vertex) error {
	i, seen := s.vertices[v.Digest]
	begun := v.Started != nil || v.Cached
	if !seen {
		i = s.plan.find(v.Name)
		if i < 0 && !begun {
			return nil
		}
		s.vertices[v.Digest] = i
	}
	if i < 0 {
		stage, n, total, ok := parseVertex(v.Name)
		if seen || !ok {
			return nil
		}
		if stage != "" {
			stage = " (" + stage + ")"
		}
		_, text, _ := strings.Cut(v.Name, "] ")
		return s.printLine(fmt.Sprintf("Step %d/%d%s : %s\n", n, total, stage, text))
	}
	st := &s.states[i]
	if st.open == nil {
		st.open, st.cached = map[string]bool{}, true
	}
	if !seen {
		st.vertices++
		st.open[v.Digest] = true
	}
	if begun {
		st.started, s.known = true, true
	}
	if v.Completed != nil || v.Cached {
		st.cached = st.cached && v.Cached
		delete(st.open, v.Digest)
	}
	return nil
}

// advance prints what may be printed now; at the end everything that began.
func (s *steps) advance(end bool) error {
	var errs []error
	for s.known && s.next < len(s.states) {
		st := &s.states[s.next]
		over := st.vertices == 0 || len(st.open) == 0 || s.overtaken(s.next)
		if !over && !st.started && !end {
			break
		}
		if !st.titled {
			st.titled = true
			errs = append(errs, s.printLine(s.plan.title(s.next)))
			if st.vertices > 0 && over && st.cached && s.plan.instructions[s.next].layer > 0 {
				errs = append(errs, s.print(" ---> Using cache\n"))
			}
		}
		errs = append(errs, s.print(st.output.String()))
		st.output.Reset()
		if !over && !end {
			break
		}
		s.next++
	}
	return errors.Join(errs...)
}

// overtaken reports that a later instruction of the stage has begun: the
// result of this one came out of the cache without it being looked at.
func (s *steps) overtaken(i int) bool {
	if s.states[i].started {
		return false
	}
	for j := i + 1; j < len(s.states) && s.plan.instructions[j].stage == s.plan.instructions[i].stage; j++ {
		if s.states[j].started {
			return true
		}
	}
	return false
}

// finish prints what is left when the build has ended: all instructions if it
// succeeded, else those up to the last that began.
func (s *steps) finish(ok bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan == nil {
		return nil
	}
	if !ok {
		last := s.next
		for i := s.next; i < len(s.states); i++ {
			if s.states[i].started {
				last = i + 1
			}
		}
		s.states = s.states[:last]
	} else {
		s.known = true
	}
	return s.advance(true)
}
