package local

import (
	"testing"

	"github.com/wherry-engine/wherry/logs"
	"github.com/wherry-engine/wherry/logs/logstest"
)

func TestSuite(t *testing.T) {
	logstest.Run(t, logstest.Driver{
		NewWriter: func(o logstest.Options) (logs.Writer, error) { return NewWriter(WriterOptions(o)) },
		NewReader: func(path string) logs.Reader { return NewReader(path) },
	})
}
