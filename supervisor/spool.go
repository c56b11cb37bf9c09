package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/logs"
)

// The spool is shared memory, divided into slots, through which all output
// passes on its way to a log. A stream is read right into a slot, and the slot
// says how far things are; killed at any moment, the supervisor leaves there
// what was read and is not in the log yet, for the next one to write.
//
// A slot is a page for its head, followed by chunkSize bytes of output, which
// are zero while nothing is being read: that is how much was read if there was
// no time left to note it.
//
//	0   uint32  phase
//	4   uint32  number of bytes read
//	8   uint64  inode of the log file when logging began
//	16  uint64  its size then
//	24  uint64  number of the batch, see tail
//	32  uint8   stream
//	33  uint8   length of the task's ID
//	34  bytes   the ID
const (
	spoolSet = "spool" // of the keeper
	slotHead = 4096
	slotSize = slotHead + chunkSize
	// chunkSize is how much is read at once (bytes): what a pipe holds.
	chunkSize = 64 << 10
	// warmSlots stay in memory when they are not used.
	warmSlots = 4
)

// Phases of a slot.
const (
	slotFree    = iota
	slotReading // it holds what lies before the zeros
	slotRead    // it holds n bytes
	slotLogging // they are being logged
)

type spool struct {
	f *os.File

	mu    sync.Mutex
	free  []*slot
	count int
	// left are the slots of an earlier supervisor, by task, until recovered.
	left map[string][]*slot
}

type slot struct {
	index int
	mem   []byte
}

// openSpool goes on with the spool of an earlier supervisor, or makes one if
// there is none (fd is -1). It is memory without a name, which the keeper holds too.
func openSpool(fd int) (*spool, error) {
	if fd < 0 {
		var err error
		if fd, err = unix.MemfdCreate("wherry-spool", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
			return nil, err
		}
	}
	sp := &spool{f: os.NewFile(uintptr(fd), "spool"), left: map[string][]*slot{}}
	fi, err := sp.f.Stat()
	if err != nil {
		return nil, err
	}
	for range fi.Size() / slotSize {
		s, err := sp.mapNext()
		if err != nil {
			return nil, err
		}
		if s.phase() == slotFree {
			sp.put(s)
		} else {
			sp.left[s.task()] = append(sp.left[s.task()], s)
		}
	}
	return sp, nil
}

// mapNext maps the next slot, for which there is room.
func (sp *spool) mapNext() (*slot, error) {
	mem, err := unix.Mmap(int(sp.f.Fd()), int64(sp.count)*slotSize, slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map spool: %w", err)
	}
	s := &slot{index: sp.count, mem: mem}
	sp.count++
	return s, nil
}

// get returns a free slot, the one used last.
func (sp *spool) get() (*slot, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if n := len(sp.free); n > 0 {
		s := sp.free[n-1]
		sp.free = sp.free[:n-1]
		return s, nil
	}
	// The memory is taken now: there must be no lack of it in the middle of a read.
	if err := unix.Fallocate(int(sp.f.Fd()), 0, int64(sp.count)*slotSize, slotSize); err != nil {
		return nil, fmt.Errorf("extend spool: %w", err)
	}
	return sp.mapNext()
}

// put takes a slot back; of many, few stay in memory.
func (sp *spool) put(s *slot) {
	s.finish()
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if len(sp.free) >= warmSlots {
		_ = unix.Madvise(s.mem, unix.MADV_DONTNEED)
	}
	sp.free = append(sp.free, s)
}

// takeLeft returns what an earlier supervisor left of a task.
func (sp *spool) takeLeft(id string) []*slot {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	l := sp.left[id]
	delete(sp.left, id)
	return l
}

// dropLeft forgets what no task claimed.
func (sp *spool) dropLeft() {
	sp.mu.Lock()
	left := sp.left
	sp.left = map[string][]*slot{}
	sp.mu.Unlock()
	for _, l := range left {
		for _, s := range l {
			sp.put(s)
		}
	}
}

