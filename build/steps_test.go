package build

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const stagesDockerfile = `ARG BASE=busybox
FROM ${BASE} AS Builder
LABEL a=b
RUN make \
    all
ENV X=1

FROM scratch
COPY --from=builder /out /
CMD ["/out"]

FROM busybox AS unused
RUN never
`

// lines collects a build's text.
type lines struct{ text string }

func (l *lines) Stream(s string) error { l.text += s; return nil }
func (l *lines) Aux(string, any) error { return nil }

func testPlan(t *testing.T, dockerfile, target string) *plan {
	t.Helper()
	p, err := newPlan([]byte(dockerfile), target)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlan(t *testing.T) {
	p := testPlan(t, stagesDockerfile, "1")
	for name, want := range map[string]string{
		"[builder 1/2] FROM docker.io/library/busybox": "Step 2/8 : FROM ${BASE} AS Builder\n",
		"[builder 2/2] RUN make     all":               "Step 4/8 : RUN make     all\n",
		"[builder 3/3] RUN make     all":               "Step 4/8 : RUN make     all\n", // a trigger of the base before it
		"[builder 2/3] ONBUILD RUN x":                  "Step 2/8 : FROM ${BASE} AS Builder\n",
		"[stage-1 1/1] COPY --from=builder /out /":     "Step 7/8 : COPY --from=builder /out /\n",
		"[internal] load build definition":             "",
		"[auth] library/busybox:pull":                  "",
		"exporting to image":                           "",
		"[unused 2/2] RUN never":                       "",
		"":                                             "",
	} {
		got := ""
		if i := p.find(name); i >= 0 {
			got = p.title(i)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if n := len(testPlan(t, stagesDockerfile, "").instructions); n != 10 {
		t.Errorf("%d instructions without a target", n)
	}
	if n := len(testPlan(t, stagesDockerfile, "builder").instructions); n != 5 {
		t.Errorf("%d instructions up to the first stage", n)
	}
}

func announced(digest, name string) *controlapi.StatusResponse {
	return &controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: digest, Name: name}}}
}

func begun(digest, name string) *controlapi.StatusResponse {
	return &controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: digest, Name: name, Started: timestamppb.Now()}}}
}

func ended(digest, name string, cached bool) *controlapi.StatusResponse {
	return &controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: digest, Name: name, Started: timestamppb.Now(), Completed: timestamppb.Now(), Cached: cached}}}
}

func wrote(digest, text string) *controlapi.StatusResponse {
	return &controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Vertex: digest, Msg: []byte(text)}}}
}

func TestSteps(t *testing.T) {
	const from, run, other, again, last = "[a 1/2] FROM x", "[a 2/2] RUN one", "[stage-1 1/3] FROM y", "[stage-1 2/3] RUN two", "[stage-1 3/3] COPY --from=a / /"
	dockerfile := "FROM x AS a\nLABEL l=1\nRUN one\nFROM y\nRUN two\nENV e=1\nCOPY --from=a / /\nCMD [\"c\"]\n"
	load := []*controlapi.StatusResponse{announced("f", from), announced("r", run), announced("o", other), announced("g", again), announced("c", last)}
	for name, tt := range map[string]struct {
		messages []*controlapi.StatusResponse
		failed   bool
		want     string
	}{
		"in order, whatever runs first": {
			messages: append(load[:5:5], begun("i", "[internal] load"), begun("o", other), ended("o", other, false), begun("g", again), wrote("g", "of two\n"),
				ended("f", from, true), begun("r", run), wrote("r", "of "), ended("g", again, false), wrote("r", "one"), ended("r", run, false), ended("c", last, false)),
			want: "Step 1/8 : FROM x AS a\nStep 2/8 : LABEL l=1\nStep 3/8 : RUN one\nof one\nStep 4/8 : FROM y\nStep 5/8 : RUN two\nof two\n" +
				"Step 6/8 : ENV e=1\nStep 7/8 : COPY --from=a / /\nStep 8/8 : CMD [\"c\"]\n",
		},
		"cached, the base not even looked at": {
			messages: append(load[:5:5], ended("r", run, true), ended("g", again, true), ended("c", last, true)),
			want: "Step 1/8 : FROM x AS a\nStep 2/8 : LABEL l=1\nStep 3/8 : RUN one\n ---> Using cache\nStep 4/8 : FROM y\nStep 5/8 : RUN two\n ---> Using cache\n" +
				"Step 6/8 : ENV e=1\nStep 7/8 : COPY --from=a / /\n ---> Using cache\nStep 8/8 : CMD [\"c\"]\n",
		},
		"a failed step is the last": {
			messages: append(load[:5:5], ended("f", from, false), begun("r", run), wrote("r", "no such program\n"), ended("r", run, false)),
			failed:   true,
			want:     "Step 1/8 : FROM x AS a\nStep 2/8 : LABEL l=1\nStep 3/8 : RUN one\nno such program\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := &lines{}
			s := newSteps(out)
			s.setPlan(testPlan(t, dockerfile, ""))
			for _, m := range tt.messages {
				if err := s.show(m); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.finish(!tt.failed); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.text); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestStepsWithoutPlan is for a Dockerfile in a dialect of a frontend image.
func TestStepsWithoutPlan(t *testing.T) {
	out := &lines{}
	s := newSteps(out)
	for _, m := range []*controlapi.StatusResponse{begun("i", "[internal] load"), begun("a", "[1/2] FROM x"), begun("b", "[stage 2/2] RUN echo"), wrote("b", "hi\n"), ended("b", "[stage 2/2] RUN echo", false)} {
		if err := s.show(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.finish(true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("Step 1/2 : FROM x\nStep 2/2 (stage) : RUN echo\nhi\n", out.text); diff != "" {
		t.Error(diff)
	}
}
