// Command startup compares how long `PROGRAM --version` takes from exec to
// exit with a Go program that does nothing, by turns.
//
// usage: startup PROGRAM
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const rounds = 300

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: startup PROGRAM")
	}
	dir, err := os.MkdirTemp("", "startup-")
	if err != nil {
		log.Fatal(err)
	}
	err = compare(dir, os.Args[1])
	_ = os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

func compare(dir, program string) error {
	source, empty := filepath.Join(dir, "main.go"), filepath.Join(dir, "empty")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", empty, source)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	var theirs, ours []time.Duration
	for range rounds {
		a, err := once(empty)
		if err != nil {
			return err
		}
		b, err := once(program, "--version")
		if err != nil {
			return err
		}
		theirs, ours = append(theirs, a), append(ours, b)
	}
	a, b := tenth(theirs), tenth(ours)
	fmt.Printf("empty Go program %.2f ms, %s --version %.2f ms: %.2f× (10th percentile of %d)\n",
		ms(a), filepath.Base(program), ms(b), float64(b)/float64(a), rounds)
	return nil
}

func once(program string, args ...string) (time.Duration, error) {
	cmd := exec.Command(program, args...)
	began := time.Now()
	err := cmd.Run()
	return time.Since(began), err
}

func tenth(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/10]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
