package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// maxBackoff bounds the pause between two attempts; it grows by backoffStep.
	backoffStep = 1 * time.Second
	maxBackoff  = 10 * time.Second

	// pullPrefix begins the names of partial downloads; the digest follows.
	pullPrefix = "pull-"
)

// fetchDocument returns a manifest, index or configuration, from the content
// store if it is there, and does not store it; see keepDocument. ctx must hold a lease.
func (s *Store) fetchDocument(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("%s is announced with %d bytes, more than %d: %w", desc.Digest, desc.Size, maxDocument, errdefs.ErrInvalidArgument)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %.100q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if ok, err := s.holdBlob(ctx, desc); err != nil {
		return nil, err
	} else if ok {
		return readDocument(ctx, s.ContentStore(), desc)
	}
	var doc []byte
	err := s.retrying(ctx, desc, sink{}, func() (err error) {
		doc, err = s.receiveDocument(ctx, f, desc)
		return err
	})
	return doc, err
}

// receiveDocument is one attempt.
func (s *Store) receiveDocument(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	doc, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err := checkReceived(desc, int64(len(doc)), err); err != nil {
		return nil, err
	}
	if got := desc.Digest.Algorithm().FromBytes(doc); got != desc.Digest {
		return nil, s.damaged(desc, fmt.Errorf("it has the digest %s", got))
	}
	return doc, nil
}