func (s *slot) word() *uint32         { return (*uint32)(unsafe.Pointer(&s.mem[0])) }
func (s *slot) phase() uint32         { return atomic.LoadUint32(s.word()) }
func (s *slot) setPhase(p uint32)     { atomic.StoreUint32(s.word(), p) }
func (s *slot) data() []byte          { return s.mem[slotHead:] }
func (s *slot) u64(off int) uint64    { return binary.LittleEndian.Uint64(s.mem[off:]) }
func (s *slot) set(off int, v uint64) { binary.LittleEndian.PutUint64(s.mem[off:], v) }
func (s *slot) stream() logs.Stream   { return logs.Stream(s.mem[32]) }
func (s *slot) batch() uint64         { return s.u64(24) }
func (s *slot) task() string          { return string(s.mem[34 : 34+int(s.mem[33])]) }

// position is where the log ended when logging began; ok if it began.
func (s *slot) position() (ino uint64, size int64, ok bool) {
	return s.u64(8), int64(s.u64(16)), s.phase() == slotLogging
}

// content is what was read.
func (s *slot) content() []byte {
	d := s.data()
	if s.phase() != slotReading {
		n := min(int(binary.LittleEndian.Uint32(s.mem[4:])), len(d))
		return d[:n]
	}
	n := len(d)
	for n > 0 && d[n-1] == 0 {
		n--
	}
	return d[:n]
}

// read reads from a stream of a task.
func (s *slot) read(fd int, id string, stream logs.Stream) (int, error) {
	s.mem[32], s.mem[33] = byte(stream), byte(len(id))
	copy(s.mem[34:slotHead], id)
	s.setPhase(slotReading)
	n, err := unix.Read(fd, s.data())
	if n > 0 {
		s.note(n)
		s.setPhase(slotRead)
	} else {
		s.note(0)
		s.setPhase(slotFree)
	}
	return n, err
}

// note stores how much was read.
func (s *slot) note(n int) { binary.LittleEndian.PutUint32(s.mem[4:], uint32(n)) }

// logging notes where the log ends before the content is appended.
func (s *slot) logging(ino uint64, size int64, batch uint64) {
	s.set(8, ino)
	s.set(16, uint64(size))
	s.set(24, batch)
	s.setPhase(slotLogging)
}

// finish forgets the content: it is in the log.
func (s *slot) finish() {
	used := s.content()
	s.setPhase(slotFree)
	clear(used)
	s.note(0)
}

// tail is the unfinished last line of a stream, kept in a file of the journal,
// because it was read and is not in the log. Batch is the number of the slot's
// content after which it was so.
type tail struct {
	batch uint64
	text  []byte
}

func (j *journal) tail(id string, s logs.Stream) string {
	return filepath.Join(j.dir, fmt.Sprintf("%s.tail%d", id, s))
}

// saveTail writes the file: the number of the batch, the length of the text,
// both little endian, and the text.
func (j *journal) saveTail(id string, s logs.Stream, t tail) error {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, tailHead+len(t.text)), t.batch)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(t.text))), t.text...)
	if len(b) <= inPlace {
		return writeStart(j.tail(id, s), b)
	}
	return replaceFile(j.tail(id, s), b)
}

const tailHead = 12

func (j *journal) loadTail(id string, s logs.Stream) (tail, error) {
	b, err := os.ReadFile(j.tail(id, s))
	if errors.Is(err, os.ErrNotExist) {
		return tail{}, nil
	}
	if err != nil || len(b) < tailHead {
		return tail{}, err
	}
	text := b[tailHead:]
	n := min(int(binary.LittleEndian.Uint32(b[8:])), len(text))
	return tail{binary.LittleEndian.Uint64(b), text[:n]}, nil
}

func (j *journal) removeTail(id string, s logs.Stream) error { return removeIfThere(j.tail(id, s)) }
