// SPDX-License-Identifier: GPL-2.0-only

// Table writes docs/RELIABILITY.md's table of what gets hung machines back, and
// README.md's summary of it, from results files, which the test TestRescue writes
// to $RESULTS:
//
//	go run ./internal/vm/table RESULTS...
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"netsysrq/internal/vm"
)

// What is between these lines is written here.
const (
	begin = "<!-- begin: written by go run ./internal/vm/table -->\n"
	end   = "<!-- end: written by go run ./internal/vm/table -->\n"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(files []string) error {
	if len(files) == 0 {
		return errors.New("name the files with results")
	}
	var all []vm.Attempt
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		list, err := vm.ReadAttempts(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, list...)
	}
	return errors.Join(replace("docs/RELIABILITY.md", vm.Table(all)), replace("README.md", vm.Summary(all)))
}

// replace puts text between the two lines of a file.
func replace(file, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, begin, end)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
