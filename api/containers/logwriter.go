package containers

import (
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wherry-engine/wherry/logs"
)

// logBuffer is how much is gathered before it is sent, in bytes.
const logBuffer = 32 << 10

// timeLayout is RFC 3339 with all nine digits, so that lines align.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// logWriter writes messages in the form of the logs endpoint.
type logWriter struct {
	w                           http.ResponseWriter
	framed, timestamps, details bool
	follow                      bool
	buf                         []byte
	partial                     bool // the last message did not end its line
}

func newLogWriter(w http.ResponseWriter, framed, timestamps, details, follow bool) *logWriter {
	l := &logWriter{w: w, framed: framed, timestamps: timestamps, details: details, follow: follow}
	if follow {
		_ = http.NewResponseController(w).Flush() // the head, at once
	}
	return l
}

// write adds a message; it is sent when the buffer is full, or at once when
// somebody follows.
func (l *logWriter) write(m logs.Message) error {
	start := len(l.buf)
	if l.framed {
		l.buf = append(l.buf, byte(m.Stream), 0, 0, 0, 0, 0, 0, 0)
	}
	body := len(l.buf)
	if l.timestamps && !l.partial {
		l.buf = m.Time.UTC().AppendFormat(l.buf, timeLayout)
		l.buf = append(l.buf, ' ')
	}
	if l.details && !l.partial {
		l.buf = append(l.buf, attrs(m.Attrs)...)
		l.buf = append(l.buf, ' ')
	}
	l.buf = append(l.buf, m.Line...)
	if l.framed {
		binary.BigEndian.PutUint32(l.buf[start+4:], uint32(len(l.buf)-body))
	}
	l.partial = m.Partial
	if l.follow || len(l.buf) >= logBuffer {
		return l.flush()
	}
	return nil
}

func attrs(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// fail tells the client of an error in the middle of the log.
func (l *logWriter) fail(err error) error {
	return l.write(logs.Message{Stream: logs.Stderr, Time: time.Now(), Line: []byte("Error grabbing logs: " + err.Error() + "\n")})
}

func (l *logWriter) flush() error {
	if len(l.buf) > 0 {
		if _, err := l.w.Write(l.buf); err != nil {
			return err
		}
		l.buf = l.buf[:0]
	}
	if l.follow {
		return http.NewResponseController(l.w).Flush()
	}
	return nil
}
