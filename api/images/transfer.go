package images

import (
	"io"
	"net/http"

	"github.com/wherry-engine/wherry/api/route"
	"github.com/wherry-engine/wherry/image"
	"github.com/wherry-engine/wherry/ociref"
)

// Push answers POST /images/{name}/push.
func (h Handlers) Push(w http.ResponseWriter, r *http.Request) error {
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	if platform != nil && !route.AtLeast(r, "1.46") {
		platform = nil
	}
	ref, err := ociref.Parse(route.Var(r, "name"))
	if err != nil {
		return err
	}
	if tag := r.FormValue("tag"); tag != "" {
		if ref, err = ref.WithTag(tag); err != nil {
			return err
		}
	}
	out := newStream(w)
	return out.end(h.o.Images.Push(r.Context(), image.PushRequest{
		Ref: ref.Familiar(), All: ref.NameOnly(), Platform: platform, Auth: auth,
	}, out))
}

// Load answers POST /images/load.
func (h Handlers) Load(w http.ResponseWriter, r *http.Request) error {
	platforms, err := platformsOf(r, "platform")
	if err != nil {
		return err
	}
	out := &loadStream{stream: newStream(w)}
	out.quiet = route.BoolOr(r, "quiet", true)
	return out.end(h.o.Images.Load(r.Context(), r.Body, platforms, out))
}

// loadStream sends the final lines as clients of load expect them.
type loadStream struct{ *stream }

// Status implements image.Progress.
func (s *loadStream) Status(id, text string) {
	if id != "" {
		s.stream.Status(id, text)
		return
	}
	s.send(message{Stream: text + "\n"})
}

// Get answers GET /images/{name}/get.
func (h Handlers) Get(w http.ResponseWriter, r *http.Request) error {
	return h.save(w, r, []string{route.Var(r, "name")})
}

// GetAll answers GET /images/get.
func (h Handlers) GetAll(w http.ResponseWriter, r *http.Request) error {
	if err := route.Form(r); err != nil {
		return err
	}
	return h.save(w, r, r.Form["names"])
}

func (h Handlers) save(w http.ResponseWriter, r *http.Request, names []string) error {
	platforms, err := platformsOf(r, "platform")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return invalid("no image was given")
	}
	for _, n := range names {
		if _, err := h.o.Images.Resolve(r.Context(), n, nil); err != nil {
			return err
		}
	}
	body := &lazyTar{w: w}
	err = h.o.Images.Save(r.Context(), names, platforms, body)
	if err != nil && body.begun {
		// Too late for a status: break the connection rather than end an
		// archive that is not whole.
		h.o.Logger.Warn("save images", "images", names, "err", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// lazyTar announces an archive with its first byte.
type lazyTar struct {
	w     http.ResponseWriter
	begun bool
}

var _ io.Writer = (*lazyTar)(nil)

func (t *lazyTar) Write(p []byte) (int, error) {
	if !t.begun {
		t.begun = true
		t.w.Header().Set("Content-Type", "application/x-tar")
	}
	return t.w.Write(p)
}
