package build

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
)

// instruction is a line of a Dockerfile, as the classic builder counts them:
// all of every stage up to the target, and the ARGs before the first FROM.
type instruction struct {
	stage int // -1 before the first FROM
	// layer is the instruction's number among those of its stage that BuildKit
	// has a vertex for, from 1; FROM is 0, others that have none are -1.
	layer int
	text  string
}

// plan is a Dockerfile in the classic builder's order.
type plan struct {
	instructions []instruction
	stages       map[string]int // by BuildKit's name of the stage
	layers       []int          // number of each stage's layer instructions
}

// newPlan reads a Dockerfile up to the end of its target stage ("": the last).
func newPlan(dockerfile []byte, target string) (*plan, error) {
	res, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, err
	}
	stages, globals, err := instructions.Parse(res.AST, nil)
	if err != nil {
		return nil, err
	}
	p := &plan{stages: map[string]int{}}
	for i := range globals {
		p.instructions = append(p.instructions, instruction{stage: -1, layer: -1, text: globals[i].String()})
	}
	if len(stages) == 1 {
		p.stages[""] = 0 // BuildKit names no stage where there is one
	}
	for i, s := range stages {
		name := strings.ToLower(s.Name)
		if name == "" {
			name = "stage-" + strconv.Itoa(i)
		}
		p.stages[name] = i
		p.addStage(i, s)
		if target != "" && (strings.EqualFold(s.Name, target) || strconv.Itoa(i) == target) {
			break
		}
	}
	return p, nil
}

func (p *plan) addStage(i int, s instructions.Stage) {
	p.instructions = append(p.instructions, instruction{stage: i, text: s.SourceCode})
	layers := 0
	for _, c := range s.Commands {
		layer := -1
		switch c.(type) {
		case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
			layers++
			layer = layers
		}
		p.instructions = append(p.instructions, instruction{stage: i, layer: layer, text: fmt.Sprint(c)})
	}
	p.layers = append(p.layers, layers)
}

// find returns the index of the instruction that a vertex works for, by its
// name ("[builder 2/4] RUN make"); -1 if there is none. BuildKit counts FROM
// and what ONBUILD adds before the instructions of the stage.
func (p *plan) find(vertex string) int {
	stage, n, total, ok := parseVertex(vertex)
	if p == nil || !ok {
		return -1
	}
	i, ok := p.stages[stage]
	if !ok || i >= len(p.layers) {
		return -1
	}
	layer := max(n-(total-p.layers[i]), 0)
	for at, ins := range p.instructions {
		if ins.stage == i && ins.layer == layer {
			return at
		}
	}
	return -1
}

func (p *plan) title(i int) string {
	return fmt.Sprintf("Step %d/%d : %s\n", i+1, len(p.instructions), p.instructions[i].text)
}

// parseVertex takes the numbers from the name of a vertex.
func parseVertex(name string) (stage string, n, total int, ok bool) {
	head, _, ok := strings.Cut(strings.TrimPrefix(name, "["), "] ")
	if !ok || !strings.HasPrefix(name, "[") {
		return "", 0, 0, false
	}
	num := head
	if i := strings.LastIndexByte(head, ' '); i >= 0 {
		stage, num = strings.TrimSpace(head[:i]), head[i+1:]
	}
	a, b, ok := strings.Cut(num, "/")
	n, err1 := strconv.Atoi(a)
	total, err2 := strconv.Atoi(b)
	return stage, n, total, ok && err1 == nil && err2 == nil
}

// planned tells those who wait for it which Dockerfile a session builds.
type planned struct {
	mu      sync.Mutex
	waiting map[string]func(*plan) // by session
}

// expect calls f once with the plan of the next build of a session.
func (p *planned) expect(session string, f func(*plan)) (forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[string]func(*plan){}
	}
	p.waiting[session] = f
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, session)
	}
}

// frontend wraps the Dockerfile frontend. The Dockerfile is read a second
// time, which BuildKit answers from the first.
func (p *planned) frontend(build gateway.BuildFunc) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		session := c.BuildOpts().SessionID
		p.mu.Lock()
		tell := p.waiting[session]
		delete(p.waiting, session)
		p.mu.Unlock()
		if tell != nil {
			// Whatever is wrong with the Dockerfile, the frontend itself will say.
			if pl, err := readPlan(ctx, c); err == nil {
				tell(pl)
			}
		}
		return build(ctx, c)
	}
}

func readPlan(ctx context.Context, c gateway.Client) (*plan, error) {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	src, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, err
	}
	return newPlan(src.Data, c.BuildOpts().Opts["target"])
}
