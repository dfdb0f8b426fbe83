// SPDX-License-Identifier: GPL-2.0-only

// Command gen writes the test vectors of auth/PROTOCOL.md. It shares no code with package auth: what both get wrong
// they must get wrong independently. Run it from the root of the repository:
//
//	go run ./auth/testdata/gen            write auth/testdata/vectors anew
//	go run ./auth/testdata/gen -check     compare, and exit 1 naming the files that differ
//	go run ./auth/testdata/gen -example   print the worked example of section 7
package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A vector is one file: header lines, an empty line, the packet.
type vector struct {
	name   string
	header [][2]string
	packet []byte
}

func (v vector) text() []byte {
	var b bytes.Buffer
	for _, h := range v.header {
		if h[1] == "" {
			fmt.Fprintf(&b, "%s:\n", h[0])
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", h[0], h[1])
	}
	b.WriteByte('\n')
	b.WriteString(hexLines(v.packet))
	return b.Bytes()
}

// hexLines gives 64 characters a line, and nothing for no bytes.
func hexLines(p []byte) string {
	var b strings.Builder
	for chunk := range slices.Chunk(p, 32) {
		b.WriteString(hex.EncodeToString(chunk))
		b.WriteByte('\n')
	}
	return b.String()
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("gen", flag.ExitOnError)
	dir := flags.String("dir", "auth/testdata/vectors", "directory of the vectors")
	check := flags.Bool("check", false, "compare with the files instead of writing them")
	example := flags.Bool("example", false, "print the worked example of PROTOCOL.md")
	flags.Parse(args)

	if *example {
		return writeExample(stdout)
	}
	want := make(map[string][]byte)
	for _, v := range vectors() {
		file := v.name + ".txt"
		if want[file] != nil {
			return fmt.Errorf("two vectors are named %q", v.name)
		}
		want[file] = v.text()
	}
	have, err := readDir(*dir)
	if err != nil {
		return err
	}
	var differ []string
	for file, text := range want {
		if old, ok := have[file]; !ok || !bytes.Equal(old, text) {
			differ = append(differ, file)
		}
	}
	for file := range have {
		if want[file] == nil {
			differ = append(differ, file)
		}
	}
	slices.Sort(differ)
	if *check {
		for _, file := range differ {
			fmt.Fprintln(stdout, filepath.Join(*dir, file))
		}
		if len(differ) > 0 {
			return fmt.Errorf("%d of %d vectors differ", len(differ), len(want))
		}
		return nil
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	for _, file := range differ {
		path := filepath.Join(*dir, file)
		if want[file] == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, want[file], 0o644)
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "%d vectors, %d files changed\n", len(want), len(differ))
	return nil
}

// readDir reads the vectors that are there; a missing directory has none.
func readDir(dir string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".txt" {
			continue
		}
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
}