// keepDocument stores what fetchDocument returned, with labels; if it is there
// already, it gets those that refer to others. ctx must hold a lease.
func (s *Store) keepDocument(ctx context.Context, desc ocispec.Descriptor, doc []byte, refs, labels map[string]string) error {
	unlock := s.keys.lock("blob:" + desc.Digest.String())
	defer unlock()
	ok, err := s.holdBlob(ctx, desc)
	if err != nil {
		return err
	}
	if ok {
		return s.label(ctx, desc.Digest, refs)
	}
	all := maps.Clone(labels)
	maps.Copy(all, refs)
	err = content.WriteBlob(ctx, s.ContentStore(), "document-"+desc.Digest.String(), bytes.NewReader(doc), desc, content.WithLabels(all))
	if err != nil {
		return fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	return s.label(ctx, desc.Digest, all) // what came by another way meanwhile has none
}

// fetchBlob brings a blob into the content store, resuming what an earlier
// attempt left, also that of another process. ctx must hold a lease.
// A blob that is new gets the labels.
// If it is downloaded from its first byte, t gets the bytes as they come.
func (s *Store) fetchBlob(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, labels map[string]string, t *tee, out sink) error {
	defer t.end(errNotStreamed)
	unlock := s.keys.lock("blob:" + desc.Digest.String())
	defer unlock()
	if ok, err := s.holdBlob(ctx, desc); ok || err != nil {
		return err
	}
	return s.retrying(ctx, desc, out, func() error { return s.fetchOnce(ctx, f, desc, labels, t, out) })
}

// retrying makes further attempts to fetch a blob while that makes sense, with growing pauses.
func (s *Store) retrying(ctx context.Context, desc ocispec.Descriptor, out sink, once func() error) error {
	for attempt := 1; ; attempt++ {
		err := once()
		if err == nil || attempt >= int(s.attempts.Load()) || !retryable(err) || ctx.Err() != nil {
			return err
		}
		s.log.Debug("retry a download", "blob", desc.Digest, "attempt", attempt, "err", err)
		if err := backoff(ctx, min(time.Duration(attempt)*backoffStep, maxBackoff), out, desc.Digest); err != nil {
			return err
		}
	}
}

// backoff waits and counts down for people.
func backoff(ctx context.Context, d time.Duration, out sink, dgst digest.Digest) error {
	for left := int(d / time.Second); left > 0; left-- {
		unit := "seconds"
		if left == 1 {
			unit = "second"
		}
		out.status(short(dgst), fmt.Sprintf("Retrying in %d %s", left, unit))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// holdBlob adds a blob that is here to the lease of ctx.
func (s *Store) holdBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if _, err := s.ContentStore().Info(ctx, desc.Digest); err != nil {
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		return false, err
	}
	id, ok := leases.FromContext(ctx)
	if !ok {
		return true, nil
	}
	err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: desc.Digest.String(), Type: "content"})
	if err != nil {
		return false, err
	}
	_, err = s.ContentStore().Info(ctx, desc.Digest) // it may have been collected meanwhile
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// fetchOnce is one attempt. The partial blob is under no lease, so that it
// outlives a failed transfer; the metadata database expires it after a day.
func (s *Store) fetchOnce(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, labels map[string]string, t *tee, out sink) error {
	ref := pullPrefix + desc.Digest.String()
	w, err := content.OpenWriter(unleased(ctx), s.ContentStore(), content.WithRef(ref), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		_, err = s.holdBlob(ctx, desc)
		return err
	}
	if err != nil {
		return fmt.Errorf("begin download of %s: %w", desc.Digest, err)
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	if st.Offset > desc.Size {
		if err := w.Truncate(0); err != nil {
			return err
		}
		st.Offset = 0
	}
	if st.Offset != 0 {
		t.end(errNotStreamed) // the beginning came before
	}
	if st.Offset < desc.Size || desc.Size == 0 {
		if err := s.receive(ctx, f, desc, w, st.Offset, t, out); err != nil {
			t.end(errNotStreamed)
			if errdefs.IsInvalidArgument(err) || errors.Is(err, unix.ENOSPC) {
				s.abort(ctx, ref)
			}
			return err
		}
	}
	t.end(nil)
	out.status(short(desc.Digest), "Verifying Checksum")
	// The commit adds the blob to the lease.
	err = w.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(labels))
	switch {
	case errdefs.IsAlreadyExists(err):
		_, err = s.holdBlob(ctx, desc)
		return err
	case errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err):
		s.abort(ctx, ref)
		return s.damaged(desc, err)
	case err != nil:
		return fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	return nil
}

// damaged is the error of a blob that is not what its descriptor says.
func (s *Store) damaged(desc ocispec.Descriptor, why error) error {
	s.log.Warn("a registry sent other content than it announced", "blob", desc.Digest, "err", why)
	return fmt.Errorf("%s verification failed for digest %s: %w", kindText(desc), desc.Digest, errdefs.ErrInvalidArgument)
}

// kindText names a blob in Docker's messages.
func kindText(desc ocispec.Descriptor) string {
	switch {
	case images.IsManifestType(desc.MediaType), images.IsIndexType(desc.MediaType):
		return "manifest"
	case images.IsConfigType(desc.MediaType):
		return "image config"
	}
	return "filesystem layer"
}

// abort removes a download whose content is not what it should be.
func (s *Store) abort(ctx context.Context, ref string) {
	if err := s.ContentStore().Abort(context.WithoutCancel(ctx), ref); err != nil && !errdefs.IsNotFound(err) {
		s.log.Warn("remove a damaged download", "ref", ref, "err", err)
	}
}

// receive copies the rest of a blob from the registry.
func (s *Store) receive(ctx context.Context, f remotes.Fetcher, desc ocispec.Descriptor, w content.Writer, offset int64, t *tee, out sink) error {
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	if offset > 0 {
		offset, err = skipTo(rc, w, offset)
		if err != nil {
			return err
		}
	}
	m := &meter{sink: out, id: short(desc.Digest), action: "Downloading", total: desc.Size}
	src := &counted{r: io.LimitReader(rc, desc.Size-offset+1), m: m}
	src.n.Store(offset)
	n, err := io.CopyBuffer(teeWriter{w, t}, src, make([]byte, 256<<10))
	if err := checkReceived(desc, offset+n, err); err != nil {
		if offset+n > desc.Size {
			_ = w.Truncate(0)
		}
		return err
	}
	return nil
}

// checkReceived says what is wrong with a transfer that ended with err after so many bytes of a blob.
func checkReceived(desc ocispec.Descriptor, got int64, err error) error {
	switch {
	case errdefs.IsFailedPrecondition(err), err == nil && got > desc.Size: // the reader counts too
		return fmt.Errorf("download %s: more than the announced %d bytes: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	case err != nil:
		return fmt.Errorf("download %s: %w", desc.Digest, err)
	case got < desc.Size:
		return fmt.Errorf("download %s: got %d of %d bytes: %w", desc.Digest, got, desc.Size, io.ErrUnexpectedEOF)
	}
	return nil
}

// teeWriter writes to the content store and then to the tee. It has no
// ReadFrom, so that the buffer given is used.
type teeWriter struct {
	w io.Writer
	t *tee
}

func (t teeWriter) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.t.write(p[:n])
	return n, err
}

// skipTo continues at an offset, or starts again where the registry cannot.
func skipTo(rc io.ReadCloser, w content.Writer, offset int64) (int64, error) {
	if sk, ok := rc.(io.Seeker); ok {
		if _, err := sk.Seek(offset, io.SeekStart); err == nil {
			return offset, nil
		}
	}
	return 0, w.Truncate(0)
}

func retryable(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests || status.StatusCode == http.StatusRequestTimeout
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC) || errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		return false
	}
	var netErr net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED) || errors.As(err, &netErr)
}
