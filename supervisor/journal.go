package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// journal is the directory of what a later supervisor must know: for each task
// <id>.json, the start request as it arrived, and <id>.status, what became of
// it. The exec root is meant to be a tmpfs: nothing is synced, since nothing of
// it survives the machine.
type journal struct{ dir string }

const journalVersion = 1

// requestFile is <id>.json.
type requestFile struct {
	Version int             `json:"version"`
	Request json.RawMessage `json:"request"`
	Seccomp json.RawMessage `json:"seccomp,omitempty"`
}

// statusFile is <id>.status.
type statusFile struct {
	Version int         `json:"version"`
	Status  task.Status `json:"status"`
	// Start is the start time of Status.Pid, see keeper/exits.
	Start        uint64             `json:"start,omitempty"`
	Restart      task.RestartPolicy `json:"restart,omitzero"`
	Stdio        task.Stdio         `json:"stdio,omitzero"`
	BackoffMS    int64              `json:"backoffMs,omitempty"`
	DieWithOwner bool               `json:"dieWithOwner,omitempty"`
	SharedPid    bool               `json:"sharedPid,omitempty"`
	HasRoot      bool               `json:"hasRoot,omitempty"`
	StdinClosed  bool               `json:"stdinClosed,omitempty"`
	Runtime      *task.Runtime      `json:"runtime,omitempty"`
	Systemd      bool               `json:"systemd,omitempty"` // its cgroup is a scope
}

func openJournal(execRoot string) (*journal, error) {
	dir := filepath.Join(execRoot, "tasks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &journal{dir}, nil
}

func (j *journal) request(id string) string { return filepath.Join(j.dir, id+".json") }
func (j *journal) status(id string) string  { return filepath.Join(j.dir, id+".status") }

// validID keeps IDs usable as file names.
func validID(id string) error {
	if id == "" || len(id) > 128 || strings.ContainsAny(id, "/\x00") || id[0] == '.' {
		return fmt.Errorf("malformed task id %q", id)
	}
	return nil
}

// saveRequest stores a start request as it arrived. One cut short by the end of
// this process is no valid JSON, and its container was not made yet.
func (j *journal) saveRequest(id string, request, seccomp []byte) error {
	return os.WriteFile(j.request(id), encodeRequest(request, seccomp), 0o600)
}

func encodeRequest(request, seccomp []byte) []byte {
	b := append([]byte(nil), `{"version":1,"request":`...)
	b = append(b, request...)
	if len(seccomp) > 0 {
		b = append(append(b, `,"seccomp":`...), seccomp...)
	}
	return append(b, '}')
}

// loadRequest reads a start request; without its spec if only the rest matters.
func (j *journal) loadRequest(id string, decodeSeccomp func([]byte) (*specs.LinuxSeccomp, error)) (*task.StartRequest, error) {
	b, err := os.ReadFile(j.request(id))
	if err != nil {
		return nil, err
	}
	var f requestFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("start request of %s: %w", id, err)
	}
	if f.Version != journalVersion {
		return nil, fmt.Errorf("start request of %s has version %d", id, f.Version)
	}
	return decodeStart(f.Request, f.Seccomp, decodeSeccomp)
}

func decodeStart(request, seccomp []byte, decodeSeccomp func([]byte) (*specs.LinuxSeccomp, error)) (*task.StartRequest, error) {
	req := new(task.StartRequest)
	if err := json.Unmarshal(request, req); err != nil {
		return nil, fmt.Errorf("malformed start request: %w", err)
	}
	if len(seccomp) > 0 && req.Spec != nil && req.Spec.Linux != nil {
		sc, err := decodeSeccomp(seccomp)
		if err != nil {
			return nil, err
		}
		req.Spec.Linux.Seccomp = sc
	}
	return req, nil
}

func (j *journal) saveStatus(st *statusFile) error {
	st.Version = journalVersion
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return overwriteFile(j.status(st.Status.ID), b)
}

func (j *journal) loadStatus(id string) (*statusFile, error) {
	b, err := os.ReadFile(j.status(id))
	if err != nil {
		return nil, err
	}
	st := new(statusFile)
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fmt.Errorf("status of %s: %w", id, err)
	}
	if st.Version != journalVersion {
		return nil, fmt.Errorf("status of %s has version %d", id, st.Version)
	}
	return st, nil
}

// ids lists the tasks of the journal, and those of which only a status is left.
func (j *journal) ids() (ids, leftovers []string, err error) {
	all, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range all {
		if id, ok := strings.CutSuffix(d.Name(), ".json"); ok {
			ids = append(ids, id)
		}
		if id, ok := strings.CutSuffix(d.Name(), ".status"); ok {
			if _, err := os.Lstat(j.request(id)); errors.Is(err, fs.ErrNotExist) {
				leftovers = append(leftovers, id)
			}
		}
	}
	return ids, leftovers, nil
}

func (j *journal) removeRequest(id string) error { return removeIfThere(j.request(id)) }
func (j *journal) removeStatus(id string) error  { return removeIfThere(j.status(id)) }

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// updateResources changes the limits in a start request, for the next restart.
func (j *journal) updateResources(id string, res *specs.LinuxResources) error {
	b, err := os.ReadFile(j.request(id))
	if err != nil {
		return err
	}
	var f requestFile
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	req := new(task.StartRequest)
	if err := json.Unmarshal(f.Request, req); err != nil {
		return err
	}
	if req.Spec.Linux == nil {
		req.Spec.Linux = &specs.Linux{}
	}
	if req.Spec.Linux.Resources == nil {
		req.Spec.Linux.Resources = &specs.LinuxResources{}
	}
	// Fields that the update leaves out keep their value: they are not encoded.
	change, err := json.Marshal(res)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(change, req.Spec.Linux.Resources); err != nil {
		return err
	}
	request, err := json.Marshal(req)
	if err != nil {
		return err
	}
	return replaceFile(j.request(id), encodeRequest(request, f.Seccomp))
}

// replaceFile writes a file whole or not at all, as far as other processes see.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// inPlace is the size up to which a file can be overwritten: one page, whose
// writing is never interrupted by a signal.
const inPlace = 2048

// overwriteFile writes a small JSON file in place, which costs a fraction of a
// rename over an existing file. Blanks make up for what was longer before.
func overwriteFile(path string, b []byte) error {
	if len(b) > inPlace {
		return replaceFile(path, b)
	}
	var buf [inPlace]byte
	n := copy(buf[:], b)
	for i := n; i < len(buf); i++ {
		buf[i] = ' '
	}
	return writeStart(path, buf[:])
}

// writeStart writes the beginning of a file, which need not exist, and leaves
// the rest.
func writeStart(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}
